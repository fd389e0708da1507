internal import CThinkKernels
internal import Synchronization

/// Sines and cosines of the angles that keys of consecutive places are turned by.
struct RotaryAngles: Sendable {
    let pairs: Int
    /// `[places][pairs]`.
    let cosines: [Float]
    let sines: [Float]

    /// - Parameter positions: of the places.
    init(frequencies: [Float], positions: [Int32]) {
        pairs = frequencies.count
        let count = pairs * positions.count
        var cosines = [Float](repeating: 0, count: count)
        var sines = cosines
        let pairs = pairs
        if count > 0 {
            unsafe cosines.withUnsafeMutableBufferPointer { cosines in
                unsafe sines.withUnsafeMutableBufferPointer { sines in
                    unsafe tck_rotary_angles(
                        frequencies,
                        pairs,
                        positions,
                        positions.count,
                        cosines.baseAddress,
                        sines.baseAddress
                    )
                }
            }
        }
        self.cosines = cosines
        self.sines = sines
    }
}

/// The angles of each chunk, computed once for all layers whose keys are turned alike.
final class RotaryTables: Sendable {
    private struct Key: Hashable {
        let frequencies: [Float]
        let chunk: Int
    }

    private let positions: @Sendable (Range<Int>) -> [Int32]
    private let known = Mutex<[Key: RotaryAngles]>([:])

    /// - Parameter positions: those of places.
    init(positions: @escaping @Sendable (Range<Int>) -> [Int32]) {
        self.positions = positions
    }

    /// The angles of a chunk's places.
    func angles(_ frequencies: [Float], chunk: Int, places: Range<Int>) -> RotaryAngles {
        let key = Key(frequencies: frequencies, chunk: chunk)
        if let angles = known.withLock({ $0[key] }) { return angles }
        let angles = RotaryAngles(frequencies: frequencies, positions: positions(places))
        known.withLock { $0[key] = angles }
        return angles
    }
}
