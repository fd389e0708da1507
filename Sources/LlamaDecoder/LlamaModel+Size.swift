extension LlamaModel {
    /// Weights of the model's matrices; those that embedding and head share count once, and norms and biases not at all.
    public var parameterCount: Int {
        let matrices = weights.layers.flatMap { [$0.query, $0.key, $0.value, $0.output, $0.gate, $0.up, $0.down] }
        let heads = [weights.embedding] + (configuration.tiesEmbeddings ? [] : [weights.head.weights])
        return (matrices.map(\.weights) + heads).reduce(0) { $0 + $1.rows * $1.columns }
    }
}
