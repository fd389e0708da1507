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
    private let memory = RecycledBuffers()

    /// - Parameter bases: those of the model's profile that the archive was made by; not looked at where it was made
    ///   without.
    /// - Throws: `ArchiveError` if they are missing or others.
    public init(_ archive: CacheArchive, bases: ArchiveBases?) throws(ArchiveError) {
        self.archive = archive
        if let digest = archive.plan.basisDigest {
            guard let bases else {
                throw ArchiveError(
                    .otherProfile,
                    "the archive was made by a profile with the bases \(Self.name(digest)), and none with bases is given; pass "
                        + "that profile"
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
    /// What was returned last is kept as long as the restoration, and its memory used again if the caller holds it no
    /// longer.
    ///
    /// - Parameters:
    ///   - group: one of `layerGroups`.
    ///   - tokens: the first tokens that are wanted, nil for all; only of a cache that may be cut.
    ///   - elementType: the type to restore to.
    ///   - threads: units of chunks that are decoded at the same time; nil for as many as there are processors.
    /// - Returns: keys and values in memory of their own, and the layers' state if all tokens are wanted.
    /// - Throws: `ArchiveError` if a chunk is damaged; `CodecError` if there is no memory; `CancellationError`.
    public func layers(
        _ group: Range<Int>,
        tokens: Int? = nil,
        as elementType: ElementType,
        threads: Int? = nil
    ) async throws -> [KVCacheLayer] {
        let count = tokens ?? archive.tokenCount
        let rows = group.map { layer in
            let extent = archive.layers[layer].extent
            return extent.first..<max(min(extent.end, count), extent.first)
        }
        let byteCounts = zip(group, rows).flatMap { layer, rows in
            let geometry = archive.geometry.layers[layer]
            return CachePart.allCases.map { part in
                geometry.kvHeads * rows.count * geometry.dimension(part) * elementType.byteCount
            }
        }
        // Units have every KV head, and what follows writes every row.
        let all = unsafe try memory.buffers(uninitializedByteCounts: byteCounts)
        let parts = CachePart.allCases.count
        let buffers = (0..<group.count).map { index in Array(all[parts * index..<parts * (index + 1)]) }
        let target = Target(group: group, places: rows, elementType: elementType, buffers: buffers)
        for layer in group { restoreExactRows(layer, into: target) }
        let lastPlace = rows.reduce(0) { max($0, $1.upperBound) }
        let chunkCount = ArchiveChunks.count(blockEnd: min(archive.blockEnd, lastPlace))
        let units = archive.plan.units.indices.filter { archive.plan.units[$0].unit.layers.overlaps(group) }
        let groups = groups(of: units, jobs: chunkCount * units.count / (threads ?? SystemThread.processorCount))
        try await forEachConcurrently(count: chunkCount * groups.count, atOnce: threads) { job in
            let (chunk, index) = job.quotientAndRemainder(dividingBy: groups.count)
            try restore(units: groups[index], chunk: chunk, into: target)
        }
        memory.keep(all)
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
                let window = windowStart..<max(windowStart, places.upperBound)
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

    /// Units whose records are decoded side by side at the most, and components of them together: what is decoded shall
    /// stay in the processor's caches.
    private static let unitsAtOnce = 4
    private static let componentsAtOnce = 2048

    /// Units in groups that are decoded together: of the same rows, and no more than leave every thread something.
    ///
    /// - Parameter jobs: chunks of units that each thread will have.
    private func groups(of units: [Int], jobs: Int) -> [[Int]] {
        var groups: [[Int]] = []
        let most = min(Self.unitsAtOnce, max(jobs, 1))
        var components = 0
        for index in units {
            let unit = archive.plan.units[index]
            components += unit.componentCount
            if let last = groups.last, last.count < most, components <= Self.componentsAtOnce,
                archive.codedPlaces(of: archive.plan.units[last[0]].unit) == archive.codedPlaces(of: unit.unit)
            {
                groups[groups.count - 1].append(index)
            } else {
                groups.append([index])
                components = unit.componentCount
            }
        }
        return groups
    }

    private func restore(units: [Int], chunk: Int, into target: Target) throws {
        let rows = archive.rows(of: archive.plan.units[units[0]].unit, chunk: chunk)
        guard rows.count > 0 else { return }
        let codes = try ArchiveRecord.decode(units.map { archive.record(unit: $0, chunk: chunk) }, rows: rows)
        for (unit, codes) in zip(units, codes) {
            restore(unit: unit, codes: codes, rows: rows, chunk: chunk, into: target)
        }
    }

    private func restore(
        unit index: Int,
        codes: ArchiveRecord.Codes,
        rows: ArchiveRows,
        chunk: Int,
        into target: Target
    ) {
        let unit = archive.plan.units[index]
        let chunkPlaces = ArchiveChunks.places(of: chunk, blockEnd: archive.blockEnd)
        let restored = UnitRows(unit: unit.unit, geometry: archive.geometry)
        let transform = transforms[index]
        let (kernels, tile, channels) = unsafe (Kernels.bestPointer, Self.tileRows, transform.channelCount)
        let stride = ArchiveRecord.padded(rows.count)
        let matrix = transform.restoring(codes.components)
        // Places count from the chunk's first; rows that aren't wanted lie after those that are.
        let places = rows.places.map { UInt32($0 - chunkPlaces.lowerBound) }
        let steps = rows.shifts.map { archive.plan.step / Float(1 << $0) }
        let heads = restored.runs.map { Head($0, archive: archive, rotary: rotary, chunk: chunk, target: target) }
        var numbers = [Float](repeating: 0, count: codes.denseCount * tile)
        var sums = [Float](repeating: 0, count: tile * channels)
        unsafe sums.withUnsafeMutableBufferPointer { sums in
            guard let sums = sums.baseAddress else { return }
            for first in Swift.stride(from: 0, to: rows.count, by: tile) {
                let tileRows = first..<min(first + tile, rows.count)
                if transform.isDiagonal {
                    unsafe scale(codes, rows: tileRows, stride: stride, by: matrix, channels: channels, into: sums)
                } else {
                    unsafe addUp(codes, rows: tileRows, stride: stride, matrix, channels, &numbers, into: sums)
                }
                unsafe steps.withUnsafeBufferPointer { steps in
                    unsafe places.withUnsafeBufferPointer { places in
                        guard let steps = steps.baseAddress, let places = places.baseAddress else { return }
                        for head in heads {
                            unsafe head.store(
                                sums,
                                stride: channels,
                                steps: steps + first,
                                places: places + first,
                                means: unit.means,
                                count: tileRows.count,
                                kernels: kernels
                            )
                        }
                    }
                }
            }
        }
    }

    /// The channels of a tile of rows, where each component is a channel.
    private func scale(
        _ codes: ArchiveRecord.Codes,
        rows: Range<Int>,
        stride: Int,
        by factors: [Float],
        channels: Int,
        into sums: UnsafeMutablePointer<Float>
    ) {
        unsafe sums.update(repeating: 0, count: rows.count * channels)
        unsafe codes.numbers.withUnsafeMutableBytes { bytes in
            let all = unsafe bytes.bindMemory(to: Int16.self)
            for (column, component) in codes.components.enumerated() {
                for row in rows {
                    unsafe sums[(row - rows.lowerBound) * channels + component] =
                        Float(all[column * stride + row]) * factors[column]
                }
            }
        }
    }

    /// The channels of a tile of rows as sums over components.
    ///
    /// - Parameter numbers: memory for a tile of the dense components.
    private func addUp(
        _ codes: ArchiveRecord.Codes,
        rows: Range<Int>,
        stride: Int,
        _ matrix: [Float],
        _ channels: Int,
        _ numbers: inout [Float],
        into sums: UnsafeMutablePointer<Float>
    ) {
        let (kernels, tile, dense) = unsafe (Kernels.bestPointer, Self.tileRows, codes.denseCount)
        unsafe codes.numbers.withUnsafeMutableBytes { bytes in
            guard let all = unsafe bytes.bindMemory(to: Int16.self).baseAddress else {
                return unsafe sums.update(repeating: 0, count: rows.count * channels)
            }
            unsafe numbers.withUnsafeMutableBufferPointer { numbers in
                for component in 0..<dense {
                    guard let numbers = numbers.baseAddress else { break }
                    let codes = unsafe all + component * stride + rows.lowerBound
                    unsafe kernels.pointee.widen_codes(codes, rows.count, 1, numbers + component * tile)
                }
                unsafe matrix.withUnsafeBufferPointer { matrix in
                    unsafe kernels.pointee.multiply_in_order(
                        numbers.baseAddress,
                        1,
                        tile,
                        rows.count,
                        matrix.baseAddress,
                        channels,
                        dense,
                        channels,
                        sums,
                        channels
                    )
                    unsafe kernels.pointee.add_sparse_products(
                        all + dense * stride + rows.lowerBound,
                        stride,
                        rows.count,
                        matrix.baseAddress.map { unsafe $0 + dense * channels },
                        channels,
                        codes.components.count - dense,
                        channels,
                        sums,
                        channels
                    )
                }
            }
        }
    }

    /// Where the rows of a unit's head in a chunk go.
    @safe
    private struct Head {
        let run: UnitRows.Run
        /// The angles of the chunk's places; nil for values, and for keys that aren't turned.
        let angles: RotaryAngles?
        /// Places of the chunk whose rows are wanted: the first ones.
        let placeCount: Int
        /// The row of the chunk's first place, which may lie before those that there are.
        let destination: tck_mutable_rows

        init(_ run: UnitRows.Run, archive: CacheArchive, rotary: RotaryTables, chunk: Int, target: Target) {
            self.run = run
            let places = ArchiveChunks.places(of: chunk, blockEnd: archive.blockEnd)
            let frequencies = run.part == .keys ? archive.plan.rotaryFrequencies[run.layer] : []
            angles = frequencies.isEmpty ? nil : rotary.angles(frequencies, chunk: chunk, places: places)
            let index = run.layer - target.group.lowerBound
            let wanted = target.places[index]
            placeCount = min(max(wanted.upperBound - places.lowerBound, 0), places.count)
            let rowBytes = run.dimension * target.elementType.byteCount
            let row = run.head * wanted.count + places.lowerBound - wanted.lowerBound
            unsafe destination = unsafe target.buffers[index][run.part == .keys ? 0 : 1].withUnsafeMutableBytes {
                bytes in
                unsafe tck_mutable_rows(
                    bytes: bytes.baseAddress.map { unsafe $0 + row * rowBytes },
                    token_stride: rowBytes,
                    type: target.elementType.kernelType
                )
            }
        }

        func store(
            _ sums: UnsafePointer<Float>,
            stride: Int,
            steps: UnsafePointer<Float>,
            places: UnsafePointer<UInt32>,
            means: [Float],
            count: Int,
            kernels: UnsafePointer<tck_kernels>
        ) {
            unsafe means.withUnsafeBufferPointer { means in
                unsafe (angles?.cosines ?? []).withUnsafeBufferPointer { cosines in
                    unsafe (angles?.sines ?? []).withUnsafeBufferPointer { sines in
                        var restored = unsafe tck_restored_rows(
                            sums: sums + run.channel,
                            sum_stride: stride,
                            dimension: run.dimension,
                            steps: steps,
                            means: means.baseAddress.map { unsafe $0 + run.channel },
                            places: places,
                            place_count: placeCount,
                            pairs: angles?.pairs ?? 0,
                            cosines: cosines.baseAddress,
                            sines: sines.baseAddress,
                            destination: destination
                        )
                        unsafe tck_store_restored_rows(kernels, &restored, count)
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
        let rows = rows(of: plan.units[index].unit, chunk: chunk)
        _ = try ArchiveRecord.decode([record(unit: index, chunk: chunk)], rows: rows)
    }

    /// A unit's record in a chunk.
    func record(unit index: Int, chunk: Int) -> ArchiveRecord.Source {
        ArchiveRecord.Source(
            bytes: chunks[chunk][1 + index],
            componentCount: plan.units[index].componentCount,
            chunk: chunk,
            unit: index
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
        codedPlaces(of: unit).clamped(to: ArchiveChunks.places(of: chunk, blockEnd: blockEnd))
    }

    /// The places of a unit's rows in all chunks.
    func codedPlaces(of unit: ArchiveUnit) -> Range<Int> { layers[unit.layers.lowerBound].codedPlaces }
}
