/// An object whose names are all different, which was checked, and whose members are found by name.
package struct JSONObject: Sendable {
    /// Objects of more members get a hash table: 4 bytes for two to four places a member.
    private static let fewMembers = 8

    package let value: JSONValue
    package let count: Int
    /// One more than the place of the name whose hash leads here, or 0; empty if there are few members.
    private var slots: [UInt32] = []

    /// - Throws: `JSONError` if the value is no object, or has a name twice.
    package init(_ value: JSONValue) throws(JSONError) {
        guard value.kind == .object else { throw value.wrong("must be an object") }
        self.value = value
        var count = 0
        var first: [JSONMember] = []
        for member in JSONMembers(value) {
            count += 1
            if count <= Self.fewMembers { first.append(member) }
        }
        self.count = count
        if count > Self.fewMembers { try fill() } else { try Self.compare(first) }
    }

    package var members: JSONMembers { JSONMembers(value) }

    private static func duplicate(_ member: JSONMember) -> JSONError {
        member.value.wrong("is there twice")
    }

    /// Compares all names of a small object.
    private static func compare(_ members: [JSONMember]) throws(JSONError) {
        for (number, member) in members.enumerated() {
            for former in members[..<number] where former.name == member.name { throw duplicate(member) }
        }
    }

    private mutating func fill() throws(JSONError) {
        var size = 16
        while size < count * 2 { size *= 2 }
        slots = [UInt32](repeating: 0, count: size)
        for member in members {
            var hasher = Hasher()
            member.name.hash(into: &hasher)
            var slot = hasher.finalize() & (slots.count - 1)
            while slots[slot] != 0 {
                if self.member(at: slots[slot] - 1)?.name == member.name { throw Self.duplicate(member) }
                slot = (slot + 1) & (slots.count - 1)
            }
            slots[slot] = member.place + 1
        }
    }

    /// The member at a place that this object's members told.
    package func member(at place: UInt32) -> JSONMember? { value.document.member(at: Int(place)) }

    /// The value of a member, or nil if there is none of that name, which is UTF-8.
    package subscript(name: [UInt8]) -> JSONValue? {
        guard !slots.isEmpty else { return members.first { $0.name.isEqual(to: name) }?.value }
        var hasher = Hasher()
        JSONString.hash(name, into: &hasher)
        var slot = hasher.finalize() & (slots.count - 1)
        while slots[slot] != 0 {
            if let member = member(at: slots[slot] - 1), member.name.isEqual(to: name) { return member.value }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    /// The value of a member, or nil if there is none of that name.
    package subscript(name: String) -> JSONValue? { self[Array(name.utf8)] }

    /// The value of a member, or nil if it is missing or null.
    package func optional(_ name: String) -> JSONValue? {
        guard let value = self[name], value.kind != .null else { return nil }
        return value
    }

    /// The value of a member.
    ///
    /// - Throws: `JSONError` if it is missing.
    package func required(_ name: String) throws(JSONError) -> JSONValue {
        guard let value = self[name] else { throw value.wrong("has no \"\(name)\"") }
        return value
    }
}
