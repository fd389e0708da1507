public import ByteStorage

/// What a layer keeps beside keys and values, such as the state of a recurrence: bytes that nobody interprets.
public struct LayerState: Sendable, Equatable {
    public let name: String
    public let bytes: SharedBytes

    public init(name: String, bytes: SharedBytes) {
        self.name = name
        self.bytes = bytes
    }

    public static func == (left: LayerState, right: LayerState) -> Bool {
        left.name == right.name && left.bytes.hasSameBytes(as: right.bytes)
    }
}
