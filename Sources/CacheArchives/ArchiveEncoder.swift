internal import ByteStorage
internal import CThinkKernels
public import CachePacking
public import ComputeRuntime
public import KVCacheModel

/// Codes a cache as an archive, by any step.
public struct ArchiveEncoder: Sendable {
    /// What units an archive has.
    public enum Units: Sendable {
        /// The profile's, by its bases.
        case profile(ArchiveBases)
        /// Those of each KV head of a layer, keys and values apart, without a basis: with the weights of their channels, by
        /// layer and part `[kvHeads][dimension]`.
        case channels(weights: [[CachePart: [Float]]])
    }

    /// The query profile of each layer, if archives are to have it.
    public var queryProfile: [[Float]]?
    private let cache: KVCache
    private let shape: BlockShape
    private let recipe: RecipeRecord?
    let units: [ArchiveUnit]
    let transforms: [ArchiveTransform]
    private let weights: [[Float]?]
    private let digest: [UInt8]?
    private let rotaryFrequencies: [[Float]]
    let gathering: ArchiveGathering
    let shifts: [UInt8]
    private let extents: [LayerExtent]
    private let sinkCounts: [Int]
    /// Of each unit's channels, rounded to float16.
    private let means: [[Float]]
    var blockEnd: Int { gathering.blockEnd }

    /// Prepares to code a cache: checks its numbers and computes transforms and means.
    ///
    /// - Parameters:
    ///   - shape: the cache's element type and what stays in the window.
    ///   - sinks: the first tokens that are kept exactly, in layers that hold all.
    ///   - shifts: how often the step is halved, for each token of the cache.
    /// - Throws: `CodecError` if the cache has a number beyond float16, or lists the tokens it holds; `ArchiveError` if the
    ///   units don't fit it; `CancellationError`.
    public init(
        _ cache: KVCache,
        units: Units,
        shape: BlockShape,
        sinks: Int,
        shifts: [UInt8],
        recipe: RecipeRecord?,
        progress: ProgressHandler? = nil
    ) async throws {
        precondition(shifts.count == cache.tokenCount, "every token has a shift")
        self.cache = cache
        self.shape = shape
        self.shifts = shifts
        self.recipe = recipe
        extents = try cache.layers.enumerated().map { index, layer throws(CodecError) in
            if case .listed = layer.held {
                throw CodecError(
                    .unsupportedPlan,
                    layer: index,
                    "an archive holds all tokens of a layer or the last ones, and this one lists those that it holds; "
                        + "archive the cache before tokens are selected"
                )
            }
            let end = layer.isEmpty ? 0 : cache.tokenCount
            return LayerExtent(
                first: end - layer.keys.tokens,
                end: end,
                blockEnd: layer.isEmpty ? 0 : shape.blockEnd(places: end),
                blockLength: shape.blockLength
            )
        }
        sinkCounts = cache.layers.map { $0.held == .all && !$0.isEmpty ? sinks : 0 }
        switch units {
        case .profile(let bases):
            self.units = bases.units.map(\.unit)
            digest = bases.digest
            rotaryFrequencies = bases.rotaryFrequencies
            weights = bases.units.map { _ in nil }
        case .channels(let given):
            var list: [ArchiveUnit] = []
            var weights: [[Float]?] = []
            for (index, layer) in cache.geometry.layers.enumerated() {
                for part in CachePart.allCases where layer.dimension(part) > 0 {
                    for head in 0..<layer.kvHeads {
                        list.append(
                            ArchiveUnit(
                                layers: index..<index + 1,
                                heads: head..<head + 1,
                                hasKeys: part == .keys,
                                hasValues: part == .values
                            )
                        )
                        let dimension = layer.dimension(part)
                        let numbers = given[index][part] ?? []
                        weights.append(Array(numbers[head * dimension..<(head + 1) * dimension]))
                    }
                }
            }
            self.units = list
            self.weights = weights
            digest = nil
            rotaryFrequencies = cache.geometry.layers.map { _ in [] }
        }
        try ArchivePlan.checkCoverage(self.units, geometry: cache.geometry)
        let positions = cache.positions
        let (extents, sinkCounts) = (extents, sinkCounts)
        gathering = ArchiveGathering(
            cache: cache,
            units: self.units,
            rotaryFrequencies: rotaryFrequencies,
            rotary: RotaryTables { places in
                positions.map { Array($0[places]) } ?? places.map { Int32($0) }
            },
            places: try self.units.enumerated().map { index, unit throws(ArchiveError) in
                let places = unit.layers.map {
                    ArchiveLayer.codedPlaces(extent: extents[$0], sinkCount: sinkCounts[$0])
                }
                guard Set(places).count == 1 else {
                    throw ArchiveError(
                        .unsupportedCache,
                        "unit \(index) of the profile joins layers that hold different tokens; make the profile with "
                            + "--basis layer"
                    )
                }
                return places[0]
            },
            blockEnd: extents.reduce(0) { max($0, $1.blockEnd) }
        )
        let (gathering, sharedWeights) = (gathering, weights)
        let slots = Slots<[Float]>(count: self.units.count)
        let prepared = Slots<ArchiveTransform>(count: self.units.count)
        try cache.checkQuantizable()
        try await forEachConcurrently(count: self.units.count, progress: progress) { index in
            slots[index] = gathering.means(unit: index)
            prepared[index] =
                switch units {
                case .profile(let bases): ArchiveTransform(bases.units[index].basis, isForCoding: true)
                case .channels: ArchiveTransform(weights: sharedWeights[index] ?? [])
                }
        }
        means = slots.values
        transforms = prepared.values
        for (unit, transform) in zip(self.units, transforms) {
            guard unit.channelCount(in: cache.geometry) == transform.channelCount else {
                throw ArchiveError(.unsupportedCache, "the profile's bases are of another shape than the cache")
            }
        }
    }

    /// Checks that every number of a cache is one that archives can hold.
    ///
    /// - Throws: `CodecError` naming the first that isn't.
    public static func checkNumbers(of cache: KVCache) throws(CodecError) { try cache.checkQuantizable() }

    /// About how many bytes an archive takes beside its chunks, and no fewer: what is exact, the window, means, ids, and
    /// what tells how to read it.
    public var uncodedByteCount: Int {
        let elementBytes = shape.elementType.byteCount
        // Header, section table, what lies between sections, and the plan's head.
        var total = 2048 + (recipe?.description.utf8.count ?? 0)
        var former: [Float]?
        for (index, layer) in cache.geometry.layers.enumerated() {
            let extent = extents[index]
            let sinkRows = min(sinkCounts[index], extent.blockEnd)
            // Geometry, errors, means, and the number of frequencies.
            total += 40 + 16 + 2 * layer.valuesPerToken + 2
            total += sinkRows * layer.valuesPerToken * elementBytes
            total += EightBitRows.byteCount(layer, rows: extent.windowRowCount) ?? 0
            if rotaryFrequencies[index] != former { total += 4 * rotaryFrequencies[index].count }
            former = rotaryFrequencies[index]
            for state in cache.layers[index].state { total += state.bytes.count + state.name.utf8.count + 80 }
        }
        total += units.count * 16 + weights.reduce(0) { $0 + 4 * ($1?.count ?? 0) }
        total += queryProfile?.reduce(0) { $0 + 4 * $1.count } ?? 0
        total += cache.tokens.map { 4 * $0.count + $0.count / BlockShape.pageTokens * 32 } ?? 0
        total += cache.positions.map { 4 * $0.count } ?? 0
        total += cache.metadata.reduce(0) { $0 + $1.key.utf8.count + $1.value.utf8.count + 8 }
        return total + ArchiveChunks.count(blockEnd: blockEnd) * (units.count + 1) * 8
    }

    /// Numbers that will be in chunks.
    public var codedValueCount: Int {
        zip(extents, sinkCounts).enumerated().reduce(0) { sum, layer in
            sum + ArchiveLayer.codedPlaces(extent: layer.1.0, sinkCount: layer.1.1).count
                * cache.geometry.layers[layer.0].valuesPerToken
        }
    }

    // MARK: - Components

    /// The numbers of components as whole numbers of steps.
    ///
    /// - Parameter isEstimate: whether numbers that only a finer step makes too large may be bounded: their rows will have
    ///   a coarser one.
    func rounded(
        _ numbers: [Float],
        componentCount: Int,
        rows: ArchiveRows,
        step: Float,
        isEstimate: Bool = false
    ) throws(ArchiveError) -> [Int16] {
        let stride = ArchiveRecord.padded(rows.count)
        var codes = [Int16](repeating: 0, count: numbers.count)
        var isCodable = true
        unsafe codes.withUnsafeMutableBufferPointer { codes in
            unsafe numbers.withUnsafeBufferPointer { numbers in
                guard let codes = codes.baseAddress, let numbers = numbers.baseAddress else { return }
                for component in 0..<componentCount {
                    var start = component * stride
                    for (shift, count) in rows.segments.enumerated() where count > 0 {
                        let inverse = Float(1 << shift) / step
                        isCodable =
                            unsafe Kernels.best.round_to_codes(numbers + start, count, inverse, codes + start)
                            && isCodable
                        start += count
                    }
                }
            }
        }
        guard isCodable else {
            let bounds = Self.mostSteps * step
            if isEstimate, numbers.allSatisfy({ $0.magnitude <= bounds }) {
                return try rounded(
                    bounded(numbers, componentCount: componentCount, rows: rows, step: step),
                    componentCount: componentCount,
                    rows: rows,
                    step: step
                )
            }
            throw Self.tooSmall(step, for: largest(of: numbers, componentCount: componentCount, rows: rows))
        }
        return codes
    }

    private static func tooSmall(_ step: Float, for numbers: [Float]) -> ArchiveError {
        let least = numbers.reduce(0) { max($0, $1) } / mostSteps
        return ArchiveError(
            .stepTooSmall,
            "the step \(step) is too small: a component has more than 32,767 of them; take \(least) or more",
            leastStep: least
        )
    }

    /// Steps that a number can have.
    private static let mostSteps: Float = 32767

    /// Numbers that are no more than can be coded.
    private func bounded(_ numbers: [Float], componentCount: Int, rows: ArchiveRows, step: Float) -> [Float] {
        let stride = ArchiveRecord.padded(rows.count)
        var result = numbers
        for component in 0..<componentCount {
            for (row, shift) in rows.shifts.enumerated() {
                let limit = Self.mostSteps * step / Float(1 << shift)
                let place = component * stride + row
                result[place] = max(min(result[place], limit), -limit)
            }
        }
        return result
    }

    /// Of each row the largest magnitude of its components.
    private func largest(of numbers: [Float], componentCount: Int, rows: ArchiveRows) -> [Float] {
        let stride = ArchiveRecord.padded(rows.count)
        var largest = [Float](repeating: 0, count: rows.count)
        for component in 0..<componentCount {
            for row in largest.indices { largest[row] = max(largest[row], numbers[component * stride + row].magnitude) }
        }
        return largest
    }

    /// The components of rows: `[componentCount][padded rows]`, in the order of the rows.
    func components(unit index: Int, rows: ArchiveRows) -> [Float] {
        let transform = transforms[index]
        let stride = ArchiveRecord.padded(rows.count)
        let channels = gathering.channels(unit: index, rows: rows, means: means[index])
        if transform.isDiagonal {
            return channels.indices.map { channels[$0] * transform.coding[$0 / stride] }
        }
        return unsafe [Float](unsafeUninitializedCapacity: transform.componentCount * stride) { result, count in
            unsafe Kernels.best.multiply_in_order(
                transform.coding,
                1,
                transform.componentCount,
                transform.componentCount,
                channels,
                stride,
                transform.channelCount,
                stride,
                result.baseAddress,
                stride
            )
            count = transform.componentCount * stride
        }
    }

    // MARK: - Encoding

    /// The archive by a step.
    ///
    /// Where a token's finer step is too small for its numbers, it gets as fine a one as they allow.
    ///
    /// - Parameter threads: units of chunks that are coded at the same time; nil for as many as there are processors.
    /// - Throws: `ArchiveError` if the step is out of range, or too small for the numbers; `CodecError` if there is no
    ///   memory; `CancellationError`.
    public func encode(
        step: Float,
        threads: Int? = nil,
        progress: ProgressHandler? = nil
    ) async throws -> CacheArchive {
        do {
            return try await encode(step: step, shifts: shifts, threads: threads, progress: progress)
        } catch let error as ArchiveError where error.code == .stepTooSmall {
            let largest = try await largestNumbers(threads: threads)
            guard largest.allSatisfy({ $0 <= Self.mostSteps * step }) else { throw Self.tooSmall(step, for: largest) }
            let possible = zip(shifts, largest).map { shift, number in
                (0...shift).last { number * Float(1 << $0) <= Self.mostSteps * step } ?? 0
            }
            return try await encode(step: step, shifts: possible, threads: threads, progress: progress)
        }
    }

    /// Of each token the largest magnitude of its components, of all units.
    private func largestNumbers(threads: Int?) async throws -> [Float] {
        let slots = Slots<[Float]>(count: units.count)
        try await forEachConcurrently(count: units.count, atOnce: threads) { index in
            var largest = [Float](repeating: 0, count: shifts.count)
            let places = gathering.places[index]
            for chunk in 0..<ArchiveChunks.count(blockEnd: blockEnd) {
                let chunkPlaces = ArchiveChunks.places(of: chunk, blockEnd: blockEnd)
                let rows = ArchiveRows(
                    shifts: Array(shifts[chunkPlaces]),
                    chunk: chunkPlaces,
                    places: places.clamped(to: chunkPlaces)
                )
                let numbers = self.largest(
                    of: components(unit: index, rows: rows),
                    componentCount: transforms[index].componentCount,
                    rows: rows
                )
                for (place, number) in zip(rows.places, numbers) { largest[place] = number }
            }
            slots[index] = largest
        }
        return slots.values.reduce([Float](repeating: 0, count: shifts.count)) { zip($0, $1).map { max($0, $1) } }
    }

    private func encode(
        step: Float,
        shifts: [UInt8],
        threads: Int?,
        progress: ProgressHandler?
    ) async throws -> CacheArchive {
        let plan = try ArchivePlan(
            step: step,
            rotaryFrequencies: rotaryFrequencies,
            units: units.indices.map { index in
                ArchivePlan.Unit(
                    unit: units[index],
                    basis: weights[index].map { .channels(weights: $0) } ?? .profile,
                    componentCount: transforms[index].componentCount,
                    means: means[index]
                )
            },
            basisDigest: digest,
            geometry: cache.geometry
        )
        let blockEnd = blockEnd
        let chunkCount = ArchiveChunks.count(blockEnd: blockEnd)
        let records = Slots<SharedBytes>(count: chunkCount * units.count)
        try await forEachConcurrently(count: chunkCount * units.count, atOnce: threads, progress: progress) { job in
            let (chunk, index) = job.quotientAndRemainder(dividingBy: units.count)
            let places = ArchiveChunks.places(of: chunk, blockEnd: blockEnd)
            let rows = ArchiveRows(
                shifts: Array(shifts[places]),
                chunk: places,
                places: gathering.places[index].clamped(to: places)
            )
            let numbers = components(unit: index, rows: rows)
            let count = transforms[index].componentCount
            let codes = try rounded(numbers, componentCount: count, rows: rows, step: step)
            var costs = ComponentCosts()
            let stride = ArchiveRecord.padded(rows.count)
            let bytes = unsafe codes.withUnsafeBufferPointer { codes -> [UInt8] in
                guard let base = codes.baseAddress else { return [] }
                let tables = (0..<count).map { component in
                    unsafe costs.best(base + component * stride, segments: rows.segments)?.table
                }
                return unsafe ArchiveRecord.encode(base, tables: tables, rows: rows)
            }
            records[job] = SharedBytes(bytes)
        }
        let values = records.values
        let chunks = (0..<chunkCount).map { chunk in
            let places = ArchiveChunks.places(of: chunk, blockEnd: blockEnd)
            return [SharedBytes(ShiftBytes.encode(shifts[places]))]
                + values[chunk * units.count..<(chunk + 1) * units.count]
        }
        let layers = try cache.layers.enumerated().map { index, layer in
            let extent = extents[index]
            let sinkCount = min(sinkCounts[index], extent.blockEnd)
            return ArchiveLayer(
                geometry: cache.geometry.layers[index],
                held: layer.held,
                extent: extent,
                sinkCount: sinkCounts[index],
                sinks: sinkCount > 0
                    ? KVCacheLayer(
                        keys: layer.keys[tokens: 0..<sinkCount],
                        values: layer.values[tokens: 0..<sinkCount]
                    ) : nil,
                window: try EightBitRows.encode(
                    layer,
                    rows: extent.windowStart - extent.first..<extent.windowStart - extent.first + extent.windowRowCount
                ),
                state: layer.state
            )
        }
        return CacheArchive(
            geometry: cache.geometry,
            shape: shape,
            tokenCount: cache.tokenCount,
            plan: plan,
            recipe: recipe,
            layers: layers,
            chunks: chunks,
            tokens: cache.tokens,
            positions: cache.positions,
            metadata: cache.metadata,
            profile: queryProfile
        )
    }
}

extension KVCache {
    /// Checks that every number is one that float16 has room for.
    ///
    /// - Throws: `CodecError` naming the first that isn't.
    fileprivate func checkQuantizable() throws(CodecError) {
        for (index, layer) in layers.enumerated() {
            for part in CachePart.allCases where layer[part].headDimension > 0 {
                let tensor = layer[part]
                for head in 0..<tensor.heads where !tensor.isQuantizable(head: head) {
                    let name = part == .keys ? "key" : "value"
                    guard
                        let found = UnsupportedValue.first(
                            in: tensor,
                            head: head,
                            name: name,
                            isSupported: Coding.isQuantizable
                        )
                    else { continue }
                    throw found.error(layer: index, token: tokenCount - tensor.tokens + found.row)
                }
            }
        }
    }
}

extension KVTensor {
    fileprivate func isQuantizable(head: Int) -> Bool {
        let zeros = [Float](repeating: 0, count: headDimension)
        let tile = 64
        var scratch = [Float](repeating: 0, count: tile * headDimension)
        return stride(from: 0, to: tokens, by: tile).allSatisfy { row in
            unsafe withRows(head: head, from: row) { rows in
                unsafe Kernels.best.subtract_means(rows, min(tile, tokens - row), headDimension, zeros, &scratch)
            }
        }
    }
}
