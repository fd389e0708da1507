/// A member of an object.
package struct JSONMember: Sendable {
    /// Where the name begins in the text: by this the member is found again.
    package let place: UInt32
    package let name: JSONString
    package let value: JSONValue
}

/// The members of an object in the text's order, without a look at names that are there twice.
package struct JSONMembers: Sequence, IteratorProtocol, Sendable {
    private let document: JSONDocument
    /// Where the last value began, or at first where the object's names begin.
    private var index: Int
    private var isAtValue = false

    init(_ object: JSONValue) {
        document = object.document
        index = object.start + 1
    }

    package mutating func next() -> JSONMember? {
        if isAtValue {
            let comma = document.skipSpaces(from: document.skipValue(from: index))
            guard document.bytes[comma] == UInt8(ascii: ",") else { return nil }
            index = comma + 1
        }
        index = document.skipSpaces(from: index)
        guard let member = document.member(at: index) else { return nil }
        index = member.value.start
        isAtValue = true
        return member
    }

    /// The last member whose value begins at `place` or before it.
    func last(upTo place: Int) -> JSONMember? {
        var members = self
        var found: JSONMember?
        while let member = members.next(), member.value.start <= place { found = member }
        return found
    }
}

extension JSONDocument {
    /// The member whose name begins at a place, or nil if there is no string.
    func member(at place: Int) -> JSONMember? {
        guard bytes[place] == UInt8(ascii: "\"") else { return nil }
        let (end, isEscaped) = skipString(from: place)
        let colon = skipSpaces(from: end)
        return JSONMember(
            place: UInt32(place),
            name: JSONString(self, place: place + 1..<max(end - 1, place + 1), isEscaped: isEscaped),
            value: JSONValue(document: self, start: skipSpaces(from: colon + 1))
        )
    }
}

/// The values of an array in order.
package struct JSONElements: Sequence, IteratorProtocol, Sendable {
    private let document: JSONDocument
    private var index: Int
    private var isAtValue = false

    init(_ array: JSONValue) {
        document = array.document
        index = array.start + 1
    }

    package mutating func next() -> JSONValue? {
        if isAtValue {
            let comma = document.skipSpaces(from: document.skipValue(from: index))
            guard document.bytes[comma] == UInt8(ascii: ",") else { return nil }
            index = comma + 1
        }
        index = document.skipSpaces(from: index)
        guard index < document.bytes.count, document.bytes[index] != UInt8(ascii: "]") else { return nil }
        isAtValue = true
        return JSONValue(document: document, start: index)
    }
}
