internal import KVCacheCodecs

/// What an evaluation found, recipe by recipe: Formats/json.md, "eval".
///
/// A number that was not measured is nil. Full precision is judged by all questions, the other recipes by those that
/// full precision answers, whether the compression has seen them or not.
public struct EvaluationReport: Codable, Sendable, Equatable {
    /// Needles of one context length and depth.
    public struct NeedleCell: Codable, Sendable, Equatable {
        /// Tokens of the prompt, question and answer included.
        public var context: Int
        /// Where the needle is: 0 at the prompt's beginning, 1 before the question.
        public var depth: Double
        /// Questions that the recipe is judged by.
        public var trials: Int
        /// Share of needles found when the compression had not seen the question, 0 to 1.
        public var accuracy: Double
        /// The same when the question was part of the prompt that was compressed.
        public var seenAccuracy: Double

        public init(context: Int, depth: Double, trials: Int, accuracy: Double, seenAccuracy: Double) {
            self.context = context
            self.depth = depth
            self.trials = trials
            self.accuracy = accuracy
            self.seenAccuracy = seenAccuracy
        }
    }

    /// What a recipe gives, and what it costs.
    public struct RecipeResult: Codable, Sendable, Equatable {
        /// The plain recipe; where a budget chose several, that of most trials.
        public var recipe: String
        /// The preset that stands for it, or the budget that was asked for.
        public var name: String?
        /// Places of the text that it was measured at.
        public var trials: Int?
        /// Questions that it is judged by in measurements of recall.
        public var recallTrials: Int?
        /// How many times smaller the whole snapshot is than the cache in float16.
        public var ratio: Double?
        /// Bits that the snapshot takes per number of the cache, windows and masks included.
        public var bitsPerValue: Double?
        /// Kullback-Leibler divergence of the next token's distribution from full precision's, in nats, mean per token.
        public var kl: Double?
        /// Share of tokens whose likeliest successor is the same as in full precision, 0 to 1.
        public var top1: Double?
        /// Perplexity of the continuation, per token.
        public var perplexity: Double?
        /// Relative change of perplexity against full precision: 0.05 is 5 % more.
        public var perplexityChange: Double?
        /// Relative error of the attention output over all layers.
        public var attentionError: Double?
        /// The same layer by layer.
        public var layerAttentionErrors: [Double]?
        /// Needles by context and depth, in the order of contexts, then depths.
        public var needle: [NeedleCell]?
        /// Share of keys whose value was recalled when the compression had not seen the question, 0 to 1.
        public var recall: Double?
        /// The same when the question was part of the prompt that was compressed.
        public var recallSeen: Double?

        public init(recipe: String, name: String? = nil) {
            self.recipe = recipe
            self.name = name
        }

        /// The recipe, after the name that was asked for.
        public var title: String { Recipe.title(recipe, name: name) }
        /// The name that was asked for, or else the recipe.
        public var shortTitle: String { name ?? recipe }
    }

    /// The model's name.
    public var model: String
    /// The text's file name.
    public var text: String
    /// How questions were put, as `ChatForm` names it.
    public var prompts: String?
    /// Tokens of the compressed prefix in measurements on text.
    public var prefixTokens: Int?
    /// Tokens after it that are measured.
    public var continuationTokens: Int?
    /// Measurements on text: different places of it; the most that a recipe was measured at.
    public var trials: Int?
    /// Tokens of a prompt in measurements of recall, question and answer included.
    public var recallContext: Int?
    /// Pairs of keys and values in measurements of recall.
    public var recallPairs: Int?
    /// Questions asked in measurements of recall; the most that a recipe was asked.
    public var recallTrials: Int?
    /// The recipes, full precision first.
    public var recipes: [RecipeResult]

    public init(model: String, text: String, recipes: [RecipeResult] = []) {
        self.model = model
        self.text = text
        self.recipes = recipes
    }
}
