internal import ArgumentParser
internal import Foundation
internal import ThinkCompress

/// Recipes on the command line.
enum RecipeOption {
    /// What there is to choose from, for lists of options.
    static var help: String {
        """
        A recipe is a preset's name, or stages joined by '+'; a preset may follow a selection of tokens:
        \(CodecRegistry.standard.help)
        """
    }

    /// A recipe, after the name of its preset if it has one.
    static func title(_ recipe: String) -> String {
        Recipe.title(recipe, name: CodecRegistry.standard.name(of: recipe))
    }

    /// - Throws: `ValidationError` that names the option and the nearest right form.
    static func recipe(
        _ text: String,
        option: String,
        registry: CodecRegistry = .standard
    ) throws -> Recipe {
        do {
            return try Recipe(text, registry: registry)
        } catch {
            throw ValidationError("\(option) '\(text)': \(error)")
        }
    }

    /// Recipes separated by ';'.
    ///
    /// - Throws: as `recipe`; `ValidationError` if there are none, or one whose caches aren't float16.
    static func recipes(
        _ text: String,
        option: String,
        registry: CodecRegistry = .standard
    ) throws -> [Recipe] {
        let parts = text.split(separator: ";").map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
        guard !parts.isEmpty else { throw ValidationError("\(option) '\(text)': names no recipe") }
        let recipes = try parts.map { try recipe($0, option: option, registry: registry) }
        for recipe in recipes {
            for case let codec as FullPrecisionCodec in recipe.steps.map(\.stage) where codec.elementType != .float16 {
                throw ValidationError("\(option) '\(recipe)': caches are compared in float16; use f16")
            }
        }
        return recipes
    }
}
