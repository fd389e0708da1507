internal import ByteStorage
internal import KVCacheModel

/// Leaves out the components of least variance of archives' bases, of all units together, but one of each.
///
/// Units are added one after another, and those that are known are cut to the limit in between: a component that doesn't
/// fit beside a part of the others doesn't fit beside all of them.
struct BasisCut {
    private struct Entry {
        var archive: LayerBases.Archive
        /// Of all components, those that were left out included: they decide which others are.
        let variances: [Float]
    }

    private struct Component {
        let entry: Int
        let place: Int
        let variance: Float
        let byteCount: Int
    }

    private let byteLimit: Int?
    private var entries: [Entry] = []

    /// - Parameter byteLimit: bytes that the bases may have; nil for as many as they take.
    init(byteLimit: Int?) { self.byteLimit = byteLimit }

    /// The units so far, and what is left of their bases.
    var archives: [LayerBases.Archive] { entries.map(\.archive) }

    mutating func add(_ basis: ComponentBasis, of unit: ArchiveUnit) {
        entries.append(Entry(archive: .init(unit: unit, basis: basis), variances: basis.variances))
    }

    /// Cuts the bases to the limit.
    ///
    /// - Throws: `MemoryError` if there is no memory for what is left of a basis.
    mutating func cut() throws(MemoryError) {
        let bytes = entries.map { BasisUnit.componentBytes(channels: $0.archive.basis.channelCount) }
        let whole = zip(entries, bytes).reduce(0) { $0 + $1.0.variances.count * $1.1 }
        guard let byteLimit, whole > byteLimit else { return }
        let components = entries.enumerated().flatMap { index, entry in
            entry.variances.enumerated().map {
                Component(entry: index, place: $0, variance: $1, byteCount: bytes[index])
            }
        }
        let sorted = components.sorted {
            ($1.variance, $0.entry, $0.place) < ($0.variance, $1.entry, $1.place)
        }
        var counts = [Int](repeating: 1, count: entries.count)
        var byteCount = bytes.reduce(0, +)
        for component in sorted where component.place > 0 {
            byteCount += component.byteCount
            guard byteCount <= byteLimit else { break }
            counts[component.entry] += 1
        }
        for (index, count) in counts.enumerated() where count < entries[index].archive.basis.componentCount {
            entries[index].archive = .init(
                unit: entries[index].archive.unit,
                basis: try entries[index].archive.basis.keeping(count)
            )
        }
    }
}

extension ComponentBasis {
    /// The first components, in memory of their own, so that that of the others is free.
    fileprivate func keeping(_ count: Int) throws(MemoryError) -> ComponentBasis {
        let rows = matrix[0..<count * channelCount]
        return ComponentBasis(
            matrix: try SharedBytes(byteCount: rows.count) { copy in
                unsafe copy.withUnsafeMutableBytes { target in
                    unsafe rows.withUnsafeBytes { unsafe target.copyMemory(from: $0) }
                }
            },
            scales: Array(scales[..<count]),
            variances: Array(variances[..<count]),
            weights: weights
        )
    }
}
