public import ByteStorage
public import CachePacking
internal import ComputeRuntime
public import KVCacheCodecs
internal import KVCacheModel

/// A snapshot in a file or in memory, checked as far as it has been used.
///
/// Opening checks header, section table, and the sections that tell what the cache is; pages are checked when they
/// are verified or handed out. Source: Formats/snapshot.md, "Reading".
public struct SnapshotReader: Sendable {
    /// The cache's shape.
    public let header: SnapshotHeader
    public let metadata: [String: String]
    public let recipe: Recipe
    /// The plan of each layer and KV head.
    public let plans: [[HeadPlan]]
    /// What compression cost when the file was made, if it was measured.
    public let quality: CompressionQuality?
    let file: ByteSource
    let table: SectionTable

    /// How the bytes of a file are had.
    public enum Access: Sendable {
        /// Pages are used where they lie in the mapped file, and only those that are touched are read. That assumes that
        /// nobody overwrites the file in place: see `MappedFile`.
        case mapped
        /// Every section and slab is read into memory of its own, checked there and decoded from there, so that what is
        /// handed on is what was checked, whatever happens to the file meanwhile.
        case reading
    }

    /// Opens the file at `path`.
    ///
    /// - Throws: `FileError` if it can't be read, `SnapshotError` if it isn't a snapshot that this version reads.
    public init(path: String, access: Access = .mapped, registry: CodecRegistry) throws {
        switch access {
        case .mapped: try self.init(.memory(MappedFile.bytes(path: path)), registry: registry)
        case .reading: try self.init(.file(FileReader(path: path)), registry: registry)
        }
    }

    /// Opens a snapshot in memory.
    ///
    /// - Throws: `SnapshotError` if it isn't a snapshot that this version reads.
    public init(_ bytes: SharedBytes, registry: CodecRegistry) throws {
        try self.init(.memory(bytes), registry: registry)
    }

    private init(_ file: ByteSource, registry: CodecRegistry) throws {
        let front = try file.bytes(0..<min(file.count, SnapshotFormat.maximumFrontBytes))
        let sectionCount = try SnapshotHeader.checkPreamble(of: front, fileLength: file.count)
        header = try SnapshotHeader(decoding: front)
        table = try SectionTable(
            decoding: front,
            sectionCount: sectionCount,
            header: header,
            fileLength: file.count
        )
        self.file = file
        let sections = SectionSource(file: file, table: table)
        if var reader = try sections.reader(.metadata, code: .invalidMetadata) {
            metadata = try MetadataSection.decode(&reader)
        } else {
            metadata = [:]
        }
        var recipeReader = try sections.requiredReader(.recipe, code: .invalidRecipe)
        recipe = try RecipeSection.decode(&recipeReader, registry: registry)
        var planReader = try sections.requiredReader(.plan, code: .invalidPlan)
        plans = try PlanSection.decode(&planReader, header: header)
        try Self.checkPagesLength(table, header: header, plans: plans)
        if var reader = try sections.reader(.quality, code: .invalidQuality) {
            quality = try QualitySection.decode(&reader, layers: header.geometry.layers)
        } else {
            quality = nil
        }
    }

    /// The sections in the order of the file.
    public var sections: [SectionEntry] { table.entries }

    /// Bytes of the whole file.
    public var fileByteCount: Int { file.count }

    /// Bytes that hold keys and values and tell how to read them, as stored: plan, pages, page table and window.
    public var payloadByteCount: Int { SnapshotSize(table.entries, fileBytes: file.count).payloadBytes }

    /// Numbers of the cache, keys and values together.
    private var valueCount: Int { header.geometry.valueCount(tokens: header.tokenCount) }

    /// Bits of payload per number of the cache.
    public var bitsPerValue: Double { Double(payloadByteCount) * 8 / Double(valueCount) }

    /// Bits per number of the tokens in blocks, without window; nil if there are none.
    public var blockBitsPerValue: Double? {
        guard let pages = table[.pages] else { return nil }
        return Double(pages.storedLength) * 8 / Double(header.geometry.valueCount(tokens: header.blockTokenCount))
    }

    /// How many times smaller the whole file is than the cache's numbers in float16.
    public var ratio: Double { Double(valueCount * 2) / Double(fileByteCount) }

    var source: SectionSource { SectionSource(file: file, table: table) }

    private static func checkPagesLength(
        _ table: SectionTable,
        header: SnapshotHeader,
        plans: [[HeadPlan]]
    ) throws(SnapshotError) {
        guard let entry = table[.pages] else { return }
        let directory = SlabDirectory(header: header, plans: plans)
        let length = SnapshotFormat.product([header.blockCount, directory.blockBytesOfAllLayers])
        guard entry.length == length else {
            throw SnapshotError(
                .invalidSectionTable,
                at: entry.entryOffset,
                "the section pages has \(entry.length) bytes and must have \(length.map(String.init) ?? "too many")"
            )
        }
    }
}

/// Reads sections of a file after checking their checksums.
struct SectionSource {
    let file: ByteSource
    let table: SectionTable

    func requiredReader(_ kind: SectionKind, code: SnapshotError.Code) throws -> ByteReader {
        guard let reader = try reader(kind, code: code) else {
            preconditionFailure("the section table has been checked for required sections")
        }
        return reader
    }

    /// A reader of a section's content, or nil if there is no such section.
    func reader(_ kind: SectionKind, code: SnapshotError.Code) throws -> ByteReader? {
        guard let entry = table[kind], let bytes = try content(kind) else { return nil }
        return ByteReader(bytes, origin: entry.offset, isDecoded: entry.encoding == .zstd, code: code)
    }

    /// A section's content: in place if raw, decoded otherwise.
    func content(_ kind: SectionKind) throws -> SharedBytes? {
        guard let entry = table[kind] else { return nil }
        let stored = try checkedBytes(of: entry)
        guard entry.encoding == .zstd else { return stored }
        return try Zstandard.decompress(stored, byteCount: entry.length, offset: entry.offset)
    }

    /// The stored bytes of a section, which have their checksum.
    func checkedBytes(of entry: SectionEntry) throws -> SharedBytes {
        let stored = try file.bytes(entry.range)
        guard Kernels.checksum(stored.span) == entry.checksum else {
            throw SnapshotError(
                .checksumMismatch,
                at: entry.offset,
                "section \(entry.kind?.name ?? String(entry.kindNumber)), bytes \(entry.range), does not have its checksum"
            )
        }
        return stored
    }
}
