internal import ByteStorage
internal import CThinkKernels
internal import CachePacking
internal import ComputeRuntime
public import KVCacheModel

/// Brings an archive's layers back, some at a time.
public struct ArchiveRestoration: Sendable {
    private let archive: CacheArchive
    private let transforms: [ArchiveTransform]
    private let rotary: RotaryTables

    /// - Parameter bases: those of the model's profile that the archive was made by; not looked at where it was made
    ///   without.
    /// - Throws: `ArchiveError` if they are missing or others.
    public init(_ archive: CacheArchive, bases: ArchiveBases?) throws(ArchiveError) {
        self.archive = archive
        if let digest = archive.plan.basisDigest {
            guard let bases else {
                throw ArchiveError(
                    .otherProfile,
                    "the archive was made by the bases of a profile, \(Self.name(digest)); pass that profile"
                )
            }
            guard bases.digest == digest else {
                throw ArchiveError(
                    .otherProfile,
                    "the archive was made by the profile with the bases \(Self.name(digest)), and the one given has "
                        + "\(Self.name(bases.digest)); pass the profile that it was made by"
                )
            }
        }
        var known: [ArchiveUnit: ComponentBasis] = [:]
        for archive in bases?.units ?? [] { known[archive.unit] = archive.basis }
        transforms = try archive.plan.units.map { unit throws(ArchiveError) in
            switch unit.basis {
            case .channels(let weights): return ArchiveTransform(weights: weights)
            case .profile:
                guard let basis = known[unit.unit], basis.componentCount == unit.componentCount,
                    basis.channelCount == unit.means.count
                else { throw ArchiveError(.otherProfile, "the profile has no basis of a unit of the archive") }
                return ArchiveTransform(basis, isForCoding: false)
            }
        }
        let positions = archive.positions
        rotary = RotaryTables { places in
            positions.map { Array($0[places]) } ?? places.map { Int32($0) }
        }
    }

    /// The first bytes of a digest, in hex, as profiles are told apart by.
    public static func name(_ digest: [UInt8]) -> String {
        digest.prefix(6).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// Layers that are restored together.
    public var layerGroups: [Range<Int>] { archive.plan.layerGroups }

    /// Restores layers.
    ///
    /// - Parameters:
    ///   - group: one of `layerGroups`.
    ///   - tokens: the first tokens that are wanted, nil for all; only of a cache that may be cut.
    ///   - elementType: the type to restore to.
    /// - Returns: keys and values in memory of their own, and the layers' state if all tokens are wanted.
    /// - Throws: `ArchiveError` if a chunk is damaged; `CodecError` if there is no memory; `CancellationError`.
    public func layers(
        _ group: Range<Int>,
        tokens: Int? = nil,
        as elementType: ElementType
    ) async throws -> [KVCacheLayer] {
        let count = tokens ?? archive.tokenCount
        let rows = group.map { layer in
            let extent = archive.layers[layer].extent
            return extent.first..<max(min(extent.end, count), extent.first)
        }
        var buffers: [[AlignedBuffer]] = []
        for (layer, rows) in zip(group, rows) {
            let geometry = archive.geometry.layers[layer]
            buffers.append(
                try CachePart.allCases.map { part in
                    try AlignedBuffer(
                        byteCount: geometry.kvHeads * rows.count * geometry.dimension(part) * elementType.byteCount
                    )
                }
            )
        }
        let target = Target(group: group, places: rows, elementType: elementType, buffers: buffers)
        for layer in group { restoreExactRows(layer, into: target) }
        let lastPlace = rows.reduce(0) { max($0, $1.upperBound) }
        let chunkCount = ArchiveChunks.count(blockEnd: min(archive.blockEnd, lastPlace))
        let units = archive.plan.units.indices.filter { archive.plan.units[$0].unit.layers.overlaps(group) }
        try await forEachConcurrently(count: chunkCount * units.count) { job in
            let (chunk, index) = job.quotientAndRemainder(dividingBy: units.count)
            try restore(unit: units[index], chunk: chunk, into: target)
        }
        return zip(group, rows).enumerated().map { index, layer in
            let geometry = archive.geometry.layers[layer.0]
            let source = archive.layers[layer.0]
            func tensor(_ part: CachePart) -> KVTensor {
                KVTensor(
                    bytes: unsafe buffers[index][part == .keys ? 0 : 1].shared,
                    elementType: elementType,
                    heads: geometry.kvHeads,
                    tokens: layer.1.count,
                    headDimension: geometry.dimension(part)
                )
            }
            return KVCacheLayer(
                keys: tensor(.keys),
                values: tensor(.values),
                held: source.held,
                state: tokens == nil || tokens == archive.tokenCount ? source.state : []
            )
        }
    }

    // MARK: -

    /// Where rows are restored to.
    private struct Target: Sendable {
        let group: Range<Int>
        /// The places of each layer's rows.
        let places: [Range<Int>]
        let elementType: ElementType
        /// Keys and values of each layer, `[kvHeads][places][dimension]`.
        let buffers: [[AlignedBuffer]]

        /// Lends the row of a place and the bytes from it on.
        func withRow(
            layer: Int,
            part: CachePart,
            head: Int,
            place: Int,
            dimension: Int,
            _ body: (UnsafeMutableRawPointer) -> Void
        ) {
            let index = layer - group.lowerBound
            let places = places[index]
            precondition(places.contains(place), "a row that isn't wanted")
            let row = head * places.count + place - places.lowerBound
            unsafe buffers[index][part == .keys ? 0 : 1].withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                unsafe body(base + row * dimension * elementType.byteCount)
            }
        }
    }

    /// Restores sinks and the window.
    private func restoreExactRows(_ index: Int, into target: Target) {
        let layer = archive.layers[index]
        let places = target.places[index - target.group.lowerBound]
        for part in CachePart.allCases {
            let dimension = layer.geometry.dimension(part)
            guard dimension > 0 else { continue }
            for head in 0..<layer.geometry.kvHeads {
                if let sinks = layer.sinks {
                    let count = min(sinks.keys.tokens, places.upperBound)
                    if count > 0 {
                        unsafe target.withRow(layer: index, part: part, head: head, place: 0, dimension: dimension) {
                            row in
                            unsafe sinks[part].copyRows(head: head, count: count, as: target.elementType, to: row)
                        }
                    }
                }
                let windowStart = max(layer.extent.windowStart, places.lowerBound)
                let window = windowStart..<max(places.upperBound, windowStart)
                if !window.isEmpty {
                    unsafe target.withRow(
                        layer: index,
                        part: part,
                        head: head,
                        place: window.lowerBound,
                        dimension: dimension
                    ) { row in
                        unsafe layer.window.withUnsafeBytes { bytes in
                            unsafe EightBitRows.decode(
                                bytes,
                                geometry: layer.geometry,
                                part: part,
                                head: head,
                                total: layer.extent.windowRowCount,
                                rows: window.count,
                                as: target.elementType,
                                to: row
                            )
                        }
                    }
                }
            }
        }
    }

    /// Rows that are restored together: their numbers and channels stay in the processor's caches.
    private static let tileRows = ArchiveRecord.padding

    private func restore(unit index: Int, chunk: Int, into target: Target) throws {
        let unit = archive.plan.units[index]
        let chunkPlaces = ArchiveChunks.places(of: chunk, blockEnd: archive.blockEnd)
        let rows = archive.rows(of: unit.unit, chunk: chunk)
        let codes = try ArchiveRecord.decode(
            archive.chunks[chunk][1 + index],
            componentCount: unit.componentCount,
            rows: rows
        )
        let restored = UnitRows(unit: unit.unit, geometry: archive.geometry)
        let transform = transforms[index]
        let steps = rows.shifts.map { archive.plan.step / Float(1 << $0) }
        let angles = Dictionary(
            uniqueKeysWithValues: (unit.unit.hasKeys ? Array(unit.unit.layers) : []).map { layer in
                let frequencies = archive.plan.rotaryFrequencies[layer]
                return (layer, rotary.angles(frequencies, chunk: chunk, places: chunkPlaces))
            }
        )
        let (kernels, tile, channels) = unsafe (Kernels.best, Self.tileRows, transform.channelCount)
        let live = codes.components.count
        let stride = ArchiveRecord.padded(rows.count)
        // Matrices are read by rows of live components alone.
        var matrix: [Float] = []
        if !transform.isDiagonal, live < transform.componentCount {
            matrix.reserveCapacity(live * channels)
            for component in codes.components {
                matrix += transform.restoring[component * channels..<(component + 1) * channels]
            }
        } else {
            matrix = transform.restoring
        }
        var numbers = [Float](repeating: 0, count: live * tile)
        var outputs = [Float](repeating: 0, count: tile * channels)
        let pairs = angles.values.reduce(0) { max($0, $1.pairs) }
        var cosines = [Float](repeating: 0, count: tile * pairs)
        var sines = cosines
        let zeros = [Float](repeating: 0, count: channels)
        unsafe codes.numbers.withUnsafeMutableBytes { bytes in
            let all = unsafe bytes.bindMemory(to: Int16.self)
            for first in Swift.stride(from: 0, to: rows.count, by: tile) {
                let count = min(tile, rows.count - first)
                unsafe numbers.withUnsafeMutableBufferPointer { numbers in
                    for component in 0..<live {
                        unsafe kernels.widen_codes(
                            all.baseAddress.map { unsafe $0 + component * stride + first },
                            count,
                            1,
                            numbers.baseAddress.map { unsafe $0 + component * tile }
                        )
                    }
                }
                if transform.isDiagonal {
                    for index in outputs.indices { outputs[index] = 0 }
                    for (column, component) in codes.components.enumerated() {
                        for row in 0..<count {
                            outputs[row * channels + component] = numbers[column * tile + row] * matrix[component]
                        }
                    }
                } else {
                    unsafe outputs.withUnsafeMutableBufferPointer { outputs in
                        unsafe kernels.multiply_in_order(
                            numbers,
                            tile,
                            count,
                            matrix,
                            channels,
                            live,
                            channels,
                            outputs.baseAddress,
                            channels
                        )
                    }
                }
                for row in 0..<count {
                    let step = steps[first + row]
                    unsafe outputs.withUnsafeMutableBufferPointer { outputs in
                        unsafe unit.means.withUnsafeBufferPointer { means in
                            for channel in 0..<channels {
                                unsafe outputs[row * channels + channel] =
                                    outputs[row * channels + channel] * step + means[channel]
                            }
                        }
                    }
                }
                for run in restored.runs {
                    if run.part == .keys, let angles = angles[run.layer], angles.pairs > 0 {
                        let width = angles.pairs
                        for row in 0..<count {
                            let place = rows.places[first + row] - chunkPlaces.lowerBound
                            for pair in 0..<width {
                                cosines[row * width + pair] = angles.cosines[place * width + pair]
                                sines[row * width + pair] = angles.sines[place * width + pair]
                            }
                        }
                        unsafe outputs.withUnsafeMutableBufferPointer { outputs in
                            unsafe kernels.rotate_pairs(
                                outputs.baseAddress.map { unsafe $0 + run.channel },
                                count,
                                channels,
                                width,
                                cosines,
                                sines,
                                false
                            )
                        }
                    }
                    let wanted = target.places[run.layer - target.group.lowerBound]
                    for row in 0..<count {
                        let place = rows.places[first + row]
                        guard wanted.contains(place) else { continue }
                        unsafe target.withRow(
                            layer: run.layer,
                            part: run.part,
                            head: run.head,
                            place: place,
                            dimension: run.dimension
                        ) { destination in
                            unsafe outputs.withUnsafeBufferPointer { outputs in
                                unsafe kernels.add_means(
                                    outputs.baseAddress.map { unsafe $0 + row * channels + run.channel },
                                    1,
                                    run.dimension,
                                    zeros,
                                    tck_mutable_rows(
                                        bytes: destination,
                                        token_stride: run.dimension * target.elementType.byteCount,
                                        type: target.elementType.kernelType
                                    )
                                )
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Where the heads of a unit's layers lie in its vector.
struct UnitRows: Sendable {
    struct Run: Sendable {
        let layer: Int
        let part: CachePart
        let head: Int
        let dimension: Int
        /// The first channel of the vector.
        let channel: Int
    }

    let runs: [Run]

    init(unit: ArchiveUnit, geometry: CacheGeometry) {
        var runs: [Run] = []
        var channel = 0
        for layer in unit.layers {
            for part in unit.parts {
                let dimension = geometry.layers[layer].dimension(part)
                for head in unit.heads where dimension > 0 {
                    runs.append(Run(layer: layer, part: part, head: head, dimension: dimension, channel: channel))
                    channel += dimension
                }
            }
        }
        self.runs = runs
    }
}

extension CacheArchive {
    /// Checks what can be known of a unit's record without the model's profile: that its numbers can be decoded.
    ///
    /// - Throws: `ArchiveError` if they can't; `MemoryError`.
    package func checkRecord(unit index: Int, chunk: Int) throws {
        let unit = plan.units[index]
        _ = try ArchiveRecord.decode(
            chunks[chunk][1 + index],
            componentCount: unit.componentCount,
            rows: rows(of: unit.unit, chunk: chunk)
        )
    }

    /// The rows of a unit in a chunk.
    func rows(of unit: ArchiveUnit, chunk: Int) -> ArchiveRows {
        let places = ArchiveChunks.places(of: chunk, blockEnd: blockEnd)
        return ArchiveRows(
            shifts: ShiftBytes.decode(chunks[chunk][0], places: places.count),
            chunk: places,
            places: codedPlaces(of: unit, chunk: chunk)
        )
    }

    /// The places of a unit's rows in a chunk; its layers have the same.
    func codedPlaces(of unit: ArchiveUnit, chunk: Int) -> Range<Int> {
        layers[unit.layers.lowerBound].codedPlaces
            .clamped(to: ArchiveChunks.places(of: chunk, blockEnd: blockEnd))
    }
}
