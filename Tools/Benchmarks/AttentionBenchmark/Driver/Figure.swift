/// What was measured of one case.
struct Figure: Codable {
    let contestant: Contestant
    let caseName: String
    let tokens: Int
    let threads: Int
    /// The median; per layer where the case has layers.
    let microseconds: Double
    let fastest: Double
    let slowest: Double
    /// What the time was spent on, where it is of interest.
    let byteCount: Int?
    /// The most that the process has had in memory, where it was asked.
    let peakByteCount: Int?
    /// Of the output, against float64, where it was compared.
    let relativeError: Double?
    /// What the same takes in Swift, where it goes through C, and what C adds to that: medians of the rounds.
    let swiftMicroseconds: Double?
    let addedMicroseconds: Double?

    var microsecondsPerByte: Double? { byteCount.map { microseconds / Double($0) } }
}
