public import CachePacking

/// What a stage of a recipe decides; a recipe has at most one stage of each role, in this order.
public enum StageRole: Int, Sendable, Comparable {
    case tokenSelection, channelSelection, quantization

    public static func < (left: StageRole, right: StageRole) -> Bool { left.rawValue < right.rawValue }
}

/// One stage of a recipe: it sees a head's statistics and adds its decision to the head's plan.
///
/// Stages pass no tensors to each other. One pass packs blocks by the finished plan, so a new codec is a decision and
/// not a loop.
public protocol CodecStage: Sendable {
    /// The codec that this is a stage of.
    var codec: CodecRegistration { get }

    /// The parameters in canonical order, those left out that have their default.
    var parameters: [StageParameter] { get }

    /// The newest tokens that the stage wants in full precision.
    var residualWindow: Int { get }

    /// The last queries of the prompt that the stage looks at, or nil if it looks at none.
    var observationWindow: Int? { get }

    /// The tokens that the stage wants in a block, or nil if it doesn't mind.
    var blockLength: Int? { get }

    /// Adds the stage's decision for one layer and KV head.
    ///
    /// - Throws: `CodecError` if the cache is not one that the stage can decide on.
    func decide(_ statistics: inout HeadStatistics, plan: inout HeadPlan) throws(CodecError)
}

extension CodecStage {
    public var residualWindow: Int { 0 }
    public var observationWindow: Int? { nil }
    public var blockLength: Int? { nil }
}
