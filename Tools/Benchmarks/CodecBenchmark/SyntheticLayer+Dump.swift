import BenchmarkSupport
import ThinkCompress

extension SyntheticLayer {
    /// Writes the layer as a cache dump.
    func writeDump(to path: String) throws {
        func entry(_ name: String, _ tensor: KVTensor) -> SafetensorsWriter.Entry {
            SafetensorsWriter.Entry(
                name: name,
                elementType: "F16",
                shape: [1, tensor.heads, tensor.tokens, tensor.headDimension],
                byteCount: tensor.byteCount
            )
        }
        let tensors = [
            (CacheDump.name(0, .keys), keys), (CacheDump.name(0, .values), values),
            (CacheDump.name(0, .queries), queries),
        ]
        let writer = try SafetensorsWriter(
            path: path,
            replacingExisting: true,
            tensors: tensors.map { entry($0.0, $0.1) },
            metadata: ["model.id": "synthetic"]
        )
        for (name, tensor) in tensors { try writer.write(tensor.bytes, to: name) }
        try writer.commit()
    }
}
