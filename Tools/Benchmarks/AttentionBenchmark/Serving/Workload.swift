import BenchmarkSupport

/// A prepared case.
protocol Workload: AnyObject {
    /// Measures one round.
    func run() async throws -> RoundResult

    /// Compares the output with attention in float64 over the same cache.
    func check() async throws -> Double
}

extension Workload {
    func check() async throws -> Double { throw ServingError("this case has no output to check") }
}

/// What a round gives.
struct RoundResult {
    let microseconds: Double
    /// Bytes that this time was spent on, where that is of interest.
    var byteCount: Int?
    /// Of the same in Swift, where the time is that of calls through C.
    var swiftMicroseconds: Double?
}

/// How long a round is.
enum Round {
    static let leastSeconds = 0.06

    /// Bytes that packed layers take in all, at the least, so that each comes from memory when its turn comes.
    static let rotatingBytes = 160 << 20

    /// Calls `body` for as long as a round lasts, and `leastCalls` times at least; returns the mean microseconds.
    static func microseconds(leastCalls: Int = 1, _ body: () throws -> Void) rethrows -> Double {
        let start = ContinuousClock.now
        var calls = 0
        while true {
            try body()
            calls += 1
            let elapsed = (ContinuousClock.now - start).inSeconds
            if calls >= leastCalls && elapsed >= leastSeconds { return elapsed * 1e6 / Double(calls) }
        }
    }
}
