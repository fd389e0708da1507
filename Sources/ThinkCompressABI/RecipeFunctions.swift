// Functions are named as the header names them.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CThinkCompress
internal import KVCacheCodecs
internal import KVCacheModel
internal import ThinkCompress

final class RecipeHandle: Handle {
    let recipe: Recipe
    let text: CText
    let advice: CText

    init(_ recipe: Recipe) {
        self.recipe = recipe
        text = CText(recipe.description)
        advice = CText(CodecRegistry.standard.advice(for: recipe))
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
public func tc_recipe_get_info(_ recipe: OpaquePointer?, _ info: UnsafeMutablePointer<tc_recipe_info>?) -> tc_status {
    statusOf {
        let recipe = unsafe try RecipeHandle.borrow(recipe, "recipe").recipe
        guard let info = unsafe info else { throw Failure.null("info") }
        let size = unsafe try checkedSize(of: UnsafeRawPointer(info), "info")
        // Attention that was added up is that of all queries.
        let window =
            recipe.modelStatistics.contains(.accumulatedAttention)
            ? -1 : recipe.steps.compactMap(\.stage.observationWindow).max() ?? 0
        let result = tc_recipe_info(
            size: size,
            observation_window: window,
            residual_window: recipe.residualWindow,
            sinks: recipe.sinks,
            selects_tokens: recipe.tokenSelection == nil ? 0 : 1,
            needs_all_layers: recipe.needsWholeCache ? 1 : 0,
            type: recipe.elementType.map { tc_type($0) } ?? tc_type(rawValue: 0)
        )
        unsafe write(result, to: info, size: size)
    }
}

@c @implementation
public func tc_recipe_advice(_ recipe: OpaquePointer?) -> UnsafePointer<CChar>? {
    unsafe (try? RecipeHandle.borrow(recipe, "recipe"))?.advice.pointer
}

@c @implementation
public func tc_recipe_estimate_bits(
    _ recipe: OpaquePointer?,
    _ shape: UnsafePointer<tc_layer_shape>?,
    _ tokens: Int,
    _ type: tc_type,
    _ options: UnsafePointer<tc_run_options>?,
    _ bitsPerValue: UnsafeMutablePointer<Double>?
) -> tc_status {
    statusOf {
        let recipe = unsafe try RecipeHandle.borrow(recipe, "recipe").recipe
        guard let shape = unsafe shape else { throw Failure.null("shape") }
        guard let bitsPerValue = unsafe bitsPerValue else { throw Failure.null("bits_per_value") }
        try CacheGeometry.Limits.tokens.check(tokens, "tokens")
        let elementType = try ElementType(type, "type")
        let geometry = unsafe try LayerGeometry(shape.pointee)
        unsafe bitsPerValue.pointee = unsafe try runBlocking(options) { progress in
            try await recipe.estimatedBitsPerValue(
                of: geometry,
                tokenCount: tokens,
                elementType: elementType,
                progress: progress
            )
        }
    }
}

@c @implementation
public func tc_recipe_free(_ recipe: OpaquePointer?) { unsafe RecipeHandle.release(recipe) }
