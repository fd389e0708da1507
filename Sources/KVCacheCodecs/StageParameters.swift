/// One `name=value` of a stage.
public struct StageParameter: Sendable, Equatable {
    public let name: String
    public let value: String

    public init(_ name: String, _ value: some CustomStringConvertible) {
        self.name = name
        self.value = value.description
    }

    /// The parameter as recipes have it.
    public var text: String { "\(name)=\(value)" }
}

/// The parameters of a stage as they were written, read by name.
public struct StageParameters: Sendable {
    /// The stage's name, for messages.
    public let stage: String
    /// The parameters in the order in which they were written.
    public let all: [StageParameter]

    /// Splits `name=value,name=value`.
    ///
    /// - Throws: `RecipeError` if a part isn't of that form, a name comes twice or isn't one of `allowed`.
    public init(stage: String, text: String, allowed: [String]) throws(RecipeError) {
        var all: [StageParameter] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) where !text.isEmpty {
            let sides = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                .map { $0.trimming(" ") }
            guard sides.count == 2, !sides[1].isEmpty else {
                throw RecipeError("\(stage): '\(part)' is not of the form name=value")
            }
            guard allowed.contains(sides[0]) else {
                let known =
                    allowed.isEmpty ? "takes no parameters" : "has the parameters \(allowed.joined(separator: ", "))"
                throw RecipeError(
                    "\(stage) has no parameter '\(sides[0])'; it \(known)",
                    suggestion: allowed.nearest(to: sides[0]).map { "\($0)=\(sides[1])" } ?? stage
                )
            }
            guard !all.contains(where: { $0.name == sides[0] }) else {
                throw RecipeError(
                    "\(stage): '\(sides[0])' is given twice",
                    suggestion: all.first { $0.name == sides[0] }?.text
                )
            }
            all.append(StageParameter(sides[0], sides[1]))
        }
        self.stage = stage
        self.all = all
    }

    /// The value of that name as it was written; nil if it isn't given.
    public subscript(name: String) -> String? { all.first { $0.name == name }?.value }

    /// The whole number of that name; nil if it isn't given.
    public func integer(_ name: String, in range: ClosedRange<Int>) throws(RecipeError) -> Int? {
        guard let text = self[name] else { return nil }
        guard let number = Int(text), range.contains(number) else {
            throw RecipeError(
                "\(stage): \(name)=\(text) must be a whole number from \(range.lowerBound) to \(range.upperBound)",
                suggestion: "\(name)=\(min(max(Int(text) ?? range.lowerBound, range.lowerBound), range.upperBound))"
            )
        }
        return number
    }

    /// The whole number of that name, one of a few; nil if it isn't given.
    public func integer(_ name: String, among choices: [Int]) throws(RecipeError) -> Int? {
        guard let text = self[name] else { return nil }
        guard let number = Int(text), choices.contains(number) else {
            // As floating-point numbers, whose distances can't overflow.
            let wanted = Double(text) ?? 0
            let nearest = choices.min { abs(Double($0) - wanted) < abs(Double($1) - wanted) }
            throw RecipeError(
                "\(stage): \(name)=\(text) must be \(Self.list(choices))",
                suggestion: nearest.map { "\(name)=\($0)" }
            )
        }
        return number
    }

    /// The word of that name, one of a few; nil if it isn't given.
    public func word<Word: RawRepresentable & CaseIterable>(
        _ name: String,
        as type: Word.Type
    ) throws(RecipeError) -> Word? where Word.RawValue == String {
        guard let text = self[name] else { return nil }
        guard let word = Word(rawValue: text) else {
            let words = Word.allCases.map(\.rawValue)
            throw RecipeError(
                "\(stage): \(name)=\(text) must be \(Self.list(words))",
                suggestion: words.nearest(to: text).map { "\(name)=\($0)" }
            )
        }
        return word
    }

    private static func list(_ choices: [some CustomStringConvertible]) -> String {
        choices.map(\.description).joined(separator: " or ")
    }
}

extension Substring {
    func trimming(_ character: Character) -> String {
        String(drop { $0 == character }.reversed().drop { $0 == character }.reversed())
    }
}
