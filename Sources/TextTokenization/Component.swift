internal import JSONText

/// The kinds of normalizers, pre-tokenizers and so on, as they are listed in a file.
enum Component {
    /// How many steps of one kind there may be; tokenizers in use have up to 6.
    static let maximumSteps = 64

    /// The steps that a value stands for, each read by `read`.
    static func list<Step>(
        _ value: JSONValue?,
        _ members: String,
        _ budget: WorkBudget,
        _ read: (JSONValue) throws(JSONError) -> Step
    ) throws(JSONError) -> [Step] {
        var steps: [Step] = []
        for step in try flatten(value, members: members) {
            // A pattern of the longest kind takes milliseconds.
            guard !budget.isSpent else { throw step.fault("takes too much time to prepare; shorten it", .unsupported) }
            steps.append(try read(step))
        }
        return steps
    }

    /// The steps that a value stands for: none if there is no value, those of all its members for a `Sequence`.
    ///
    /// - Parameter members: what the field with the steps of a `Sequence` is called.
    static func flatten(_ value: JSONValue?, members: String) throws(JSONError) -> [JSONValue] {
        guard let value else { return [] }
        guard try type(of: value) == "Sequence" else { return [value] }
        var steps: [JSONValue] = []
        for member in try value.required(members).elements() {
            steps += try flatten(member, members: members)
            guard steps.count <= maximumSteps else {
                throw value.fault("has more than \(maximumSteps) steps; leave some of them out", .unsupported)
            }
        }
        return steps
    }

    static func type(of value: JSONValue) throws(JSONError) -> String { try value.required("type").text() }

    /// The error for a type that isn't known.
    static func refusal(_ value: JSONValue, supported: String) throws(JSONError) -> JSONError {
        let type = try value.required("type")
        return type.fault("\"\(try type.text())\" is not supported; use a tokenizer with \(supported)", .unsupported)
    }
}
