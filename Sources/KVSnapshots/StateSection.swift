internal import ByteStorage
internal import KVCacheModel

/// The STATE section: Formats/snapshot.md.
enum StateSection {
    static let maximumItems = 65536
    static let nameLengths = 1...256

    /// The items of all layers in the order of the file: by layer, then by the bytes of their names.
    private static func sorted(_ layers: [[LayerState]]) -> [(layer: Int, state: LayerState)] {
        layers.enumerated().flatMap { index, states in
            states.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }.map { (index, $0) }
        }
    }

    /// The section in pieces; empty if no layer has state.
    static func encode(_ layers: [[LayerState]]) -> [SharedBytes] {
        let items = sorted(layers)
        guard !items.isEmpty else { return [] }
        var writer = ByteWriter()
        writer.append(UInt32(items.count))
        writer.append(UInt32(0))
        for item in items {
            writer.append(UInt32(item.layer))
            writer.appendText(item.state.name)
            writer.append(UInt64(item.state.bytes.count))
        }
        var pieces = [writer.shared]
        var end = writer.bytes.count
        for item in items {
            let start = SnapshotFormat.align(end)
            pieces.append(SharedBytes([UInt8](repeating: 0, count: start - end)))
            pieces.append(item.state.bytes)
            end = start + item.state.bytes.count
        }
        return pieces.filter { $0.count > 0 }
    }

    static func decode(_ reader: inout ByteReader, layerCount: Int) throws(SnapshotError) -> [[LayerState]] {
        let count = try reader.integer(UInt32.self, "the number of states", in: 1...maximumItems)
        _ = try reader.integer(UInt32.self, "a reserved field", in: 0...0)
        var items: [(layer: Int, name: String, length: UInt64, lengthOffset: Int)] = []
        for _ in 0..<count {
            let start = reader.position
            // Layers ascend.
            let layers = (items.last?.layer ?? 0)...layerCount - 1
            let layer = try reader.integer(UInt32.self, "a state's layer", in: layers)
            let name = try reader.text("a state's name", lengths: nameLengths)
            if let previous = items.last, previous.layer == layer {
                guard previous.name.utf8.lexicographicallyPrecedes(name.utf8) else {
                    throw reader.error(
                        at: start + 2 * MemoryLayout<UInt32>.size,
                        "the state '\(name)' of layer \(layer) is out of order"
                    )
                }
            }
            let lengthOffset = reader.position
            items.append((layer, name, try reader.integer(UInt64.self, "a state's length"), lengthOffset))
        }
        var layers = [[LayerState]](repeating: [], count: layerCount)
        for item in items {
            let padding = SnapshotFormat.align(reader.position) - reader.position
            let start = reader.position
            guard padding <= reader.remaining, item.length <= UInt64(reader.remaining - padding) else {
                throw reader.error(at: item.lengthOffset, "a state of \(item.length) bytes ends after its section")
            }
            let zeros = try reader.bytes(count: padding, "padding")
            if let index = zeros.array.firstIndex(where: { $0 != 0 }) {
                throw reader.error(at: start + index, "a byte before a state is not 0")
            }
            layers[item.layer].append(
                LayerState(name: item.name, bytes: try reader.bytes(count: Int(item.length), "a state"))
            )
        }
        try reader.expectEnd()
        // Names that differ in bytes may be equal as Swift strings.
        guard layers.allSatisfy({ Set($0.map(\.name)).count == $0.count }) else {
            throw reader.error(at: 0, "two states of a layer have names that are equal but for their encoding")
        }
        return layers
    }

    /// Why state can't be written, or nil.
    static func problem(with layers: [[LayerState]]) -> String? {
        if layers.reduce(0, { $0 + $1.count }) > maximumItems { return "more than \(maximumItems) states" }
        let names = layers.joined().map(\.name)
        return names.first { !nameLengths.contains($0.utf8.count) }.map {
            "the state's name '\($0.prefix(40))' must have \(nameLengths) bytes"
        }
    }
}
