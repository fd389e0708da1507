/// A value where it lies in a text.
package struct JSONValue: Sendable {
    package enum Kind: Sendable {
        case null, bool, number, string, array, object
    }

    /// The longest number that is read, in bytes; a float64 has 17 digits that matter.
    private static let longestNumber = 400

    let document: JSONDocument
    /// The value's first byte.
    let start: Int

    package var kind: Kind {
        switch document.bytes[start] {
        case UInt8(ascii: "{"): .object
        case UInt8(ascii: "["): .array
        case UInt8(ascii: "\""): .string
        case UInt8(ascii: "t"), UInt8(ascii: "f"): .bool
        case UInt8(ascii: "n"): .null
        default: .number
        }
    }

    /// What leads to the value from the root, e.g. `model.merges[3]`; nil for the root.
    package var path: String? { document.path(to: start) }

    /// The error that this value causes; the message says what to do.
    package func fault(_ message: String, _ code: JSONError.Code = .damaged) -> JSONError {
        document.fault(at: start, message, code)
    }

    /// The error that this value causes by not being what it must.
    package func wrong(_ message: String) -> JSONError { fault("\(message); \(document.remedy)") }

    // MARK: - Objects and arrays

    /// The object that this is.
    ///
    /// - Throws: `JSONError` if it is none, or has a name twice.
    package func object() throws(JSONError) -> JSONObject { try JSONObject(self) }

    /// The member of that name, or nil if there is none. For more than a few members take `object()` once.
    ///
    /// - Throws: as `object()`.
    package func member(_ name: String) throws(JSONError) -> JSONValue? { try object()[name] }

    /// The member of that name, or nil if it is missing or null.
    package func optional(_ name: String) throws(JSONError) -> JSONValue? { try object().optional(name) }

    /// The member of that name.
    ///
    /// - Throws: `JSONError` if it is missing, or as `object()`.
    package func required(_ name: String) throws(JSONError) -> JSONValue { try object().required(name) }

    /// The members of an object that may be large, names that are there twice included: to whom it matters must see.
    package func uncheckedMembers() throws(JSONError) -> JSONMembers {
        guard kind == .object else { throw wrong("must be an object") }
        return JSONMembers(self)
    }

    /// The values of an array, in order.
    package func elements() throws(JSONError) -> JSONElements {
        guard kind == .array else { throw wrong("must be a list") }
        return JSONElements(self)
    }

    // MARK: - Scalars

    package func string() throws(JSONError) -> JSONString {
        guard kind == .string else { throw wrong("must be a string") }
        let (end, isEscaped) = document.skipString(from: start)
        return JSONString(document, place: start + 1..<max(end - 1, start + 1), isEscaped: isEscaped)
    }

    /// A string's bytes in UTF-8.
    package func bytes() throws(JSONError) -> [UInt8] { try string().utf8 }

    package func text() throws(JSONError) -> String { try string().text }

    /// The one character that a string must be.
    package func character() throws(JSONError) -> Unicode.Scalar {
        let scalars = try text().unicodeScalars
        guard let first = scalars.first, scalars.dropFirst().isEmpty else {
            throw wrong("must be a string of one character")
        }
        return first
    }

    package func bool() throws(JSONError) -> Bool {
        guard kind == .bool else { throw wrong("must be true or false") }
        return document.bytes[start] == UInt8(ascii: "t")
    }

    /// A whole number, written without point and exponent.
    package func int() throws(JSONError) -> Int {
        let isNegative = document.bytes[start] == UInt8(ascii: "-")
        guard let size = digits(from: isNegative ? start + 1 : start),
            let value = isNegative ? Int(exactly: -Int128(size)) : Int(exactly: size)
        else { throw wrong("must be a whole number") }
        return value
    }

    /// A whole number within a range.
    package func int(in range: ClosedRange<Int>) throws(JSONError) -> Int {
        guard kind == .number else { throw wrong("must be a number") }
        guard let value = try? int(), range.contains(value) else {
            throw wrong("must be a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    /// A whole number from 0 to the largest `UInt64`.
    package func unsigned() throws(JSONError) -> UInt64 {
        guard let value = digits(from: start) else { throw wrong("must be a whole number that is not negative") }
        return value
    }

    /// A whole number from 0 to the largest `Int32`: a token id, or a count.
    package func number() throws(JSONError) -> Int32 { Int32(try int(in: 0...Int(Int32.max))) }

    private func digits(from place: Int) -> UInt64? {
        var value: UInt64 = 0
        var index = place
        while JSONBytes.isDigit(document.bytes[index]) {
            let (tens, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = tens.addingReportingOverflow(UInt64(document.bytes[index] - UInt8(ascii: "0")))
            if overflow || carry { return nil }
            value = sum
            index += 1
        }
        guard index > place, index == document.bytes.count || JSONBytes.endsWord(document.bytes[index]) else {
            return nil
        }
        return value
    }

    /// A number, rounded to the nearest float64.
    ///
    /// - Throws: `JSONError` if it is none, not finite, or written with more than 400 digits.
    package func double() throws(JSONError) -> Double {
        guard kind == .number else { throw wrong("must be a number") }
        let end = document.skipValue(from: start)
        guard end - start <= Self.longestNumber else { throw wrong("is a number of \(end - start) digits") }
        let text = String(decoding: (start..<end).map { document.bytes[$0] }, as: UTF8.self)
        guard let value = Double(text), value.isFinite else { throw wrong("is \(text), must be a finite number") }
        return value
    }
}
