extension GGUFBuilder {
    /// A model of few and small weights that can be computed, of an architecture that files may name: `llama`, `qwen2`,
    /// `qwen3` or `gemma3`.
    public static func model(_ architecture: String = "llama") -> GGUFBuilder {
        let (hidden, wide, heads, kvHeads, dimension, layers) = (8, 12, 2, 1, 4, 2)
        let tokens = "abcdefghijklmnopqrstuvwxyzĠ".map { "\($0)" } + ["ab", "<s>", "</s>"]
        let types = [Int32](repeating: 1, count: tokens.count - 2) + [3, 3]
        let size = Int32(tokens.count)
        var builder = GGUFBuilder([
            .init("general.architecture", .string(architecture)), .init("general.type", .string("model")),
            .init("\(architecture).block_count", .uint32(UInt32(layers))),
            .init("\(architecture).context_length", .uint32(64)),
            .init("\(architecture).embedding_length", .uint32(UInt32(hidden))),
            .init("\(architecture).feed_forward_length", .uint32(UInt32(wide))),
            .init("\(architecture).attention.head_count", .uint32(UInt32(heads))),
            .init("\(architecture).attention.head_count_kv", .uint32(UInt32(kvHeads))),
            .init("\(architecture).attention.layer_norm_rms_epsilon", .float32(1e-5)),
            .init("tokenizer.ggml.model", .string("gpt2")), .init("tokenizer.ggml.pre", .string("gpt-2")),
            .init("tokenizer.ggml.tokens", .strings(tokens)), .init("tokenizer.ggml.token_type", .int32s(types)),
            .init("tokenizer.ggml.merges", .strings(["a b"])),
            .init("tokenizer.ggml.bos_token_id", .uint32(UInt32(size - 2))),
            .init("tokenizer.ggml.eos_token_id", .uint32(UInt32(size - 1))),
        ])
        if architecture == "gemma3" {
            builder["gemma3.attention.sliding_window"] = .uint32(4)
            builder["gemma3.attention.sliding_window_pattern"] = .uint32(2)
        }
        func add(_ name: String, _ shape: Int...) {
            let count = shape.reduce(1, *)
            // Numbers that differ from tensor to tensor and row to row.
            let seed = name.utf8.reduce(7) { ($0 * 31 + Int($1)) % 1009 }
            let floats = (0..<count).map { Float(($0 * 37 + seed) % 101) / 101 - 0.45 }
            builder.tensors.append(.init(name, shape, floats: floats))
        }
        add("token_embd.weight", tokens.count, hidden)
        add("output_norm.weight", hidden)
        for layer in 0..<layers {
            func part(_ name: String, _ shape: Int...) {
                let full = "blk.\(layer).\(name)"
                shape.count == 1 ? add(full, shape[0]) : add(full, shape[0], shape[1])
            }
            part("attn_norm.weight", hidden)
            part("attn_q.weight", heads * dimension, hidden)
            part("attn_k.weight", kvHeads * dimension, hidden)
            part("attn_v.weight", kvHeads * dimension, hidden)
            part("attn_output.weight", hidden, heads * dimension)
            part("ffn_norm.weight", hidden)
            part("ffn_gate.weight", wide, hidden)
            part("ffn_up.weight", wide, hidden)
            part("ffn_down.weight", hidden, wide)
            if architecture == "qwen2" {
                part("attn_q.bias", heads * dimension)
                part("attn_k.bias", kvHeads * dimension)
                part("attn_v.bias", kvHeads * dimension)
            }
            if ["qwen3", "gemma3"].contains(architecture) {
                part("attn_q_norm.weight", dimension)
                part("attn_k_norm.weight", dimension)
            }
            if architecture == "gemma3" {
                part("post_attention_norm.weight", hidden)
                part("post_ffw_norm.weight", hidden)
            }
        }
        return builder
    }

    /// The tensor of a name, which must be there.
    public subscript(tensor name: String) -> Tensor {
        get { tensors[index(ofTensor: name)] }
        set { tensors[index(ofTensor: name)] = newValue }
    }

    /// Takes a tensor out, which must be there.
    public mutating func removeTensor(_ name: String) { tensors.remove(at: index(ofTensor: name)) }

    private func index(ofTensor name: String) -> Int {
        guard let index = tensors.firstIndex(where: { $0.name == name }) else {
            preconditionFailure("there is no tensor \(name)")
        }
        return index
    }
}
