import Foundation
import TestSupport
import Testing
import ThinkCompress

/// The bases of profiles in files: Formats/profile.md, "Bases".
@Suite struct ProfileBasesTests {
    /// A layer with a cache, one without, one without values, and one whose keys are wider than its values.
    private static func geometry() throws -> CacheGeometry {
        try CacheGeometry([
            LayerGeometry(kvHeads: 2, keyDimension: 4, valueDimension: 4), .none,
            LayerGeometry(kvHeads: 1, keyDimension: 6, valueDimension: 0),
            LayerGeometry(kvHeads: 2, keyDimension: 4, valueDimension: 3),
        ])
    }

    private static func plain() throws -> [LayerProfile] {
        try geometry().layers.map { shape in
            LayerProfile(meanSquaredQueries: [Float](repeating: 1, count: shape.kvHeads * shape.keyDimension))
        }
    }

    private static func layers() throws -> [LayerProfile] {
        let bases = TestBases.layers(of: try geometry(), seed: 3)
        return zip(try plain(), bases).map { $0.with($1) }
    }

    private static func write(_ layers: [LayerProfile], to path: String) throws {
        try ModelProfile.write(layers, geometry: geometry(), metadata: [:], to: path, replacingExisting: true)
    }

    private static func read(_ file: SafetensorsFile) throws -> [LayerProfile] {
        try ModelProfile.read(file, metadata: [:], geometry: geometry())
    }

    /// The file of `layers` in parts, to be changed.
    private static func builder() throws -> SafetensorsBuilder {
        let folder = try TemporaryFolder()
        try write(layers(), to: folder.file("p"))
        let file = try SafetensorsFile(MappedFile.bytes(path: folder.file("p")))
        return SafetensorsBuilder(
            try file.tensors.names.sorted().map { name in
                let tensor = try #require(file.tensors[name])
                return .init(name, tensor.elementType, tensor.shape, bytes: tensor.bytes.array)
            }
        )
    }

    private static func error(_ builder: SafetensorsBuilder) throws -> EngineFormatError? {
        #expect(throws: EngineFormatError.self) { try read(SafetensorsFile(SharedBytes(builder.file))) }
    }

    @Test func whatIsWrittenIsReadBack() throws {
        let folder = try TemporaryFolder()
        let layers = try Self.layers()
        try Self.write(layers, to: folder.file("p"))
        let file = try SafetensorsFile(MappedFile.bytes(path: folder.file("p")))
        let read = try Self.read(file)
        #expect(read == layers)
        // 3 layers' queries and frequencies, 3 keys' and 2 values' bases of four tensors, 3 units of five.
        #expect(file.tensors.count == 6 + 5 * 4 + 3 * 5)
        #expect(
            file.tensors["archive.1.channels"]?.bytes.array == [2, 1, 0, 1, 1].flatMap { littleEndianBytes(Int32($0)) }
        )
        #expect(file.tensors["layers.3.value_basis"]?.shape == [2, 3, 3])
        #expect(file.tensors["archive.0.basis"]?.shape == [8, 16])
        // Once more, from the mapped file.
        try Self.write(read, to: folder.file("q"))
        #expect(try fileBytes(folder.file("p")) == fileBytes(folder.file("q")))
    }

    @Test func profilesWithoutBasesAreGood() throws {
        let folder = try TemporaryFolder()
        try Self.write(Self.plain(), to: folder.file("p"))
        let read = try Self.read(SafetensorsFile(MappedFile.bytes(path: folder.file("p"))))
        #expect(try read == Self.plain() && read.allSatisfy { $0.bases == nil })
        var builder = try Self.builder()
        builder.tensors.removeAll {
            $0.name.contains("basis") || $0.name.contains("rotary") || $0.name.contains("archive")
        }
        builder.tensors.append(.init("archive.sources", numbers: [1]))
        builder.tensors.append(.init("layers.0.key_basis_norm", numbers: [1]))
        #expect(try Self.read(SafetensorsFile(SharedBytes(builder.file))).allSatisfy { $0.bases == nil })
    }

    @Test func dimensionsOfValuesFollowFromBases() throws {
        let file = try SafetensorsFile(SharedBytes(Self.builder().file))
        let shapes = try #require(try ModelProfile.geometry(of: file)).layers
        #expect(shapes.map(\.valueDimension) == [4, 0, 0, 3])
    }

    @Test func layersWithoutRotaryEmbeddingHaveNoFrequencies() throws {
        let builder = try Self.builder().removing("layers.2.rotary_frequencies")
        let read = try Self.read(SafetensorsFile(SharedBytes(builder.file)))
        #expect(read.map { $0.bases?.rotaryFrequencies.count } == [2, nil, 0, 2])
    }

    @Test(
        "all bases are there, or none",
        arguments: [
            "layers.0.key_basis", "layers.0.key_basis_scale", "layers.2.key_basis_variance",
            "layers.0.key_basis_weight",
            "layers.3.value_basis", "layers.3.value_basis_scale", "layers.3.value_basis_variance",
            "layers.3.value_basis_weight", "archive.0.channels", "archive.1.channels", "archive.1.basis",
            "archive.1.scale", "archive.1.variance", "archive.2.weight",
        ]
    )
    func missingTensors(name: String) throws {
        let error = try Self.error(Self.builder().removing(name))
        #expect(error?.tensor == name && error?.message.contains("is missing") == true)
        #expect(error?.message.contains("think-compress profile --from") == true)
    }

    @Test(
        "numbers that can't be are refused",
        arguments: [
            ("layers.0.key_basis_scale", 0, "from 2^-60"), ("layers.0.key_basis_weight", -1, "from 2^-60"),
            ("archive.0.scale", .infinity, "from 2^-60"), ("archive.0.weight", .nan, "from 2^-60"),
            ("layers.3.value_basis_variance", -1, "not negative"), ("archive.1.variance", .nan, "not negative"),
            ("archive.1.variance", 5, "falling variance"), ("layers.0.key_basis_variance", 5, "falling variance"),
            ("layers.0.rotary_frequencies", -0.5, "0 to 4"), ("layers.0.rotary_frequencies", 5, "0 to 4"),
        ] as [(String, Float, String)]
    )
    func impossibleNumbers(name: String, number: Float, message: String) throws {
        var builder = try Self.builder()
        builder[name].bytes.replaceSubrange(4..<8, with: littleEndianBytes(number.bitPattern))
        let error = try Self.error(builder)
        #expect(error?.tensor == name && error?.message.contains(message) == true, "\(String(describing: error))")
    }

    @Test("variances fall within a KV head only")
    func variancesOfHeads() throws {
        var builder = try Self.builder()
        builder["layers.0.key_basis_variance"] = .init(
            "layers.0.key_basis_variance",
            [2, 4],
            floats: [4, 3, 3, 0, 9, 1, 1, 0]
        )
        let read = try Self.read(SafetensorsFile(SharedBytes(builder.file)))
        #expect(read[0].bases?.keys[1].variances == [9, 1, 1, 0])
    }

    @Test(
        "tensors of another type or shape are refused",
        arguments: [
            ("layers.0.key_basis", "U8", [2, 4, 4], "must be I8 [2, 4, 4]"),
            ("layers.0.key_basis", "I8", [2, 2, 8], "must be I8 [2, 4, 4]"),
            ("archive.0.basis", "I8", [4, 32], "must be I8 [1...16, 16]"),
            ("archive.0.basis", "U8", [8, 16], "must be I8 [1...16, 16]"),
            ("archive.0.scale", "F32", [4, 2], "must be F32 [8]"),
            ("archive.0.channels", "F32", [5], "must be I32 [5]"),
            ("archive.0.channels", "I32", [5, 1], "must be I32 [5]"),
            ("layers.0.rotary_frequencies", "F32", [1, 2], "1...2 of them"),
            ("layers.0.rotary_frequencies", "I32", [2], "must be F32 [2]"),
        ]
    )
    func otherShapes(name: String, type: String, shape: [Int], message: String) throws {
        var builder = try Self.builder()
        builder[name].elementType = type
        builder[name].shape = shape
        let error = try Self.error(builder)
        #expect(error?.tensor == name && error?.message.contains(message) == true, "\(String(describing: error))")
    }

    @Test func frequenciesOfMorePairsThanChannelsAreRefused() throws {
        var builder = try Self.builder()
        builder["layers.0.rotary_frequencies"] = .init("layers.0.rotary_frequencies", [3], floats: [1, 1, 1])
        #expect(try Self.error(builder)?.message.contains("1...2 of them") == true)
    }

    @Test func matricesWithoutComponentsAreRefused() throws {
        var builder = try Self.builder()
        builder["archive.0.basis"] = .init("archive.0.basis", "I8", [0, 16], bytes: [])
        #expect(try Self.error(builder)?.tensor == "archive.0.basis")
    }

    @Test(
        "units are of the model's layers, heads and parts",
        arguments: [
            [4, 1, 0, 1, 3], [0, 1, 1, 2, 3], [0, 1, 0, 2, 0], [0, 1, 0, 2, 4], [-1, 1, 0, 2, 3], [0, 0, 0, 2, 3],
            [0, 1, 0, 0, 3], [0, 2, 0, 2, 3], [2, 1, 0, 1, 3], [0, .max, 0, 2, 3], [.max, .max, .max, .max, 3],
        ] as [[Int32]]
    )
    func unitsOfOtherModels(numbers: [Int32]) throws {
        var builder = try Self.builder()
        builder["archive.0.channels"] = .init("archive.0.channels", numbers: numbers)
        let error = try Self.error(builder)
        #expect(error?.tensor == "archive.0.channels" && error?.message.contains("of this model") == true)
    }

    @Test func unitsHaveEveryHeadOnce() throws {
        var builder = try Self.builder()
        builder["archive.2.channels"] = .init("archive.2.channels", numbers: [0, 1, 0, 1, 1])
        let twice = try Self.error(builder)
        #expect(twice?.tensor == "archive.2.channels")
        #expect(twice?.message.contains("the keys of layer 0, KV head 0, which another unit has") == true)
        let less = try Self.builder().tensors.filter { !$0.name.hasPrefix("archive.2.") }
        let missing = try Self.error(SafetensorsBuilder(less))
        #expect(missing?.message.contains("have not the keys of layer 3, KV head 0") == true)
    }

    @Test func unitsAreKnownByTheirNumbers() throws {
        let unit = ArchiveUnit(layers: 2..<5, heads: 1..<2, hasKeys: false, hasValues: true)
        #expect(unit.numbers == [2, 3, 1, 1, 2] && ArchiveUnit(numbers: unit.numbers) == unit)
        #expect(ArchiveUnit(numbers: [0, 1, 0, 1]) == nil && ArchiveUnit(numbers: [0, 4097, 0, 1, 1]) == nil)
    }
}
