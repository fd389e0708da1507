internal import ByteStorage
internal import CThinkKernels
internal import CachePacking
internal import ComputeRuntime
public import KVCacheModel

/// Rows in eight bits a number: rotated, in groups of 32 channels of a row, each with a scale in float16.
///
/// Formats/archive.md, "ARCHIVE WINDOW".
public enum EightBitRows: Sendable {
    /// Channels of a group; the last of a row may have fewer.
    static let group = 32
    private static let largestCode: Float = 127

    /// Bytes of the keys and values of so many rows of a layer.
    public static func byteCount(_ geometry: LayerGeometry, rows: Int) -> Int? {
        var total = 0
        for part in CachePart.allCases {
            let perRow = rowByteCount(geometry.dimension(part))
            let (product, overflow) = (geometry.kvHeads * perRow).multipliedReportingOverflow(by: rows)
            let (sum, overflowOfSum) = total.addingReportingOverflow(product)
            if overflow || overflowOfSum { return nil }
            total = sum
        }
        return total
    }

    static func groups(_ dimension: Int) -> Int { (dimension + group - 1) / group }
    private static func rowByteCount(_ dimension: Int) -> Int { dimension + 2 * groups(dimension) }

    /// Encodes rows of keys and values, which must be of magnitudes up to 65504.
    static func encode(_ layer: KVCacheLayer, rows: Range<Int>) throws(MemoryError) -> SharedBytes {
        let parts = CachePart.allCases.map { layer[$0] }
        let count = parts.reduce(0) { $0 + $1.heads * rows.count * rowByteCount($1.headDimension) }
        return try SharedBytes(byteCount: count) { bytes in
            unsafe bytes.withUnsafeMutableBytes { bytes in
                var start = 0
                for tensor in parts where tensor.headDimension > 0 {
                    for head in 0..<tensor.heads {
                        let length = rows.count * rowByteCount(tensor.headDimension)
                        unsafe encode(
                            tensor,
                            head: head,
                            rows: rows,
                            into: UnsafeMutableRawBufferPointer(rebasing: bytes[start..<start + length])
                        )
                        start += length
                    }
                }
            }
        }
    }

    /// Scales of all rows, then codes of all rows.
    private static func encode(
        _ tensor: KVTensor,
        head: Int,
        rows: Range<Int>,
        into bytes: UnsafeMutableRawBufferPointer
    ) {
        let dimension = tensor.headDimension
        let groups = groups(dimension)
        let codes = rows.count * groups * 2
        var numbers = [Float](repeating: 0, count: dimension)
        for (index, row) in rows.enumerated() {
            unsafe numbers.withUnsafeMutableBufferPointer { numbers in
                guard let base = numbers.baseAddress else { return }
                unsafe tensor.widenRows(head: head, from: row, count: 1, into: base)
                unsafe Kernels.best.rotate_rows(base, 1, dimension)
                for number in 0..<groups {
                    let channels = number * group..<min((number + 1) * group, dimension)
                    let largest = channels.reduce(Float(0)) { unsafe max($0, numbers[$1].magnitude) }
                    var scale = largest / largestCode
                    let place = (index * groups + number) * 2
                    unsafe withUnsafePointer(to: &scale) { scale in
                        guard let destination = bytes.baseAddress else { return }
                        unsafe Kernels.best.narrow(TCK_FLOAT16, scale, 1, destination + place)
                    }
                    let stored = unsafe self.scale(UnsafeRawBufferPointer(bytes), at: place)
                    let inverse = stored > 0 ? 1 / stored : 0
                    for channel in channels {
                        let code = unsafe (numbers[channel] * inverse).rounded(.toNearestOrEven)
                        let bounded = Int8(min(max(code, -largestCode), largestCode))
                        unsafe bytes[codes + index * dimension + channel] = UInt8(bitPattern: bounded)
                    }
                }
            }
        }
    }

    private static func scale(_ bytes: UnsafeRawBufferPointer, at offset: Int) -> Float {
        var scale: Float = 0
        if let base = bytes.baseAddress {
            unsafe Kernels.best.widen(TCK_FLOAT16, base + offset, 1, &scale)
        }
        return scale
    }

    /// Decodes rows of one head.
    ///
    /// - Parameters:
    ///   - bytes: of a layer, `byteCount` of them.
    ///   - total: rows that are stored.
    ///   - rows: the first rows that are wanted.
    ///   - destination: rows one after another, of the type.
    static func decode(
        _ bytes: UnsafeRawBufferPointer,
        geometry: LayerGeometry,
        part: CachePart,
        head: Int,
        total: Int,
        rows: Int,
        as type: ElementType,
        to destination: UnsafeMutableRawPointer
    ) {
        let dimension = geometry.dimension(part)
        let groups = groups(dimension)
        let before = part == .keys ? 0 : geometry.kvHeads * total * rowByteCount(geometry.keyDimension)
        let start = before + head * total * rowByteCount(dimension)
        let codes = start + total * groups * 2
        var numbers = [Float](repeating: 0, count: dimension)
        let zeros = numbers
        for row in 0..<rows {
            for channel in 0..<dimension {
                let scale = unsafe self.scale(bytes, at: start + (row * groups + channel / group) * 2)
                numbers[channel] = unsafe Float(Int8(bitPattern: bytes[codes + row * dimension + channel])) * scale
            }
            unsafe numbers.withUnsafeMutableBufferPointer { numbers in
                guard let base = numbers.baseAddress else { return }
                unsafe Kernels.best.rotate_rows(base, 1, dimension)
                unsafe Kernels.best.add_means(
                    base,
                    1,
                    dimension,
                    zeros,
                    tck_mutable_rows(
                        bytes: destination + row * dimension * type.byteCount,
                        token_stride: dimension * type.byteCount,
                        type: type.kernelType
                    )
                )
            }
        }
    }
}
