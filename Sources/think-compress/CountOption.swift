internal import ArgumentParser

/// Counts on the command line.
enum CountOption {
    /// - Throws: `ValidationError` that names the option and its range.
    static func check(_ count: Int, _ name: String, upTo largest: Int = 1_000_000) throws {
        guard (1...largest).contains(count) else { throw ValidationError("\(name) \(count): must be 1...\(largest)") }
    }
}
