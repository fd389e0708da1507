internal import Foundation

/// How far the rows of a layer's keys are turned by rotary embedding.
///
/// Angles are those that the decoder turns by: the float32 product of position and frequency.
struct RotaryTurns {
    private let pairs: Int
    /// The cosine and sine of each row and pair.
    private let cosines: [Double]
    private let sines: [Double]

    /// - Parameters:
    ///   - positions: of the rows.
    ///   - frequencies: radians per position of each pair, channels i and i + pairs.
    init(positions: [Int], frequencies: [Float]) {
        pairs = frequencies.count
        let angles = positions.flatMap { position in frequencies.map { Double(Float(position) * $0) } }
        cosines = angles.map { cos($0) }
        sines = angles.map { sin($0) }
    }

    /// Turns a key back.
    ///
    /// - Parameter key: of the row; at least two channels for each pair.
    func undo(_ key: UnsafeMutablePointer<Double>, row: Int) {
        for pair in 0..<pairs {
            let (cosine, sine) = (cosines[row * pairs + pair], sines[row * pairs + pair])
            let (one, other) = unsafe (key[pair], key[pairs + pair])
            unsafe key[pair] = one * cosine + other * sine
            unsafe key[pairs + pair] = other * cosine - one * sine
        }
    }

    /// The mean of each pair's squared cosine over some rows.
    func meanSquaredCosines(of rows: Range<Int>) -> [Double] {
        (0..<pairs).map { pair in
            rows.reduce(0) { $0 + cosines[$1 * pairs + pair] * cosines[$1 * pairs + pair] } / Double(max(rows.count, 1))
        }
    }
}
