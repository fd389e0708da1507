/// A value of a `JSONDocument` and the path of the field that holds it, which errors name.
struct JSONValue {
    let document: JSONDocument
    let node: Int
    /// E.g. `model.vocab`; empty for the whole document.
    let path: String

    var kind: JSONDocument.Kind { document.nodes[node].kind }

    /// The error that this value causes.
    func fault(_ message: String, _ code: TokenizerError.Code = .damaged) -> TokenizerError {
        let node = document.nodes[node]
        let isText = node.kind == .string || node.kind == .escapedString
        return TokenizerError(
            code,
            field: path.isEmpty ? nil : path,
            at: Int(node.start) - (isText ? 1 : 0),
            message
        )
    }

    // MARK: - Objects and arrays

    /// The member of that name, or nil if there is none.
    ///
    /// - Throws: `TokenizerError` if this is no object, or has the member twice.
    func member(_ name: String) throws(TokenizerError) -> JSONValue? {
        guard kind == .object else { throw fault("must be an object\(remedy)") }
        let wanted = Array(name.utf8)
        var found: JSONValue?
        var key: [UInt8] = []
        var index = node + 1
        while index < document.nodes[node].end {
            key.removeAll(keepingCapacity: true)
            document.appendString(index, to: &key)
            if key == wanted {
                let value = JSONValue(
                    document: document,
                    node: index + 1,
                    path: path.isEmpty ? name : "\(path).\(name)"
                )
                guard found == nil else { throw value.fault("is there twice\(remedy)") }
                found = value
            }
            index = document.index(after: index + 1)
        }
        return found
    }

    /// The member of that name, or nil if it is missing or null.
    func optional(_ name: String) throws(TokenizerError) -> JSONValue? {
        guard let value = try member(name), value.kind != .null else { return nil }
        return value
    }

    /// The member of that name.
    ///
    /// - Throws: `TokenizerError` if it is missing.
    func required(_ name: String) throws(TokenizerError) -> JSONValue {
        guard let value = try member(name) else {
            throw fault("has no \"\(name)\"\(remedy)")
        }
        return value
    }

    /// The values of an array, in order.
    func elements() throws(TokenizerError) -> [JSONValue] {
        guard kind == .array else { throw fault("must be a list\(remedy)") }
        var result: [JSONValue] = []
        var index = node + 1
        while index < document.nodes[node].end {
            result.append(JSONValue(document: document, node: index, path: "\(path)[\(result.count)]"))
            index = document.index(after: index)
        }
        return result
    }

    // MARK: - Scalars

    func bytes() throws(TokenizerError) -> [UInt8] {
        guard kind == .string || kind == .escapedString else { throw fault("must be a string\(remedy)") }
        var result: [UInt8] = []
        document.appendString(node, to: &result)
        return result
    }

    /// A string, to print or to compare with the ASCII names of things.
    func text() throws(TokenizerError) -> String {
        String(decoding: try bytes(), as: UTF8.self)
    }

    /// The one character that a string must be.
    func character() throws(TokenizerError) -> Unicode.Scalar {
        let scalars = try text().unicodeScalars
        guard let first = scalars.first, scalars.count == 1 else {
            throw fault("must be a string of one character\(remedy)")
        }
        return first
    }

    func bool() throws(TokenizerError) -> Bool {
        switch kind {
        case .true: return true
        case .false: return false
        default: throw fault("must be true or false\(remedy)")
        }
    }

    /// A whole number from 0 to the largest `Int32`: a token id, or a count.
    func number() throws(TokenizerError) -> Int32 {
        let place = document.nodes[node]
        var value: Int32 = 0
        guard kind == .number else { throw fault("must be a number\(remedy)") }
        for byte in document.bytes[Int(place.start)..<Int(place.end)] {
            let (tens, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = tens.addingReportingOverflow(Int32(byte) - Int32(UInt8(ascii: "0")))
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte), !overflow, !carry else {
                throw fault("must be a whole number from 0 to \(Int32.max)\(remedy)")
            }
            value = sum
        }
        return value
    }

    private var remedy: String { "; save the tokenizer again" }
}
