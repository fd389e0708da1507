/// The kinds of normalizers, pre-tokenizers and so on, as they are listed in a file.
enum Component {
    /// How many times longer a text may become by all steps of one kind together, so that no file can fill the memory.
    ///
    /// NFKC with lower case, `Prepend` and `Replace` stay below 500.
    static let maximumGrowth = 4096

    /// How many steps of one kind there may be; tokenizers in use have up to 6.
    static let maximumSteps = 64

    /// The steps that a value stands for: none for null, those of all its members for a `Sequence`.
    ///
    /// - Parameter members: what the field with the steps of a `Sequence` is called.
    static func flatten(_ value: JSONValue?, members: String) throws(TokenizerError) -> [JSONValue] {
        guard let value, !value.isNull else { return [] }
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

    static func type(of value: JSONValue) throws(TokenizerError) -> String { try value.required("type").text() }

    /// The error for a type that isn't known.
    static func refusal(_ value: JSONValue, supported: String) -> TokenizerError {
        do {
            let type = try value.required("type")
            return type.fault(
                "\"\(try type.text())\" is not supported; use a tokenizer with \(supported)",
                .unsupported
            )
        } catch {
            return error
        }
    }

    /// Checks that steps which make a text longer don't multiply beyond measure.
    static func checkGrowth(_ factors: [Int], _ value: JSONValue?) throws(TokenizerError) {
        var product = 1
        for factor in factors {
            let (next, overflow) = product.multipliedReportingOverflow(by: max(factor, 1))
            guard !overflow, next <= maximumGrowth else {
                throw TokenizerError(
                    .unsupported,
                    field: value?.path,
                    at: value.map { Int($0.document.nodes[$0.node].start) },
                    "the steps could make a text more than \(maximumGrowth) times as long; leave some of them out"
                )
            }
            product = next
        }
    }
}
