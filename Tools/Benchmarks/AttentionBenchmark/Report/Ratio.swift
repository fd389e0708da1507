/// One ratio of figures of the same group, and what is asked of it.
struct Ratio {
    enum Direction: String, Codable {
        case atLeast, atMost
    }

    /// What it is known by in files: the goal's name, tokens and threads.
    let name: String
    /// The goal: what is compared with what.
    let title: String
    let tokens: Int
    /// Nil for what doesn't depend on a number of threads that is given.
    let threads: Int?
    /// Nil if it was not measured.
    let value: Double?
    let asked: Double
    let direction: Direction
    /// Milliseconds in place of a ratio; such are not compared between machines.
    let isTime: Bool

    var isMet: Bool? {
        value.map { value in
            switch direction {
            case .atLeast: value >= asked
            case .atMost: value <= asked
            }
        }
    }

    var valueText: String { value.map(text) ?? "–" }

    var askedText: String { (direction == .atLeast ? "≥ " : "≤ ") + text(asked) }

    var verdict: String { isMet.map { $0 ? "met" : "**not met**" } ?? "not measured" }

    private func text(_ number: Double) -> String {
        if isTime { return number.fixed(3) + " ms" }
        return number.fixed(number < 10 ? 2 : 1) + "x"
    }
}
