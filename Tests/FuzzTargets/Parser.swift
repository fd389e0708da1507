import EvaluationReports
import Foundation
import KVCacheEvaluation
import LlamaDecoder
import TestSupport
import TextTokenization
import ThinkCompress

/// Parses input and uses what comes out, as the command would.
///
/// Mutated and guided inputs and the cases that failed once all come this way.
public final class Parser: Sendable {
    /// How an input ended, both as it should be.
    public enum Outcome: Sendable {
        /// An error of the library's own.
        case refused
        /// A value, and nothing that was done with it trapped.
        case used
    }

    /// An error that isn't one of the library's own, or a result that contradicts itself.
    public struct Fault: Error, CustomStringConvertible {
        public let description: String
    }

    let target: ParserTarget
    private let folder: TemporaryFolder
    private let tokenizers: [Tokenizer]
    private let measurement: ProfileMeasurement?
    private let workers = WorkerThreads(threadCount: 1)

    /// - Throws: what keeps the files beside the input from being made.
    public init(_ target: ParserTarget) throws {
        self.target = target
        folder = try TemporaryFolder()
        tokenizers = target == .text ? try Corpus.tokenizers.map { try Tokenizer(path: $0) } : []
        measurement = target == .profileJournal ? try Corpus.profileMeasurement() : nil
        if target.modelFile != nil { try Corpus.writeModel(for: target, to: folder.path) }
    }

    /// - Throws: `Fault`.
    @discardableResult
    public func parse(_ bytes: [UInt8]) async throws(Fault) -> Outcome {
        do {
            try await use(bytes)
            return .used
        } catch let fault as Fault {
            throw fault
        } catch {
            guard Self.isOwn(error) else { throw Fault(description: "\(type(of: error)): \(error)") }
            return .refused
        }
    }

    private static func isOwn(_ error: any Error) -> Bool {
        switch error {
        case is SnapshotError, is CodecError, is EngineFormatError, is TokenizerError, is ModelError, is FileError,
            is EvaluationError, is RecipeError, is KVCacheError, is MemoryError, is ArchiveError:
            true
        default: false
        }
    }

    private func use(_ bytes: [UInt8]) async throws {
        switch target {
        case .snapshot: try await useSnapshot(bytes)
        case .dump: try await useDump(bytes)
        case .profile:
            let file = try SafetensorsFile(SharedBytes(bytes))
            _ = try ModelProfile.geometry(of: file)
            _ = try ModelProfile.read(file, metadata: [:], geometry: Corpus.cache().geometry)
        case .tokenizer: try use(Tokenizer(SharedBytes(bytes)), text: Corpus.text, tokens: Array(-1..<64))
        case .text: try useText(bytes)
        case .gguf: try await useGGUF(bytes)
        case .journal: try useJournal(bytes)
        case .profileJournal: try await useProfileJournal(bytes)
        case .recipe: try await useRecipe(bytes)
        case .configuration, .generation, .tokenizerSettings, .weightIndex, .weights: try await useModel(bytes)
        }
    }

    private func useSnapshot(_ bytes: [UInt8]) async throws {
        var file = SnapshotSurgery(bytes)
        file.mendChecksums()
        let reader = try SnapshotReader(file.shared)
        // `inspect` makes it of files that nobody has verified.
        try check(reader.summary)
        try await reader.verify()
        if reader.isArchive { return try await useArchive(reader) }
        let cache = try await reader.cache(verifyingPages: true)
        for layer in cache.layers { try attend(layer) }
        var written = SnapshotBytes()
        let size = try await SnapshotWriter().write(cache, quality: reader.quality, into: &written)
        try check(SnapshotSummary(cache, quality: reader.quality, size: size))
        let again = try await SnapshotReader(SharedBytes(written.bytes)).cache()
        if let difference = CacheContent(again).difference(from: CacheContent(cache)) {
            throw Fault(description: "written and read again: \(difference)")
        }
        var rows = [Int](repeating: 0, count: cache.layers.count)
        try await reader.layers().forEachPiece { piece in
            // Numbers that float16 can't say are an error that comes last.
            (
                piece.layer.index, piece.rows,
                Result { try piece.layer.checkRange(rows: 0..<piece.rows.count, as: .float16) }
            )
        } take: { index, taken, result in
            guard taken.lowerBound == rows[index] else {
                throw Fault(description: "rows \(taken) of layer \(index) come after \(rows[index])")
            }
            rows[index] = taken.upperBound
            if case .failure(let error) = result, !Self.isOwn(error) { throw error }
        }
        guard rows == cache.layers.map(\.rowCount) else { throw Fault(description: "pieces have \(rows) rows") }
    }

    /// Restores an archive whose every byte was checked, and packs it.
    private func useArchive(_ reader: SnapshotReader) async throws {
        let archive = try await reader.archive()
        var written = SnapshotBytes()
        try SnapshotWriter().write(archive, quality: reader.quality, into: &written)
        let again = try await SnapshotReader(SharedBytes(written.bytes)).archive()
        guard again.plan == archive.plan, again.chunkByteCount == archive.chunkByteCount else {
            throw Fault(description: "an archive that is written has another plan")
        }
        let profiles = Corpus.profiles.map {
            try? ModelProfile.read($0, metadata: [:], geometry: reader.geometry)
        }
        var restored = false
        for profile in [nil] + profiles {
            let bases = profile.flatMap { ArchiveBases($0) }
            guard let restoration = try? ArchiveRestoration(archive, bases: bases) else { continue }
            for group in restoration.layerGroups {
                let layers = try await restoration.layers(group, as: .float16)
                for (layer, index) in zip(layers, group)
                where layer.keys.tokens != archive.layers[index].extent.rowCount && !layer.isEmpty {
                    throw Fault(description: "\(layer.keys.tokens) rows of layer \(index) restored")
                }
            }
            restored = true
        }
        // Without a profile that restores it there is nothing more.
        guard restored, archive.plan.basisDigest == nil else { return }
        let recipe = try Recipe("kivi(bits=2,residual=32)")
        let cache = try await CompressedCache(restoring: archive, profile: nil, recipe: recipe)
        for layer in cache.layers { try attend(layer) }
    }

    /// Makes every figure of a summary.
    private func check(_ summary: SnapshotSummary) throws {
        let figures = [
            Double(summary.valueCount), Double(summary.float16ByteCount), summary.ratio, summary.bitsPerValue ?? 0,
            summary.blockBitsPerValue ?? 0,
        ]
        guard figures.allSatisfy({ $0.isFinite && $0 >= 0 }) else { throw Fault(description: "figures \(figures)") }
    }

    /// Decompresses a layer and attends over it; what has passed every check must have both.
    private func attend(_ layer: CompressedLayer) throws {
        let restored = try layer.decompress(rows: 0..<layer.rowCount, as: .float32)
        guard restored.keys.tokens == layer.rowCount else {
            throw Fault(description: "\(restored.keys.tokens) of \(layer.rowCount) rows restored")
        }
        let geometry = layer.geometry
        guard geometry.valueDimension > 0 else { return }
        let queries = KVTensor(
            [Float](repeating: 1, count: geometry.kvHeads * geometry.keyDimension),
            elementType: .float32,
            heads: geometry.kvHeads,
            headDimension: geometry.keyDimension
        )
        var output = [Float](repeating: 1, count: geometry.kvHeads * geometry.valueDimension)
        var span = output.mutableSpan
        try Attention().attend(queries, over: layer, using: workers, into: &span)
    }

    private func useDump(_ bytes: [UInt8]) async throws {
        let cache = try CacheDump.read(SafetensorsFile(SharedBytes(bytes)))
        let hasQueries = cache.layers.allSatisfy { $0.queries != nil || $0.profile != nil }
        let recipe = try Recipe(hasQueries ? "think(keys=0.5)+kivi(bits=2,residual=32)" : "kivi(bits=2,residual=32)")
        let compressed = try await CompressedCache(compressing: cache, recipe: recipe)
        for layer in compressed.layers { try attend(layer) }
    }

    private func use(_ tokenizer: Tokenizer, text: String, tokens: [Int32]) throws {
        let encoded = try tokenizer.encode(text)
        let whole = tokenizer.decode(encoded + tokens)
        var stream = tokenizer.makeTextStream()
        var pieces = ""
        for token in encoded + tokens { pieces += stream.append(token) }
        pieces += stream.finish()
        guard pieces == whole else { throw Fault(description: "a stream decodes '\(pieces)', not '\(whole)'") }
    }

    private func useText(_ bytes: [UInt8]) throws {
        let tokenizer = tokenizers[Int(bytes.first ?? 0) % tokenizers.count]
        let tokens = bytes.enumerated().map { index, byte in
            index % 61 == 60 ? Int32(truncatingIfNeeded: 0x0101_0101 &* Int(byte)) : Int32(byte) * Int32(index % 5)
        }
        try use(tokenizer, text: String(decoding: bytes.dropFirst(), as: UTF8.self), tokens: tokens)
    }

    private func useJournal(_ bytes: [UInt8]) throws {
        let path = folder.file("journal.jsonl")
        try Data(bytes).write(to: URL(filePath: path))
        let journal = try EvaluationJournal(path: path, subject: Corpus.subject)
        let report = EvaluationReport(journal, recipes: ["f16"], tasks: [])
        guard report.html.utf8.count > 0 else { throw Fault(description: "a page of no bytes") }
    }

    private func useProfileJournal(_ bytes: [UInt8]) async throws {
        let path = folder.file("profile.journal")
        try Data(bytes).write(to: URL(filePath: path))
        let journal = try ProfileJournal(path: path, settings: Corpus.profileSettings)
        for layer in try await measurement?.measure(journal: journal) ?? [] {
            guard layer.meanSquaredQueries.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
                throw Fault(description: "mean squared queries \(layer.meanSquaredQueries)")
            }
        }
    }

    private func useRecipe(_ bytes: [UInt8]) async throws {
        let recipe = try Recipe(String(decoding: bytes, as: UTF8.self))
        guard try Recipe(recipe.description) == recipe else { throw Fault(description: "\(recipe) reads as another") }
        if recipe.archive != nil {
            let archive = try await CacheArchive(archiving: Corpus.cache(), recipe: recipe)
            var written = SnapshotBytes()
            try SnapshotWriter().write(archive, into: &written)
            return try await useSnapshot(written.bytes)
        }
        let compressed = try await CompressedCache(compressing: Corpus.cache(), recipe: recipe)
        for layer in compressed.layers { try attend(layer) }
    }

    private func useGGUF(_ bytes: [UInt8]) async throws {
        let file = try GGUFFile(SharedBytes(bytes))
        for entry in file.metadata.entries { use(entry.value) }
        for name in file.tensors.names { _ = try file.tensors[name]?.weights().bytes.data }
        // A new file each time: models map their files.
        let path = folder.file("model.gguf")
        try? FileManager.default.removeItem(atPath: path)
        try Data(bytes).write(to: URL(filePath: path))
        try await compute(LlamaModel(path: path))
    }

    private func use(_ value: GGUFValue) {
        _ = (try? value.int(), try? value.double(), try? value.bool(), try? value.text())
        if let elements = try? value.elements() { for element in elements { use(element) } }
    }

    private func compute(_ model: LlamaModel) async throws {
        let tokens = try model.tokens(of: "ab")
        _ = try await TransformerDecoder(model: model, threadCount: 1).logits(tokens)
    }

    private func useModel(_ bytes: [UInt8]) async throws {
        guard let name = target.modelFile else { return }
        // A new file each time: models map their files.
        let path = folder.file(name)
        try? FileManager.default.removeItem(atPath: path)
        try Data(bytes).write(to: URL(filePath: path))
        try await compute(LlamaModel(path: folder.path))
    }
}
