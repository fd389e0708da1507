import TestSupport
import Testing
import ThinkCompress

@Suite struct RecipeTests {
    // MARK: - Text

    @Test(
        "keeps canonical text",
        arguments: [
            "f16", "bf16", "f32", "kivi(bits=2)", "kivi(bits=4,residual=0)", "kivi(keys=4,values=2)",
            "kivi(keys=4,values=2,group=64,residual=64)", "kivi(bits=8,group=128,residual=65536)", "think(keys=0)",
            "kivi(bits=2,sinks=4)", "kivi(bits=2,sinks=4,ranges=fitted)",
            "kivi(keys=4,values=2,group=64,residual=0,sinks=64)", "think(keys=0.5)+f16", "kivi(keys=5,values=1)",
            "kivi(bits=3,sinks=4,ranges=fitted,scales=compact,rotate=values)",
            "think(keys=0.4,values=0.2)", "think(values=0.2)", "think(keys=0.4,values=0.2,restore=mean)+kivi(bits=2)",
            "think(keys=0.000001)", "think(keys=0.999999,recent=0)",
            "think(keys=0.4,observe=16,recent=64,restore=mean,score=keys)+kivi(bits=4)",
        ]
    )
    func roundTrip(text: String) throws {
        let recipe = try Recipe(text)
        #expect(recipe.description == text)
        #expect(try Recipe(recipe.description) == recipe)
    }

    @Test(
        "writes what was meant in canonical text",
        arguments: [
            ("kivi(bits=2,group=32,residual=128)", "kivi(bits=2)"),
            ("kivi(keys=4,values=4)", "kivi(bits=4)"), ("kivi(ranges=full,sinks=0,bits=4)", "kivi(bits=4)"),
            ("kivi(rotate=none,scales=float16,bits=4)", "kivi(bits=4)"),
            ("kivi(residual=0,values=2,keys=4)", "kivi(keys=4,values=2,residual=0)"),
            ("think(keys=0.40)", "think(keys=0.4)"),
            ("think(keys=0.0)", "think(keys=0)"),
            ("think(values=0.20,keys=0.4)", "think(keys=0.4,values=0.2)"),
            ("think(keys=0,values=0.2)", "think(values=0.2)"), ("think(keys=0.4,values=0)", "think(keys=0.4)"),
            ("think(values=0)", "think(keys=0)"),
            ("think(score=queries,restore=none,recent=32,observe=32,keys=0.100000)", "think(keys=0.1)"),
            ("f16()", "f16"),
            (" think ( keys = 0.4 , recent = 64 )  +  kivi( bits = 2 ) ", "think(keys=0.4,recent=64)+kivi(bits=2)"),
        ]
    )
    func canonicalText(text: String, canonical: String) throws {
        #expect(try Recipe(text).description == canonical)
        #expect(try Recipe(text) == Recipe(canonical))
    }

    @Test("has the paper's numbers where kivi doesn't say")
    func defaultsOfKIVI() throws {
        let stage = try #require(try Recipe("kivi(bits=2)").steps[0].stage as? KIVICodec)
        #expect(stage.keyBits == 2)
        #expect(stage.valueBits == 2)
        #expect(stage.group == 32)
        #expect(stage.residual == 128)
    }

    @Test("has the paper's numbers where think doesn't say")
    func defaultsOfThinK() throws {
        let stage = try #require(try Recipe("think(keys=0.4)").steps[0].stage as? ThinKCodec)
        #expect(stage.keyRatio == 0.4)
        #expect(stage.observe == 32)
        #expect(stage.recent == 32)
        #expect(stage.restoration == .none)
        #expect(stage.score == .queries)
    }

    @Test("reads every parameter")
    func readsParameters() throws {
        let recipe = try Recipe(
            "think(keys=0.25,observe=16,recent=64,restore=mean,score=keys)+kivi(keys=4,values=2,group=64,residual=0)"
        )
        let think = try #require(recipe.steps[0].stage as? ThinKCodec)
        #expect(think.keyRatio == 0.25)
        #expect(think.observe == 16)
        #expect(think.recent == 64)
        #expect(think.restoration == .mean)
        #expect(think.score == .keys)
        let kivi = try #require(recipe.steps[1].stage as? KIVICodec)
        #expect(kivi.keyBits == 4)
        #expect(kivi.valueBits == 2)
        #expect(kivi.group == 64)
        #expect(kivi.residual == 0)
        #expect(recipe.steps.map(\.codec.number) == [5, 4])
    }

    // MARK: - What stages ask for together

    struct Shape: Sendable, CustomTestStringConvertible {
        let recipe: String
        let blockLength: Int
        let residualWindow: Int
        let observationWindow: Int
        var testDescription: String { recipe }

        init(_ recipe: String, block: Int, window: Int, observe: Int = 32) {
            self.recipe = recipe
            blockLength = block
            residualWindow = window
            observationWindow = observe
        }
    }

    @Test(
        "has the longest window and block that a stage asks for, the window in whole blocks",
        arguments: [
            Shape("f16", block: 32, window: 0),
            Shape("kivi(bits=2)", block: 32, window: 128),
            Shape("kivi(bits=2,group=64,residual=64)", block: 64, window: 64),
            Shape("kivi(bits=2,residual=0)", block: 32, window: 0),
            Shape("think(keys=0.4)", block: 32, window: 32),
            Shape("think(keys=0.4,recent=0)+f16", block: 32, window: 0),
            Shape("think(keys=0.4,recent=1)+f16", block: 32, window: 32),
            Shape("think(keys=0.4,recent=33,observe=7)+f16", block: 32, window: 64, observe: 7),
            Shape("think(keys=0.4)+kivi(bits=2)", block: 32, window: 128),
            Shape("think(keys=0.4)+kivi(bits=2,residual=0)", block: 32, window: 32),
            Shape("think(keys=0.4)+kivi(bits=2,group=64,residual=0)", block: 64, window: 64),
            Shape("think(keys=0.4,recent=129)+kivi(bits=2,group=128)", block: 128, window: 256),
            Shape("think(keys=0.4,recent=200,observe=64)+kivi(bits=2)", block: 32, window: 224, observe: 64),
            Shape("think(keys=0.4,recent=65536)+kivi(bits=2,group=128)", block: 128, window: 65536),
        ]
    )
    func shape(_ shape: Shape) throws {
        let recipe = try Recipe(shape.recipe)
        #expect(recipe.blockLength == shape.blockLength)
        #expect(recipe.residualWindow == shape.residualWindow)
        #expect(recipe.observationWindow == shape.observationWindow)
    }

    // MARK: - Refusals

    struct Refusal: Sendable, CustomTestStringConvertible {
        let text: String
        let message: String
        let suggestion: String?
        var testDescription: String { text }

        init(_ text: String, _ message: String, suggestion: String? = nil) {
            self.text = text
            self.message = message
            self.suggestion = suggestion
        }
    }

    private static let known =
        "(known: small, balanced, faithful, f16, bf16, f32, exact, streaming, snapkv, h2o, "
        + "keydiff, kivi, think, calibrated, auto, archive)"

    static let textRefusals = [
        Refusal("kvi(bits=2)", "there is no codec 'kvi' \(known)", suggestion: "kivi(bits=2)"),
        Refusal("KIVI(bits=2)", "there is no codec 'KIVI' \(known)", suggestion: "kivi(bits=2)"),
        Refusal("thinc(keys=0.4)", "there is no codec 'thinc' \(known)", suggestion: "think(keys=0.4)"),
        Refusal("bf-16", "there is no codec 'bf-16' \(known)", suggestion: "bf16"),
        Refusal("think(keys=0.4)+fp16", "there is no codec 'fp16' \(known)", suggestion: "f16"),
        Refusal("kivi(bits=2", "'kivi(bits=2' has parentheses that don't match", suggestion: "kivi(bits=2)"),
        Refusal("kivi((bits=2)", "'kivi((bits=2)' has parentheses that don't match", suggestion: "kivi(bits=2)"),
        Refusal("kivi(bits=2))", "'kivi(bits=2))' has parentheses that don't match", suggestion: "kivi(bits=2)"),
        Refusal("kivi(bits=2)f16", "'kivi(bits=2)f16' has parentheses that don't match", suggestion: "kivi(bits=2)"),
        Refusal("kivi(bits)", "kivi: 'bits' is not of the form name=value"),
        Refusal("kivi(bits=)", "kivi: 'bits=' is not of the form name=value"),
        Refusal("kivi(bits=2,)", "kivi: '' is not of the form name=value"),
        Refusal("kivi(bits=2,bits=2)", "kivi: 'bits' is given twice", suggestion: "bits=2"),
        Refusal(
            "kivi(bit=2)",
            "kivi has no parameter 'bit'; it has the parameters bits, keys, values, group, residual, sinks, ranges, "
                + "scales, rotate",
            suggestion: "bits=2"
        ),
        Refusal("f16(bits=2)", "f16 has no parameter 'bits'; it takes no parameters", suggestion: "f16"),
        Refusal(
            "kivi(bits=2)+think(keys=0.4)",
            "think must come before kivi",
            suggestion: "think(keys=0.4)+kivi(bits=2)"
        ),
        Refusal("f16+think(keys=0.4)", "think must come before f16", suggestion: "think(keys=0.4)+f16"),
        Refusal(
            "kivi(bits=2)+f16",
            "kivi and f16 do the same work; a recipe has one of them",
            suggestion: "kivi(bits=2)"
        ),
        Refusal(
            "think(keys=0.4)+think(keys=0.5)",
            "think and think do the same work; a recipe has one of them",
            suggestion: "think(keys=0.4)"
        ),
    ]

    static let parameterRefusals = [
        Refusal("kivi", "kivi needs a number of bits", suggestion: "kivi(bits=2)"),
        Refusal("kivi(group=64)", "kivi needs a number of bits", suggestion: "kivi(bits=2)"),
        Refusal("kivi(bits=6)", "kivi: bits=6 must be 1 or 2 or 3 or 4 or 5 or 8", suggestion: "bits=5"),
        Refusal("kivi(bits=16)", "kivi: bits=16 must be 1 or 2 or 3 or 4 or 5 or 8", suggestion: "bits=8"),
        Refusal("kivi(bits=two)", "kivi: bits=two must be 1 or 2 or 3 or 4 or 5 or 8", suggestion: "bits=1"),
        Refusal(
            "kivi(bits=2,rotate=values)",
            "kivi: rotate=values needs compact scales",
            suggestion: "kivi(bits=2,scales=compact,rotate=values)"
        ),
        Refusal(
            "kivi(bits=2,scales=f16)",
            "kivi: scales=f16 must be float16 or compact",
            suggestion: "scales=float16"
        ),
        Refusal("kivi(keys=4)", "kivi needs bits for keys and for values", suggestion: "kivi(keys=4,values=4)"),
        Refusal("kivi(values=2)", "kivi needs bits for keys and for values", suggestion: "kivi(keys=2,values=2)"),
        Refusal(
            "kivi(bits=4,keys=2)",
            "kivi takes either bits or keys and values, not both",
            suggestion: "kivi(keys=2,values=4)"
        ),
        Refusal(
            "kivi(bits=4,keys=2,values=8)",
            "kivi takes either bits or keys and values, not both",
            suggestion: "kivi(keys=2,values=8)"
        ),
        Refusal("kivi(bits=2,group=48)", "kivi: group=48 must be 32 or 64 or 128", suggestion: "group=32"),
        Refusal("kivi(bits=2,group=100)", "kivi: group=100 must be 32 or 64 or 128", suggestion: "group=128"),
        Refusal(
            "kivi(bits=2,residual=100)",
            "kivi: residual=100 must be a multiple of group=32",
            suggestion: "residual=128"
        ),
        Refusal(
            "kivi(bits=2,group=128,residual=64)",
            "kivi: residual=64 must be a multiple of group=128",
            suggestion: "residual=128"
        ),
        Refusal(
            "kivi(bits=2,residual=65568)",
            "kivi: residual=65568 must be a whole number from 0 to 65536",
            suggestion: "residual=65536"
        ),
        Refusal(
            "kivi(bits=2,sinks=65)",
            "kivi: sinks=65 must be a whole number from 0 to 64",
            suggestion: "sinks=64"
        ),
        Refusal(
            "kivi(bits=2,residual=-32)",
            "kivi: residual=-32 must be a whole number from 0 to 65536",
            suggestion: "residual=0"
        ),
        Refusal(
            "think",
            "think needs the share of key channels, or of value channels, to prune",
            suggestion: "think(keys=0.4)"
        ),
        Refusal(
            "think(keys=0.4,values=1)",
            "think: values=1 must be a decimal from 0 to less than 1 with at most six digits",
            suggestion: "values=0.2"
        ),
        Refusal(
            "think(values=-0.2)",
            "think: values=-0.2 must be a decimal from 0 to less than 1 with at most six digits",
            suggestion: "values=0.2"
        ),
        Refusal(
            "think(keys=0.4,observe=0)",
            "think: observe=0 must be a whole number from 1 to 65536",
            suggestion: "observe=1"
        ),
        Refusal(
            "think(keys=0.4,recent=65537)",
            "think: recent=65537 must be a whole number from 0 to 65536",
            suggestion: "recent=65536"
        ),
        Refusal(
            "think(keys=0.4,restore=median)",
            "think: restore=median must be none or mean",
            suggestion: "restore=mean"
        ),
        Refusal("think(keys=0.4,score=Keys)", "think: score=Keys must be queries or keys", suggestion: "score=keys"),
    ]

    static let ratioRefusals = [
        "1.0", "1", "0.1234567", ".5", "0.", "-0.5", "0.5e0", "1.5", "40%", "0,4", "0.٤", "00.5",
    ]
    .filter { !$0.contains(",") }
    .map { ratio in
        Refusal(
            "think(keys=\(ratio))",
            "think: keys=\(ratio) must be a decimal from 0 to less than 1 with at most six digits",
            suggestion: "keys=0.4"
        )
    }

    @Test("refuses and says what would be right", arguments: textRefusals + parameterRefusals + ratioRefusals)
    func refuses(_ refusal: Refusal) {
        #expect(throws: RecipeError(refusal.message, suggestion: refusal.suggestion)) { try Recipe(refusal.text) }
    }

    static let suggestingRefusals = (textRefusals + parameterRefusals).filter { $0.suggestion != nil }

    @Test("suggests only recipes and parameters that are right", arguments: suggestingRefusals)
    func suggestsWhatIsRight(_ refusal: Refusal) throws {
        let suggestion = try #require(refusal.suggestion)
        let isStage = suggestion.contains("(") || !suggestion.contains("=")
        guard !isStage else {
            #expect(try Recipe(suggestion).description == canonical(suggestion))
            return
        }
        // A parameter in place of the one that was refused.
        let name = try #require(suggestion.split(separator: "=").first)
        let parts = refusal.text.dropLast().split(separator: "(")
        let given = try #require(parts.last).split(separator: ",")
        // Or in place of all, where it is not one of them or one too many.
        guard given.count(where: { $0.hasPrefix("\(name)=") }) == 1 else {
            _ = try Recipe("\(parts[0])(\(suggestion))")
            return
        }
        let parameters = given.map { $0.hasPrefix("\(name)=") ? Substring(suggestion) : $0 }
        _ = try Recipe("\(parts[0])(\(parameters.joined(separator: ",")))")
    }

    /// The suggestion's text, of which equal widths have a shorter form.
    private func canonical(_ text: String) -> String {
        [2, 4, 8].reduce(text) { $0.replacing("keys=\($1),values=\($1)", with: "bits=\($1)") }
    }

    @Test("suggests a recipe that is right where two faults come together")
    func suggestsWhatIsRightForTwoFaults() throws {
        let error = try #require(
            #expect(throws: RecipeError.self) { try Recipe("kivi(bits=2)+think(keys=0.4)+kivi(bits=4)") }
        )
        let suggestion = try #require(error.suggestion)
        #expect(throws: Never.self) { try Recipe(suggestion) }
    }

    @Test("refuses a recipe without stages")
    func refusesNothing() {
        let error = RecipeError("a recipe needs a stage", suggestion: "think(keys=0.4)+kivi(bits=2)")
        #expect(throws: error) { try Recipe(steps: []) }
    }

    @Test("refuses text without anything", arguments: ["", "  "])
    func refusesBlankText(text: String) {
        let error = RecipeError("a recipe needs a stage", suggestion: "think(keys=0.4)+kivi(bits=2)")
        #expect(throws: error) { try Recipe(text) }
    }

    @Test("refuses text without a stage", arguments: ["+", "f16+", "+f16", "think(keys=0.4)++f16"])
    func refusesEmptyText(text: String) {
        let error = RecipeError("there is no codec '' \(Self.known)", suggestion: "f16")
        #expect(throws: error) { try Recipe(text) }
    }

    @Test("refuses very long text without looking at it", arguments: [4097, 1_000_000])
    func refusesLongText(length: Int) {
        let text = String(repeating: "+", count: length)
        #expect(throws: RecipeError("a recipe of \(length) bytes is too long")) { try Recipe(text) }
    }

    @Test("looks at text of 4096 bytes")
    func readsLongestText() throws {
        let text = "kivi(bits=2" + String(repeating: " ", count: 4096 - 12) + ")"
        #expect(try Recipe(text).description == "kivi(bits=2)")
    }

    @Test(
        "refuses numbers at the ends of integers without trapping",
        arguments: [
            "bits=-9223372036854775808", "bits=9223372036854775807", "bits=99999999999999999999",
            "bits=2,residual=-9223372036854775808", "bits=2,residual=9223372036854775807",
            "bits=2,group=-9223372036854775808",
        ]
    )
    func refusesExtremeNumbers(parameters: String) async {
        await #expect(processExitsWith: .success) { [parameters] in
            #expect(throws: RecipeError.self) { try Recipe("kivi(\(parameters))") }
        }
    }

    @Test("puts the suggestion into the error's text")
    func describesErrors() {
        #expect(RecipeError("no", suggestion: "f16").description == "no; did you mean f16?")
        #expect(RecipeError("no").description == "no")
    }

    @Test("a recipe can be made of stages")
    func recipeOfStages() throws {
        let recipe = try Recipe(ThinKCodec(keyRatio: 0.4), KIVICodec(keyBits: 2, valueBits: 2))
        #expect(recipe.description == "think(keys=0.4)+kivi(bits=2)")
        #expect(try Recipe(FullPrecisionCodec(elementType: .bfloat16)).description == "bf16")
    }

    @Test("is told after the name that stands for it")
    func title() {
        #expect(Recipe.title("kivi(bits=2)", name: nil) == "kivi(bits=2)")
        #expect(Recipe.title("think(bits=2.5)", name: "auto(ratio=4)") == "auto(ratio=4): think(bits=2.5)")
    }

    @Test("a record of a recipe gives the recipe back", arguments: ["f16", "think(keys=0.4)+kivi(bits=2)"])
    func record(text: String) throws {
        let record = try Recipe(text).record
        #expect(record.description == text)
        #expect(try Recipe(record, registry: .standard) == Recipe(text))
    }

    @Test("a record whose codecs are unknown or don't have its numbers gives no recipe")
    func foreignRecord() throws {
        let record = try Recipe("think(keys=0.4)+kivi(bits=2)").record
        let stages = record.stages.map { RecipeRecord.Stage(codecNumber: $0.codecNumber + 1, text: $0.text) }
        #expect(throws: RecipeError.self) { try Recipe(RecipeRecord(stages: stages), registry: .standard) }
        #expect(throws: RecipeError.self) { try Recipe(record, registry: CodecRegistry([])) }
        #expect(throws: RecipeError.self) { try Recipe(RecipeRecord(stages: []), registry: .standard) }
    }
}
