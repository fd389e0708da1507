#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// Memory of its own, aligned to 64 bytes.
///
/// Sendable because whoever shares one agrees on who writes where: package code gives concurrent writers disjoint
/// ranges and lets nobody read before they are done.
@safe
package final class AlignedBuffer: @unchecked Sendable {
    /// What addresses of buffers are multiples of, in bytes: a cache line.
    package static let alignment = 64

    package let byteCount: Int
    private let base: UnsafeMutableRawPointer

    /// A buffer of zeros.
    ///
    /// - Throws: `MemoryError` if there is no such memory.
    package init(byteCount: Int) throws(MemoryError) {
        precondition(byteCount >= 0, "a buffer needs a length")
        self.byteCount = byteCount
        unsafe base = unsafe try Self.allocate(byteCount: byteCount)
        unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    }

    /// A buffer of bytes that the caller writes before anybody reads them.
    ///
    /// - Throws: `MemoryError` if there is no such memory.
    @unsafe
    package init(uninitializedByteCount byteCount: Int) throws(MemoryError) {
        precondition(byteCount >= 0, "a buffer needs a length")
        self.byteCount = byteCount
        unsafe base = unsafe try Self.allocate(byteCount: byteCount)
    }

    deinit {
        unsafe free(base)
    }

    /// Checks that so many bytes can be had at this moment: for arrays, which end the process if they can't.
    ///
    /// - Throws: `MemoryError` if they can't.
    package static func checkAvailability(byteCount: Int) throws(MemoryError) {
        unsafe free(try allocate(byteCount: byteCount))
    }

    #if os(Linux)
        /// The usual size of a huge page, in bytes.
        private static let hugePageSize = 1 << 21
        /// From which size on buffers are to have huge pages.
        private static let leastSizeForHugePages = 2 * hugePageSize
    #endif

    private static func allocate(byteCount: Int) throws(MemoryError) -> UnsafeMutableRawPointer {
        var alignment = Self.alignment
        #if os(Linux)
            if byteCount >= leastSizeForHugePages { alignment = hugePageSize }
        #endif
        var memory: UnsafeMutableRawPointer?
        guard unsafe posix_memalign(&memory, alignment, max(byteCount, 1)) == 0, let memory = unsafe memory else {
            throw MemoryError(byteCount: byteCount)
        }
        #if os(Linux)
            if alignment == hugePageSize {
                // Memory is cleared when it is first written, which is faster by huge pages. Whole ones alone are asked
                // for, so that a buffer takes no more than its size. That the system may refuse does no harm.
                _ = unsafe madvise(memory, byteCount / hugePageSize * hugePageSize, MADV_HUGEPAGE)
            }
        #endif
        return unsafe memory
    }

    /// The bytes to read, which stay alive with the result.
    ///
    /// For memory that is written to again: `SharedBytes(byteCount:filling:)` makes all other. Whoever writes keeps the
    /// promise of `SharedBytes`: it writes only to a buffer that nobody else refers to, or where no reader looks.
    @unsafe
    package var shared: SharedBytes {
        unsafe SharedBytes(owner: self, base: UnsafeRawPointer(base), count: byteCount)
    }

    /// Copies bytes to an offset.
    package func copy(_ bytes: SharedBytes, at offset: Int) {
        precondition(offset >= 0 && offset + bytes.count <= byteCount, "the bytes must fit")
        unsafe bytes.withUnsafeBytes { source in
            guard let from = source.baseAddress else { return }
            unsafe (base + offset).copyMemory(from: from, byteCount: source.count)
        }
    }

    /// Lends the bytes for writing; concurrent callers must write to disjoint ranges.
    package func withUnsafeMutableBytes<Result, Failure: Error>(
        _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        defer { extendLifetime(self) }
        return unsafe try body(UnsafeMutableRawBufferPointer(start: base, count: byteCount))
    }
}
