extension [Double] {
    /// The places of the `count` highest numbers, ascending; of equal ones the lower place comes first.
    func indicesOfHighest(_ count: Int) -> [Int] {
        indices.sorted { (-self[$0], $0) < (-self[$1], $1) }.prefix(count).sorted()
    }
}
