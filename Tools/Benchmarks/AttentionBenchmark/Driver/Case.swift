import BenchmarkSupport

/// Names of the cases; `ServeCommand` and the programs in Peers say what they mean.
///
/// Without `recent=0` and `residual=0` the newest tokens stay in full precision.
enum Case {
    static let headlineRecipe = "think(keys=0.4,recent=0)+kivi(bits=2,residual=0)"
    static let windowedRecipe = "think(keys=0.4)+kivi(bits=2)"
    static let fourBitRecipe = "think(keys=0.4,recent=0)+kivi(bits=4,residual=0)"
    static let unprunedRecipe = "kivi(bits=2,residual=0)"

    static let headline = headlineRecipe + "@fast"
    static let precise = headlineRecipe + "@precise"
    static let sharp = "sharp:" + headline
    static let windowed = windowedRecipe + "@fast"
    static let fourBit = fourBitRecipe + "@precise"
    static let fourBitFast = fourBitRecipe + "@fast"
    static let unpruned = unprunedRecipe + "@fast"
    static let float16 = "f16"
    static let plainRead = "read:" + headlineRecipe

    static let inMemory = "memory:" + headline
    static let mapped = "mapped:" + headline
    static let opened = "opened:" + headline
    static let openSmall = "open:" + windowedRecipe
    static let openLarge = "open:f16"
    static let verified = "verified:" + windowedRecipe
    static let verifiedWithoutWindow = "verified:" + headlineRecipe
    static let fileRead = "file:" + windowedRecipe

    static let pack = "pack:" + windowedRecipe
    static let unpack = "unpack:" + windowedRecipe
    static let memcpy = "memcpy:" + windowedRecipe

    /// Calls through the C library, each with what is special about it.
    static let boundaries = [
        Boundary(caseName: "boundary:0:" + windowedRecipe, title: "a call through C"),
        Boundary(caseName: "boundary:1:" + windowedRecipe, title: "a call through C with a newer token"),
        Boundary(caseName: "boundary:128:" + windowedRecipe, title: "a call through C with 128 newer tokens"),
        Boundary(caseName: "boundary-alone:0:" + windowedRecipe, title: "a call through C without workers", threads: 1),
    ]

    static let flashFloat16 = "flash-f16"
    static let flash8 = "flash-q8_0"
    static let flash4 = "flash-q4_0"
    static let llamaProducts = "matmul-f16"
    static let stateFloat16 = "state-f16"
    static let state8 = "state-q8_0"
    static let state4 = "state-q4_0"
    static let torchProducts = "matmul-bf16"
    static let torchScaledDotProduct = "sdpa-bf16"

    /// Recipes whose attention is compared with the reference's, by what is asked of them.
    static let comparedRecipes = [
        ComparedRecipe(windowedRecipe),
        ComparedRecipe("kivi(bits=2)"),
        ComparedRecipe("kivi(bits=2,\(compactCoding))"),
        ComparedRecipe("think(bits=2.5,values=2.25)", mostTime: 1.15),
        ComparedRecipe("calibrated(bits=1.5)", mostTime: 1.3, hasFewBytes: true),
        ComparedRecipe("calibrated(bits=2.05)", mostTime: 1.4, hasFewBytes: true),
        ComparedRecipe("think(bits=2.5)+kivi(bits=3,\(compactCoding))"),
    ]
    private static let compactCoding = "sinks=4,ranges=fitted,scales=compact,rotate=values"

    /// Recipes with which a whole model is measured, from the most exact to the smallest.
    static let modelRecipes = ["f16", "kivi(bits=4)", windowedRecipe]
    /// llama.cpp's ways to read a prompt and to go on after it: with flash attention and without. Batches of its default
    /// size, 512, were faster than whole prompts.
    static let llamaPrefills = ["prefill:flash:512", "prefill:plain:512"]
    static let llamaDecodes = ["decode:flash:\(decodedTokens)", "decode:plain:\(decodedTokens)"]
    /// Tokens that are decoded in a round.
    static let decodedTokens = 32

    static func prefill(_ recipe: String) -> String { "prefill:" + recipe }
    static func decode(_ recipe: String) -> String { "decode:\(decodedTokens):" + recipe }

    /// With the precision that attention chooses by itself.
    static func heads(dimension: Int, _ recipe: String) -> String { "heads:\(dimension):\(recipe)" }

    static func queries(_ count: Int, precision: String) -> String { "queries:\(count):\(headlineRecipe)@\(precision)" }

    /// Bytes of keys and values of a layer in float16.
    static func float16LayerBytes(tokens: Int) -> Int {
        tokens * SyntheticLayer.kvHeads * SyntheticLayer.float16TokenBytes
    }
}

/// A call of attention through the C library.
struct Boundary {
    let caseName: String
    let title: String
    /// The only number of threads that it is measured with; nil for all.
    var threads: Int?

    func isMeasured(threads: Int) -> Bool { self.threads ?? threads == threads }
}

/// A recipe whose attention is compared with that of `Case.windowedRecipe`.
struct ComparedRecipe {
    let recipe: String
    /// The time that it may take of the reference's, where that is bounded: about as many bits, better spent, or fewer.
    let mostTime: Double?
    /// Whether it stores so few bytes that the time for each says nothing.
    let hasFewBytes: Bool

    init(_ recipe: String, mostTime: Double? = nil, hasFewBytes: Bool = false) {
        self.recipe = recipe
        self.mostTime = mostTime
        self.hasFewBytes = hasFewBytes
    }
}
