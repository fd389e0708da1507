public import ByteStorage
public import CacheArchives
public import CachePacking
internal import ComputeRuntime
public import KVCacheModel

/// A snapshot in a file or in memory, checked as far as it has been used.
///
/// Opening checks header, section table, and the sections that tell what the cache is; pages are checked when they
/// are verified or handed out. Source: Formats/snapshot.md, "Reading".
public struct SnapshotReader: Sendable {
    /// What all layers share.
    public let header: SnapshotHeader
    public let metadata: [String: String]
    /// How the plans were made, for people and for making more caches of the same kind; nil if nobody said.
    public let recipe: RecipeRecord?
    /// The shape of the cache.
    public let geometry: CacheGeometry
    /// Each layer's shape, and which rows it has where.
    public let layerOutlines: [LayerOutline]
    /// The plan of each layer; none of an archive.
    public let plans: [LayerPlan]
    /// How an archive's chunks are read; nil if the snapshot is none.
    public let archivePlan: ArchivePlan?
    /// What compression cost when the file was made, if it was measured.
    public let quality: CompressionQuality?
    let file: ByteSource
    let slabs: SlabDirectory
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
    public init(path: String, access: Access = .mapped) throws {
        switch access {
        case .mapped: try self.init(.memory(MappedFile.bytes(path: path)))
        case .reading: try self.init(.file(FileReader(path: path)))
        }
    }

    /// Opens a snapshot in memory.
    ///
    /// - Throws: `SnapshotError` if it isn't a snapshot that this version reads.
    public init(_ bytes: SharedBytes) throws {
        try self.init(.memory(bytes))
    }

    private init(_ file: ByteSource) throws {
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
        if var reader = try sections.reader(.recipe, code: .invalidRecipe) {
            recipe = try RecipeSection.decode(&reader)
        } else {
            recipe = nil
        }
        var geometryReader = try sections.requiredReader(.geometry, code: .invalidGeometry)
        layerOutlines = try GeometrySection.decode(&geometryReader, header: header)
        geometry = try CacheGeometry(layerOutlines.map(\.geometry))
        try table.check(header, layers: layerOutlines)
        if var reader = try sections.reader(.archivePlan, code: .invalidArchivePlan) {
            let plan = try ArchivePlanSection.decode(&reader, geometry: geometry)
            try Self.check(plan, layers: layerOutlines, reader: reader)
            archivePlan = plan
            try table[.archiveTable]?.check(length: Self.archiveTableLength(plan, layers: layerOutlines))
        } else {
            archivePlan = nil
        }
        if var reader = try sections.reader(.plan, code: .invalidPlan) {
            plans = try PlanSection.decode(
                &reader,
                bases: try sections.reader(.bases, code: .invalidBases),
                layers: layerOutlines
            )
        } else if archivePlan != nil {
            plans = []
        } else {
            plans = layerOutlines.map { LayerPlan(geometry: $0.geometry, heads: []) }
        }
        slabs = SlabDirectory(layers: archivePlan == nil ? layerOutlines : [], plans: plans, shape: header.shape)
        try table[.pages]?.check(length: slabs.byteCount)
        if var reader = try sections.reader(.quality, code: .invalidQuality) {
            quality = try QualitySection.decode(&reader, layers: header.layerCount)
        } else {
            quality = nil
        }
    }

    /// The sections in the order of the file.
    public var sections: [SectionEntry] { table.entries }

    /// Bytes of the whole file.
    public var fileByteCount: Int { file.count }

    var source: SectionSource { SectionSource(file: file, table: table) }
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
        return ByteReader(bytes, origin: entry.offset, isDecoded: entry.coding != .raw, code: code)
    }

    /// A section's content: in place if raw, decoded otherwise.
    func content(_ kind: SectionKind) throws -> SharedBytes? {
        guard let entry = table[kind] else { return nil }
        let stored = try checkedBytes(of: entry)
        return try entry.coding.decode(stored, byteCount: entry.length, offset: entry.offset)
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
