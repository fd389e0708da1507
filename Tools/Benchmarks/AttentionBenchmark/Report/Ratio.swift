/// One ratio of figures of the same group, and what is asked of it.
struct Ratio {
    enum Direction: String, Codable {
        case atLeast, atMost
    }

    enum Unit {
        /// How many times as much.
        case times
        /// A time in place of a ratio; such are not compared between machines.
        case milliseconds, microseconds
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
    var unit = Unit.times
    /// Whether a regress is what goes beyond `asked`, on any machine, and not what falls behind an earlier figure.
    var isStrict = false

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
        switch unit {
        case .milliseconds: number.fixed(3) + " ms"
        case .microseconds: number.fixed(2) + " µs"
        // Near 1 thousandths count.
        case .times: number.fixed(isStrict ? 3 : number < 10 ? 2 : 1) + "x"
        }
    }
}
