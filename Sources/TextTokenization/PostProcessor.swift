internal import JSONText

/// What special tokens are put around a text.
struct PostProcessor: Sendable {
    /// How many tokens a template may add; templates in use add one or two.
    static let maximumTokens = 1024

    private(set) var before: [Int32] = []
    private(set) var after: [Int32] = []

    init(before: [Int32], after: [Int32]) {
        self.before = before
        self.after = after
    }

    /// Reads a file's `post_processor`.
    ///
    /// - Throws: `JSONError` if a type isn't supported, or the template isn't of one sequence.
    init(_ value: JSONValue?) throws(JSONError) {
        var hasTemplate = false
        for step in try Component.flatten(value, members: "processors") {
            switch try Component.type(of: step) {
            case "ByteLevel": break  // It trims offsets, which aren't computed here.
            case "TemplateProcessing":
                guard !hasTemplate else {
                    throw step.fault("a second template is not supported; leave it out", .unsupported)
                }
                hasTemplate = true
                try read(step)
            default: throw try Component.refusal(step, supported: "TemplateProcessing, ByteLevel or Sequence")
            }
        }
    }

    /// Reads `single`; `pair` is for two texts, which are never encoded together here.
    private mutating func read(_ template: JSONValue) throws(JSONError) {
        let single = try template.required("single")
        let tokens = try template.required("special_tokens").object()
        var hasText = false
        func refusal() -> JSONError {
            single.fault("adds more than \(Self.maximumTokens) tokens; shorten it", .unsupported)
        }
        for (number, piece) in try single.elements().enumerated() {
            guard number < Self.maximumTokens else { throw refusal() }
            if let sequence = try piece.member("Sequence") {
                let id = try sequence.required("id")
                guard try id.text() == "A", !hasText else {
                    throw id.fault("a template for one text must have the sequence A once", .unsupported)
                }
                hasText = true
            } else {
                let id = try piece.required("SpecialToken").required("id")
                for element in try tokens.required(try id.text()).required("ids").elements() {
                    guard before.count + after.count < Self.maximumTokens else { throw refusal() }
                    if hasText { after.append(try element.number()) } else { before.append(try element.number()) }
                }
            }
        }
        guard hasText else { throw single.fault("a template must have the sequence A", .unsupported) }
    }
}
