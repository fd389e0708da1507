internal import CThinkKernels
internal import ComputeRuntime
internal import KVCacheModel

/// Numbers as float16 has them.
package enum Float16Numbers {
    package static func bits(of numbers: [Float]) -> [UInt16] {
        var bits = [UInt16](repeating: 0, count: numbers.count)
        unsafe bits.withUnsafeMutableBytes { bits in
            guard let base = bits.baseAddress else { return }
            unsafe Kernels.best.narrow(ElementType.float16.kernelType, numbers, numbers.count, base)
        }
        return bits
    }

    package static func numbers(of bits: [UInt16]) -> [Float] {
        var numbers = [Float](repeating: 0, count: bits.count)
        unsafe bits.withUnsafeBytes { bits in
            guard let base = bits.baseAddress else { return }
            unsafe Kernels.best.widen(ElementType.float16.kernelType, base, numbers.count, &numbers)
        }
        return numbers
    }
}
