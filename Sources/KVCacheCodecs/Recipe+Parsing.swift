extension Recipe {
    /// The longest text that is looked at.
    static let maximumTextLength = 4096

    /// Reads a recipe from text: stages joined by `+`, each `name` or `name(parameter=value,...)`. A preset's name stands
    /// for its stages, alone or after a selection of tokens.
    ///
    /// - Throws: `RecipeError` that names the stage and the nearest right form.
    public init(_ text: String, registry: CodecRegistry) throws(RecipeError) {
        guard text.utf8.count <= Self.maximumTextLength else {
            throw RecipeError("a recipe of \(text.utf8.count) bytes is too long")
        }
        guard !text.allSatisfy({ $0 == " " }) else { throw Self.emptyError }
        var parts = text.split(separator: "+", omittingEmptySubsequences: false).map { $0.trimming(" ") }
        var steps: [Step] = []
        while !parts.isEmpty {
            let part = parts.removeFirst()
            let preset = registry.presets.first { $0.name == part }
            if let preset, parts.isEmpty, steps.allSatisfy({ $0.codec.role == .tokenSelection }) {
                parts = preset.recipe.split(separator: "+").map(String.init)
            } else {
                steps.append(try Step(part, registry: registry))
            }
        }
        try self.init(steps: steps)
    }
}

extension Recipe.Step {
    init(_ text: String, registry: CodecRegistry) throws(RecipeError) {
        let name: String
        let parameterText: String
        if let open = text.firstIndex(of: "(") {
            guard text.last == ")", text.filter({ "()".contains($0) }).count == 2 else {
                let inside = text[open...].drop { $0 == "(" }.prefix { !"()".contains($0) }
                throw RecipeError(
                    "'\(text)' has parentheses that don't match",
                    suggestion: "\(text[..<open].trimming(" "))(\(inside))"
                )
            }
            name = text[..<open].trimming(" ")
            parameterText = text[text.index(after: open)..<text.index(before: text.endIndex)].trimming(" ")
        } else {
            name = text
            parameterText = ""
        }
        guard let codec = registry[name: name] else {
            if let preset = registry.presets.first(where: { $0.name == name }) {
                throw RecipeError(
                    "\(name) stands for a whole recipe: only a selection of tokens may come before it, and nothing after",
                    suggestion: preset.recipe
                )
            }
            let nearest = registry.names.nearest(to: name)
            throw RecipeError(
                "there is no codec '\(name)' (known: \(registry.names.joined(separator: ", ")))",
                suggestion: nearest.map { registry[name: $0]?.example ?? $0 }
            )
        }
        try self.init(codec: codec, parameterText: parameterText)
    }

    /// A step of a codec with its parameters as text.
    public init(codec: CodecRegistration, parameterText: String) throws(RecipeError) {
        self.init(
            try codec.makeStage(
                StageParameters(stage: codec.name, text: parameterText, allowed: codec.parameterNames)
            )
        )
    }
}

extension [String] {
    /// The word that is written most like another.
    func nearest(to word: String) -> String? {
        self.min { $0.editDistance(to: word) < $1.editDistance(to: word) }
    }
}

extension String {
    /// Insertions, deletions and replacements of characters that make one string of the other.
    fileprivate func editDistance(to other: String) -> Int {
        let other = Array(other.lowercased())
        var row = Array(0...other.count)
        for (i, character) in lowercased().enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, otherCharacter) in other.enumerated() {
                let replaced = diagonal + (character == otherCharacter ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = Swift.min(replaced, row[j] + 1, row[j + 1] + 1)
            }
        }
        return row[other.count]
    }
}
