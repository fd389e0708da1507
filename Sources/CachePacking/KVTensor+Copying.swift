internal import CThinkKernels
package import KVCacheModel

extension KVTensor {
    /// Copies the first rows of a head to rows that follow each other, converting where the types differ.
    package func copyRows(head: Int, count: Int, as type: ElementType, to destination: UnsafeMutableRawPointer) {
        unsafe withRows(head: head) { rows in
            unsafe BlockCoder.copyRows(
                rows,
                count: count,
                headDimension: headDimension,
                to: tck_mutable_rows(
                    bytes: destination,
                    token_stride: headDimension * type.byteCount,
                    type: type.kernelType
                )
            )
        }
    }
}
