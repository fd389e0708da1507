public import CachePacking
public import ComputeRuntime
public import KVCacheModel

/// What a stage of a recipe decides; a recipe has at most one stage of each role, in this order.
public enum StageRole: Int, Sendable, Comparable {
    case tokenSelection, channelSelection, quantization

    public static func < (left: StageRole, right: StageRole) -> Bool { left.rawValue < right.rawValue }
}

/// One stage of a recipe: it sees a layer's statistics and refines the layer's plan.
///
/// Stages pass no tensors to each other. One pass packs blocks by the finished plan, so a new codec is a decision and
/// not a loop. Stages decide what is undecided: what an earlier stage has decided stays.
public protocol CodecStage: Sendable {
    /// The codec that this is a stage of.
    var codec: CodecRegistration { get }

    /// The parameters in canonical order, those left out that have their default.
    var parameters: [StageParameter] { get }

    /// The newest rows of each layer that the stage wants in full precision.
    var residualWindow: Int { get }

    /// The first tokens that the stage wants in full precision.
    var sinks: Int { get }

    /// The last queries of the prompt that the stage looks at, or nil if it looks at none.
    var observationWindow: Int? { get }

    /// What the stage looks at where the model can give it.
    var modelStatistics: ModelStatistics { get }

    /// The places that the stage wants in a block, or nil if it doesn't mind.
    var blockLength: Int? { get }

    /// Whether the stage looks at all layers before it decides about the first, so that all must be in memory.
    var needsWholeCache: Bool { get }

    /// Whether the stage decides all there is, so that no stage may follow it.
    var endsRecipe: Bool { get }

    /// Whether the stage is a recipe by itself.
    var standsAlone: Bool { get }

    /// What the stage was chosen for and why, where another one chose it: a line for people.
    var rationale: String? { get }

    /// The stage for one cache, before its first layer is decided: one that shares something between layers makes
    /// its shares here, and one that only chooses gives the stage of its choice.
    ///
    /// - Throws: `CodecError` if the cache is not one that the stage can decide on; `CancellationError`.
    func prepared(for cache: CacheOutline) async throws -> any CodecStage

    /// Refines the plan of one layer, all its KV heads.
    ///
    /// - Throws: `CodecError` if the cache is not one that the stage can decide on.
    func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError)
}

extension CodecStage {
    public var residualWindow: Int { 0 }
    public var sinks: Int { 0 }
    public var observationWindow: Int? { nil }
    public var modelStatistics: ModelStatistics { [] }
    public var blockLength: Int? { nil }

    public var needsWholeCache: Bool { false }
    public var endsRecipe: Bool { false }
    public var standsAlone: Bool { false }
    public var rationale: String? { nil }

    public func prepared(for cache: CacheOutline) async throws -> any CodecStage { self }
}

/// What is known of a cache before its first layer is decided.
public struct CacheOutline: Sendable {
    public let geometry: CacheGeometry
    public let elementType: ElementType
    public let tokenCount: Int
    /// Places of a block.
    public let blockLength: Int
    /// Whether queries or a profile came with the cache, as far as is known.
    public let hasQueries: Bool
    /// Whether the attention that tokens got from all queries of the prompt came, as far as is known.
    public let hasAccumulatedAttention: Bool
    /// Rows of each layer's KV heads, of the tokens that were selected if a stage did.
    public let rowCounts: [Int]
    /// Rows of each layer's KV heads before tokens were selected.
    public let unselectedRowCounts: [Int]
    /// The statistics of all layers; nil where layers come one by one, so that only one at a time is in memory.
    public let layers: [LayerStatistics]?
    /// The model's profile of every layer, if there is one; it is known also where layers come one by one.
    public let profile: [LayerProfile]?
    /// Told how much of preparing the stage is done, where it looks at the whole cache.
    public internal(set) var progress: ProgressHandler?
}
