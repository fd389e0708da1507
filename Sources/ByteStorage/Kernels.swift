package import CThinkKernels

/// The kernels for this machine.
package enum Kernels {
    /// The widest instruction set that this machine has, or the one that `THINK_COMPRESS_KERNELS` names.
    ///
    /// A name that this machine doesn't know ends the process: it is a test's or a developer's mistake, and running
    /// other kernels instead would hide it.
    // A table of constants.
    package nonisolated(unsafe) static let best: tck_kernels = unsafe table.pointee

    /// `best` as those C functions take it that put kernels together.
    package nonisolated(unsafe) static let table: UnsafePointer<tck_kernels> = {
        guard let kernels = unsafe tck_best_kernels() else {
            preconditionFailure(
                """
                THINK_COMPRESS_KERNELS names no instruction set of this machine; use scalar, avx2, avx512, avx512vnni, \
                neon or neondotprod
                """
            )
        }
        return unsafe kernels
    }()

    /// Whether `best` can be had: false where `THINK_COMPRESS_KERNELS` names what this machine hasn't.
    package static var areAvailable: Bool { unsafe tck_best_kernels() != nil }

    /// CRC-32C of bytes, or of bytes that follow those of an earlier result.
    package static func checksum(_ bytes: RawSpan, continuing former: UInt32 = 0) -> UInt32 {
        unsafe bytes.withUnsafeBytes { unsafe best.crc32c(former, $0.baseAddress, $0.count) }
    }
}
