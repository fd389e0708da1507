internal import ByteStorage

/// Float64 numbers in memory of their own, zero at first.
@safe
final class DoubleBuffer {
    let count: Int
    private let buffer: AlignedBuffer
    // Memory that lives as long as the buffer.
    private let base: UnsafeMutablePointer<Double>

    /// - Throws: `MemoryError` if there is no memory for them.
    init(count: Int) throws(MemoryError) {
        self.count = count
        buffer = try AlignedBuffer(byteCount: count * MemoryLayout<Double>.size)
        let start = unsafe buffer.withUnsafeMutableBytes { $0.baseAddress }
        guard let start = unsafe start else { preconditionFailure("a buffer has memory") }
        unsafe base = start.assumingMemoryBound(to: Double.self)
    }

    /// The numbers from a place on.
    @unsafe
    func pointer(from place: Int = 0) -> UnsafeMutablePointer<Double> {
        precondition(place >= 0 && place <= count, "there is no such number")
        return unsafe base + place
    }

    subscript(place: Int) -> Double {
        get {
            precondition(place >= 0 && place < count, "there is no such number")
            return unsafe base[place]
        }
        set {
            precondition(place >= 0 && place < count, "there is no such number")
            unsafe base[place] = newValue
        }
    }
}
