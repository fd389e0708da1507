// Functions are named as the header names them.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CThinkCompress
internal import KVCacheCodecs
internal import ThinkCompress

final class RecipeHandle: Handle {
    let recipe: Recipe
    let text: CText

    init(_ recipe: Recipe) {
        self.recipe = recipe
        text = CText(recipe.description)
    }
}

@c @implementation
public func tc_recipe_parse(
    _ text: UnsafePointer<CChar>?,
    _ recipe: UnsafeMutablePointer<OpaquePointer?>?
) -> tc_status {
    unsafe statusOf(handingOut: recipe, "recipe") {
        RecipeHandle(try Recipe(unsafe ThinkCompressABI.text(text, "text")))
    }
}

@c @implementation
public func tc_recipe_text(_ recipe: OpaquePointer?) -> UnsafePointer<CChar>? {
    unsafe (try? RecipeHandle.borrow(recipe, "recipe"))?.text.pointer
}

@c @implementation
public func tc_recipe_free(_ recipe: OpaquePointer?) { unsafe RecipeHandle.release(recipe) }
