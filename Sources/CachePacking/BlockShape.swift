internal import CThinkKernels
public import KVCacheModel

/// What all layers of a compressed cache share: how places are cut into blocks, and the type of what is in full
/// precision.
public struct BlockShape: Sendable, Equatable {
    /// Places of a page: Formats/snapshot.md, "How a cache is cut".
    public static let pageTokens = Int(TCK_PAGE_TOKENS)
    /// Block lengths that a snapshot can say.
    public static let blockLengths = [32, 64, 128]
    /// Residual windows that a snapshot can say, in tokens.
    public static let residualWindows = 0...65536

    public let elementType: ElementType
    /// Tokens of a block.
    public let blockLength: Int
    /// Tokens that stay in full precision at least; the window holds fewer than `residualWindow + blockLength`.
    public let residualWindow: Int

    /// A shape within the limits of Formats/snapshot.md; others are a programming error.
    public init(elementType: ElementType, blockLength: Int, residualWindow: Int) {
        precondition(Self.blockLengths.contains(blockLength), "a block has 32, 64 or 128 tokens")
        precondition(Self.residualWindows.contains(residualWindow), "the window is out of range")
        self.elementType = elementType
        self.blockLength = blockLength
        self.residualWindow = residualWindow
    }

    /// Blocks of a full page.
    public var blocksPerPage: Int { Self.pageTokens / blockLength }

    /// Where the blocks of `end` places end: all of them but the residual window and what fills no block.
    package func blockEnd(places end: Int) -> Int { max(end - residualWindow, 0) / blockLength * blockLength }
}
