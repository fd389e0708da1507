internal import ByteStorage

/// The rows of a unit in a chunk, in the order in which they are coded: those whose step is halved as often together.
///
/// Formats/archive.md, "ARCHIVE CHUNKS".
struct ArchiveRows: Sendable {
    /// The places of the rows, in order of coding.
    let places: [Int]
    /// How many of them have each shift, from 0 on.
    let segments: [Int]

    var count: Int { places.count }

    /// - Parameters:
    ///   - shifts: of each place of the chunk from `chunk.lowerBound` on.
    ///   - places: of the unit's rows; in the chunk.
    init(shifts: [UInt8], chunk: Range<Int>, places: Range<Int>) {
        var lists = [[Int]](repeating: [], count: ArchivePlan.shifts.count)
        for place in places { lists[Int(shifts[place - chunk.lowerBound])].append(place) }
        self.places = Array(lists.joined())
        segments = lists.map(\.count)
    }

    /// The shift of the row of that number.
    var shifts: [Int] { segments.enumerated().flatMap { [Int](repeating: $0, count: $1) } }
}

/// Shifts of places as a chunk stores them, two bits each from the lowest of a byte on.
enum ShiftBytes {
    static func count(places: Int) -> Int { (places + 3) / 4 }

    static func encode(_ shifts: some Collection<UInt8>) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count(places: shifts.count))
        for (index, shift) in shifts.enumerated() { bytes[index / 4] |= shift << UInt8(index % 4 * 2) }
        return bytes
    }

    /// - Parameter bytes: `count(places:)` of them.
    static func decode(_ bytes: SharedBytes, places: Int) -> [UInt8] {
        unsafe bytes.withUnsafeBytes { bytes in
            (0..<places).map { unsafe bytes[$0 / 4] >> UInt8($0 % 4 * 2) & 3 }
        }
    }
}
