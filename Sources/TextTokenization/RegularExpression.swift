internal import Foundation
internal import JSONText

/// A regular expression of a tokenizer.
struct RegularExpression: Sendable {
    private let expression: NSRegularExpression
    private let field: String

    /// - Throws: `JSONError` if the value is no pattern, or one that can't be had here.
    init(_ value: JSONValue) throws(JSONError) {
        let pattern = try value.text()
        do {
            try self.init(pattern, field: value.path ?? "pattern")
        } catch {
            throw value.fault(error.message, error.code == .damaged ? .damaged : .unsupported)
        }
    }

    /// - Parameter field: what errors name as the place that the pattern comes from.
    /// - Throws: `TokenizerError` if the pattern isn't one, or can't be had here.
    init(_ pattern: String, field: String) throws(TokenizerError) {
        let translation = try RegexTranslation(pattern)
        do {
            // What ^, $ and . mean in Oniguruma.
            expression = try NSRegularExpression(
                pattern: translation.pattern,
                options: [.anchorsMatchLines, .useUnixLineSeparators]
            )
        } catch {
            throw TokenizerError(
                .unsupported,
                field: field,
                "the pattern is not supported by ICU; rewrite it, or check its brackets"
            )
        }
        self.field = field
    }

    /// The places of all matches, as offsets of UTF-8, in order.
    ///
    /// An empty match right after another match is left out, as Oniguruma's iterator does.
    ///
    /// - Throws: `TokenizerError` if the engine gives up, or the budget ends.
    func matches(in text: ArraySlice<UInt8>, budget: WorkBudget) throws(TokenizerError) -> [Range<Int>] {
        let string = String(decoding: text, as: UTF8.self)
        let isASCII = text.allSatisfy { $0 < 0x80 }
        let length = isASCII ? text.count : string.utf16.count
        let search = Search(budget: budget)
        unsafe expression.enumerateMatches(
            in: string,
            options: [.reportProgress, .reportCompletion],
            range: NSRange(location: 0, length: length)
        ) { result, flags, stop in
            unsafe search.take(result?.range, flags, stop: &stop.pointee)
        }
        guard search.isComplete else {
            throw TokenizerError(
                .tooMuchWork,
                field: field,
                "the pattern takes too much time or memory on this text of \(text.count) bytes; encode it in parts"
            )
        }
        if isASCII {
            return search.places.map { text.startIndex + $0.lowerBound..<text.startIndex + $0.upperBound }
        }
        return Self.byteOffsets(of: search.places, in: text)
    }

    /// Turns offsets of UTF-16 into those of UTF-8; the places are in ascending order.
    private static func byteOffsets(of places: [Range<Int>], in text: ArraySlice<UInt8>) -> [Range<Int>] {
        var byte = text.startIndex
        var unit = 0
        func advance(to target: Int) -> Int {
            while unit < target, byte < text.endIndex {
                // A scalar has as many units as its first byte tells, and begins where no continuation byte is.
                unit += text[byte] >= 0xF0 ? 2 : 1
                repeat { byte += 1 } while byte < text.endIndex && text[byte] & 0xC0 == 0x80
            }
            return byte
        }
        return places.map { place in
            let start = advance(to: place.lowerBound)
            return start..<advance(to: place.upperBound)
        }
    }

    /// The state of one search. Foundation asks for a Sendable closure and calls it on the same thread.
    private final class Search: @unchecked Sendable {
        /// How many reports of progress there are from one look at the clock to the next.
        private static let reportsPerLook = 16

        private(set) var places: [Range<Int>] = []
        private let budget: WorkBudget
        private var reports = 0
        private var hasCompleted = false
        private var hasFailed = false

        init(budget: WorkBudget) { self.budget = budget }

        var isComplete: Bool { hasCompleted && !hasFailed }

        func take(_ range: NSRange?, _ flags: NSRegularExpression.MatchingFlags, stop: inout ObjCBool) {
            if flags.contains(.internalError) { hasFailed = true }
            if flags.contains(.completed) { hasCompleted = true }
            if flags.contains(.progress) {
                // The first report looks, too: a text of many small pieces may have few for each.
                if reports.isMultiple(of: Self.reportsPerLook), budget.isSpent {
                    hasFailed = true
                    stop = true
                }
                reports += 1
            }
            guard let range else { return }
            if range.length == 0, places.last?.upperBound == range.location { return }
            places.append(range.location..<range.location + range.length)
        }
    }
}
