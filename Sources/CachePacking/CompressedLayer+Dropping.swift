internal import KVCacheModel

extension CompressedLayer {
    /// Drops the oldest rows, which no sliding window reaches any more, in whole chunks of 256 places that are all in
    /// blocks: at least the newest `count` stay.
    ///
    /// The layer then holds the cache's last tokens and no sinks, and its cache can't be cut to a prefix. What is listed
    /// stays as it is: such rows are no sliding window's.
    public mutating func dropRows(keeping count: Int) {
        precondition(count >= 0, "a layer keeps some of its rows")
        if case .listed = held { return }
        let page = BlockShape.pageTokens
        let first = min(max(extent.end - count, 0), extent.blockEnd) / page * page
        guard !geometry.isEmpty, first > extent.first else { return }
        let droppedSlabs = first / page - extent.chunks.lowerBound
        let whole = self
        self = CompressedLayer(
            shape: shape,
            index: index,
            plan: LayerPlan(geometry: geometry, heads: plan.heads),
            held: .last,
            skippedTokens: first
        )
        extent = LayerExtent(
            first: first,
            end: whole.extent.end,
            blockEnd: whole.extent.blockEnd,
            blockLength: whole.extent.blockLength
        )
        tokenCount = whole.tokenCount
        state = whole.state
        slabs = Array(whole.slabs.dropFirst(droppedSlabs))
        window = whole.window
    }
}
