internal import ByteStorage
public import ComputeRuntime
public import KVCacheModel

/// Prompts whose caches are computed side by side, layer by layer, so that whoever needs a layer of all of them need not
/// keep the layers of any.
///
/// What is in memory is what enters the next layer, a row per token; layers are the caller's.
public final class LayerwisePrefill {
    private let decoder: TransformerDecoder
    private let activations: Activations
    private var prompts: [LayerwisePrompt]

    /// - Parameter prompts: at least one.
    /// - Throws: `ModelError` if one has no tokens, or more than the model has positions; `MemoryError`.
    public init(_ prompts: [[Int32]], elementType: ElementType, decoder: TransformerDecoder) throws {
        self.decoder = decoder
        let options = LayerwisePrompt.Options(elementType: elementType, queryWindow: 1, holdsAll: true)
        self.prompts = try prompts.map { try LayerwisePrompt($0, options: options, decoder: decoder) }
        activations = try Activations(
            rows: prompts.map { LayerwisePrompt.chunkRows(tokenCount: $0.count) }.max() ?? 0,
            configuration: decoder.configuration
        )
    }

    /// Computes the next layer of a prompt in full precision, with all its tokens and its last query.
    ///
    /// - Parameters:
    ///   - prompt: its number; its layers are given in order, each once.
    ///   - progress: told how much of the layer is done.
    /// - Throws: `MemoryError`, `CancellationError`.
    public func nextLayer(ofPrompt prompt: Int, progress: ProgressHandler? = nil) throws -> KVCacheLayer {
        let singleThreaded = SingleThreadedProducts()
        defer { extendLifetime(singleThreaded) }
        return try prompts[prompt].computeLayer(by: decoder, using: activations, progress: progress)
    }
}

@available(*, unavailable)
extension LayerwisePrefill: Sendable {}
