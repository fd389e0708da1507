import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Reading GGUF files: sound ones of every type, and every way to be broken.
@Suite struct GGUFFileTests {
    private static func read(_ bytes: [UInt8]) throws -> GGUFFile { try GGUFFile(SharedBytes(bytes)) }

    /// The error that a file must be refused with.
    private static func refusal(_ builder: GGUFBuilder) -> EngineFormatError? {
        #expect(throws: EngineFormatError.self) { try read(builder.file) }
    }

    /// A file with a value of every type and tensors of some.
    static let sample = GGUFBuilder(
        [
            .init("a.uint8", .uint8(200)), .init("a.int8", .int8(-3)), .init("a.uint16", .uint16(60_000)),
            .init("a.int16", .int16(-300)), .init("a.uint32", .uint32(4_000_000_000)),
            .init("a.int32", .int32(-70_000)),
            .init("a.float32", .float32(0.5)), .init("a.bool", .bool(true)), .init("a.string", .string("naïve")),
            .init("a.uint64", .uint64(1 << 40)), .init("a.int64", .int64(-1 << 40)), .init("a.float64", .float64(-0.1)),
            .init("b.strings", .strings(["", "x", "é"])), .init("b.numbers", .int32s([1, -2])),
            .init("b.nested", .array(9, [.int32s([7]), .strings(["y", "z"]), .array(4, [])])),
            .init("c", .uint32(7)),
        ],
        tensors: [
            .init("matrix", [2, 3], floats: [1, 2, 3, 4, 5, 6]),
            .init("vector", [4], floats: [1, 1, 1, 1]),
            .init("blocks", type: 2, dimensions: [64, 2], bytes: [UInt8](repeating: 9, count: 72)),
            .init("other", type: 16, dimensions: [256], bytes: [UInt8](repeating: 9, count: 66)),
        ]
    )

    // MARK: - Sound files

    @Test("values of every type are read by key", arguments: [2, 3] as [UInt32])
    func values(version: UInt32) throws {
        var builder = Self.sample
        builder.version = version
        let file = try Self.read(builder.file)
        #expect(file.version == Int(version))
        #expect(file.metadata.count == 16)
        let whole = [
            "a.uint8": 200, "a.int8": -3, "a.uint16": 60_000, "a.int16": -300, "a.uint32": 4_000_000_000,
            "a.int32": -70_000, "a.uint64": 1 << 40, "a.int64": -1 << 40,
        ]
        for (key, number) in whole {
            #expect(try file.metadata[key]?.int() == number)
            #expect(try file.metadata[key]?.double() == Double(number))
        }
        #expect(try file.metadata["a.float32"]?.double() == 0.5)
        #expect(try file.metadata["a.float64"]?.double() == -0.1)
        #expect(try file.metadata["a.bool"]?.bool() == true)
        #expect(try file.metadata["a.string"]?.text() == "naïve")
        #expect(try file.metadata["a.string"]?.bytes().array == Array("naïve".utf8))
        #expect(try file.metadata["b.strings"]?.elements().map { try $0.text() } == ["", "x", "é"])
        #expect(try file.metadata["b.numbers"]?.elements().map { try $0.int() } == [1, -2])
        let nested = try #require(try file.metadata["b.nested"]?.elements())
        #expect(nested.count == 3)
        #expect(try nested.map { try $0.elements().count } == [1, 2, 0])
        #expect(try file.metadata.required("c").int(in: 7...7) == 7)
        #expect(file.metadata["a"] == nil)
        #expect(file.metadata["d"] == nil)
        #expect(file.metadata[""] == nil)
    }

    @Test("entries come in the file's order, and their bytes are the file's")
    func entries() throws {
        let file = try Self.read(Self.sample.file)
        #expect(file.metadata.entries.map(\.key) == Self.sample.entries.map(\.key))
        #expect(Self.sample.header.dropFirst(24).starts(with: file.metadata.entries.flatMap { $0.bytes.array }))
    }

    @Test("tensors are read where they lie, with shapes from the outside in", arguments: [1, 8, 32, 4096])
    func tensors(alignment: Int) throws {
        var builder = Self.sample
        builder.alignment = alignment
        builder["general.alignment"] = .uint32(UInt32(alignment))
        let file = try Self.read(builder.file)
        #expect(file.alignment == alignment)
        #expect(file.tensors.count == 4)
        #expect(Array(file.tensors.names) == ["blocks", "matrix", "other", "vector"])
        let matrix = try #require(file.tensors["matrix"])
        #expect(matrix.shape == [2, 3])
        #expect(try matrix.weights().type == .float32)
        #expect(try matrix.weights().bytes.array == builder.tensors[0].bytes)
        #expect(try file.tensors["vector"]?.weights().bytes.array == builder.tensors[1].bytes)
        let blocks = try #require(file.tensors["blocks"])
        #expect(blocks.shape == [2, 64])
        #expect(blocks.typeName == "Q4_0")
        #expect(try blocks.weights().bytes.array == builder.tensors[2].bytes)
        #expect(file.tensors["matri"] == nil)
        #expect(file.tensors["matrixx"] == nil)
    }

    @Test(
        "a type that can't be computed with is refused when it is used",
        arguments: [(16, "IQ2_XXS"), (77, "number 77")]
    )
    func otherTypes(number: UInt32, name: String) throws {
        var builder = Self.sample
        builder.tensors[3].type = number
        let tensor = try #require(try Self.read(builder.file).tensors["other"])
        #expect(tensor.typeName == name)
        let error = #expect(throws: EngineFormatError.self) { try tensor.weights() }
        #expect(error?.code == .unsupported)
        #expect(
            error?.description
                == "tensor 'other': has the type \(name), which is not supported; supported are F32, F16, BF16, Q8_0, Q4_0, "
                + "Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, MXFP4"
        )
    }

    @Test("a file without tensors, with tensors in any order, with gaps and with bytes after them is read")
    func looseFiles() throws {
        #expect(try Self.read(GGUFBuilder().file).tensors.isEmpty)
        var builder = GGUFBuilder(tensors: [
            .init("a", [2], floats: [1, 2]), .init("b", [1], floats: [3]), .init("scalar", [], floats: [4]),
        ])
        builder.tensors[0].offset = 96
        builder.tensors[1].offset = 0
        builder.tensors[2].offset = 32
        let file = try Self.read(builder.file + [1, 2, 3])
        #expect(try file.tensors["a"]?.weights().bytes.array == builder.tensors[0].bytes)
        #expect(try file.tensors["b"]?.weights().bytes.array == builder.tensors[1].bytes)
        #expect(file.tensors["scalar"]?.shape == [])
    }

    @Test("a vocabulary of 150,000 entries is read quickly")
    func largeVocabulary() throws {
        let words = (0..<150_000).map { "word\($0)" }
        let file = try Self.read(GGUFBuilder([.init("tokens", .strings(words))]).file)
        var count = 0
        for (word, element) in zip(words, try file.metadata.required("tokens").elements()) {
            guard try element.bytes().count == word.utf8.count else { break }
            count += 1
        }
        #expect(count == 150_000)
    }

    // MARK: - Values that are not what is asked for

    @Test("a value of another type is refused with its key")
    func wrongTypes() throws {
        let metadata = try Self.read(Self.sample.file).metadata
        func message(_ body: () throws -> Void) -> String? {
            #expect(throws: EngineFormatError.self, performing: body)?.message
        }
        #expect(
            message { _ = try metadata.required("a.string").int() }
                == "metadata 'a.string' is of the type string, must be a whole number"
        )
        #expect(
            message { _ = try metadata.required("a.float32").int() }
                == "metadata 'a.float32' is of the type float32, must be a whole number"
        )
        #expect(
            message { _ = try metadata.required("c").bool() }
                == "metadata 'c' is of the type uint32, must be true or false"
        )
        #expect(
            message { _ = try metadata.required("c").text() } == "metadata 'c' is of the type uint32, must be a string"
        )
        #expect(
            message { _ = try metadata.required("c").elements() }
                == "metadata 'c' is of the type uint32, must be an array"
        )
        #expect(
            message { _ = try metadata.required("a.bool").double() }
                == "metadata 'a.bool' is of the type bool, must be a number"
        )
        #expect(message { _ = try metadata.required("c").int(in: 1...6) } == "metadata 'c' is 7, must be 1...6")
        #expect(message { _ = try metadata.required("nothing") } == "metadata 'nothing' is missing")
        #expect(
            message { _ = try metadata.required("b.strings").elements().map { try $0.int() } }
                == "metadata 'b.strings[0]' is of the type string, must be a whole number"
        )
    }

    @Test("numbers that don't fit are refused with their key")
    func wrongValues() throws {
        let metadata = try Self.read(
            GGUFBuilder([
                .init("large", .uint64(1 << 63)), .init("nan", .float32(.nan)), .init("infinite", .float64(.infinity)),
                .init("flag", .raw(7, [2])), .init("bytes", .raw(8, littleEndianBytes(UInt64(2)) + [0xFF, 0xFE])),
            ]).file
        ).metadata
        func message(_ body: () throws -> Void) -> String? {
            #expect(throws: EngineFormatError.self, performing: body)?.message
        }
        #expect(
            message { _ = try metadata.required("large").int() }
                == "metadata 'large' is 9223372036854775808, which is too large"
        )
        #expect(
            message { _ = try metadata.required("nan").double() } == "metadata 'nan' is nan, must be a finite number"
        )
        #expect(
            message { _ = try metadata.required("infinite").double() }
                == "metadata 'infinite' is inf, must be a finite number"
        )
        #expect(message { _ = try metadata.required("flag").bool() } == "metadata 'flag' is 2, must be 0 or 1")
        #expect(message { _ = try metadata.required("bytes").text() } == "metadata 'bytes' is not UTF-8")
        #expect(try metadata.required("bytes").bytes().array == [0xFF, 0xFE])
    }

    // MARK: - Broken files

    @Test(
        "other versions and byte orders are refused with what to do",
        arguments: [
            (0, "GGUF version 0 is not supported; supported are 2 and 3"),
            (1, "GGUF version 1 is not supported; take a newer file of the model, or convert it again"),
            (4, "GGUF version 4 is not supported; supported are 2 and 3"),
            (3 << 24, "the file is big-endian, which is not supported; take the model's little-endian file"),
        ] as [(UInt32, String)]
    )
    func otherVersions(version: UInt32, message: String) {
        var builder = Self.sample
        builder.version = version
        let error = Self.refusal(builder)
        #expect(error?.code == .unsupported)
        #expect(error?.offset == 4)
        #expect(error?.message == message)
    }

    @Test(
        "what doesn't begin as GGUF files do is refused",
        arguments: [[], [0x47], Array("GGUE".utf8), Array("GGML....".utf8)]
    )
    func otherFiles(bytes: [UInt8]) {
        let error = #expect(throws: EngineFormatError.self) { try Self.read(bytes) }
        #expect(error?.offset == 0)
        #expect(error?.message.contains("another kind of file") == true)
    }

    struct Fault: Sendable, CustomTestStringConvertible {
        let message: String
        var code = EngineFormatError.Code.damaged
        let change: @Sendable (inout GGUFBuilder) -> Void

        var testDescription: String { message }

        init(_ message: String, _ change: @escaping @Sendable (inout GGUFBuilder) -> Void) {
            self.message = message
            self.change = change
        }
    }

    private static let faults = [
        Fault("the header has 18446744073709551615 tensors, more than 262144") { $0.tensorCount = .max },
        Fault("the header has 9223372036854775808 metadata entries, more than 65536") { $0.entryCount = 1 << 63 },
        Fault("the file is cut off or damaged") { $0.entryCount = 65_536 },
        Fault("the name of a tensor is empty") { $0.tensorCount = 262_144 },
        Fault("metadata 'c' is there twice") { $0.entries.append(.init("c", .bool(true))) },
        Fault("the key of metadata entry 0 is empty") { $0.entries[0].key = "" },
        Fault("the key of metadata entry 0 has 65536 bytes, more than 65535") {
            $0.entries[0].key = String(repeating: "k", count: 65_536)
        },
        Fault("metadata 'c' has the type number 13, which GGUF does not have") { $0["c"] = .raw(13, [0, 0, 0, 0]) },
        Fault("metadata 'c' needs 9223372036854775808 times 1 bytes") {
            $0["c"] = .raw(8, littleEndianBytes(1 << 63 as UInt64))
        },
        Fault("metadata 'c' needs 4611686018427387904 times 8 bytes") {
            $0["c"] = .raw(9, littleEndianBytes(10 as UInt32) + littleEndianBytes(1 << 62 as UInt64))
        },
        Fault("metadata 'c'") {
            $0["c"] = .raw(9, littleEndianBytes(8 as UInt32) + littleEndianBytes(UInt64.max))
        },
        Fault("metadata 'c' has the type number 99") { $0["c"] = .array(99, []) },
        Fault("metadata 'c' has arrays nested more than 4 deep") {
            $0["c"] = .array(9, [.array(9, [.array(9, [.array(9, [.array(9, [])])])])])
        },
        Fault("metadata 'general.alignment' is 0, must be 1...65536") { $0["general.alignment"] = .uint32(0) },
        Fault("metadata 'general.alignment' is 24, must be a power of two") { $0["general.alignment"] = .uint32(24) },
        Fault("metadata 'general.alignment' is 131072, must be") { $0["general.alignment"] = .uint32(1 << 17) },
        Fault("metadata 'general.alignment' is of the type string") { $0["general.alignment"] = .string("32") },
        Fault("tensor 'matrix': is there twice") { $0.tensors[1].name = "matrix" },
        Fault("tensor 'matrix': has 5 dimensions, more than 4") { $0.tensors[0].dimensions = [1, 1, 1, 1, 1] },
        Fault("tensor 'matrix': has a dimension of 0") { $0.tensors[0].dimensions[1] = 0 },
        Fault("tensor 'matrix': has a dimension of 18446744073709551615") { $0.tensors[0].dimensions[1] = .max },
        Fault("tensor 'matrix': has too many elements") { $0.tensors[0].dimensions = [1 << 40, 1 << 40] },
        Fault("tensor 'matrix': has too many elements") { $0.tensors[0].dimensions = [1 << 62] },
        Fault("tensor 'blocks': has rows of 48, which are no whole blocks of 32, as Q4_0 needs") {
            $0.tensors[2].dimensions[0] = 48
        },
        Fault("tensor 'vector': begins at byte 33 of the data, which is no multiple of 32") {
            $0.tensors[1].offset = 33
        },
        Fault("tensor 'vector': overlaps 'matrix'") { $0.tensors[1].offset = 0 },
        Fault("tensor 'vector': ends at byte 4294967312 of the data, which has") { $0.tensors[1].offset = 1 << 32 },
        Fault("tensor 'vector': begins at byte 18446744073709551584 of the data, which is too far") {
            $0.tensors[1].offset = .max - 31
            $0.tensors[1].dimensions = [16]
        },
        Fault("tensor 'vector': ends at byte 4028 of the data, which has") { $0.tensors[1].dimensions = [999, 1] },
    ]

    @Test("faults are named with their place", arguments: faults)
    func brokenFiles(fault: Fault) throws {
        var builder = Self.sample
        fault.change(&builder)
        let file = builder.file
        let error = #expect(throws: EngineFormatError.self) { try Self.read(file) }
        #expect(error?.code == .damaged)
        #expect(error?.description.contains(fault.message) == true, "\(error?.description ?? "")")
        #expect((4..<file.count + 1).contains(error?.offset ?? -1))
    }

    @Test("a key that isn't UTF-8 is refused")
    func keyThatIsNotText() throws {
        var bytes = GGUFBuilder([.init("key", .bool(true))]).file
        bytes[24 + 8] = 0xFF
        let error = #expect(throws: EngineFormatError.self) { try Self.read(bytes) }
        #expect(error?.offset == 32)
    }

    @Test("deep nesting is refused without running out of stack")
    func deepNesting() throws {
        let level = littleEndianBytes(9 as UInt32) + littleEndianBytes(1 as UInt64)
        let bytes = (0..<100_000).flatMap { _ in level }
        let error = Self.refusal(GGUFBuilder([.init("deep", .raw(9, bytes))]))
        #expect(error?.message.contains("nested more than 4 deep") == true)
    }

    @Test("a hole in a sparse file is no endless header")
    func sparseFile() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("hole.gguf")
        let claim = littleEndianBytes(0 as UInt32) + littleEndianBytes(1 << 40 as UInt64)
        try Data(GGUFBuilder([.init("hole", .raw(9, claim))]).file).write(to: URL(filePath: path))
        let handle = try #require(FileHandle(forWritingAtPath: path))
        try handle.truncate(atOffset: 1 << 43)
        try handle.close()
        let error = try #require(throws: EngineFormatError.self) { try GGUFFile(MappedFile.bytes(path: path)) }
        #expect(error.code == .unsupported)
        #expect(error.message.contains("ends beyond byte 134217728"))
    }

    // MARK: - Damage

    /// Reads everything that a file has.
    private static func use(_ bytes: [UInt8]) throws {
        func use(_ value: GGUFValue) {
            _ = try? value.int()
            _ = try? value.double()
            _ = try? value.bool()
            _ = try? value.text()
            if let elements = try? value.elements() { for element in elements { use(element) } }
        }
        let file = try read(bytes)
        for entry in file.metadata.entries { use(entry.value) }
        for name in file.tensors.names { _ = try? file.tensors[name]?.weights().bytes.array }
    }

    @Test("a file that was cut off is refused wherever it ends")
    func truncation() throws {
        let bytes = Self.sample.file
        // Of a type that can't be computed with, the last 66 bytes are not missed but for the first.
        for length in 0..<bytes.count - 65 {
            let error = #expect(throws: EngineFormatError.self, "\(length) bytes") {
                try Self.use(Array(bytes[..<length]))
            }
            #expect((0...length).contains(error?.offset ?? -1), "\(length) bytes")
        }
    }

    @Test("flipped bits are refused or read, without a crash")
    func flippedBits() throws {
        let bytes = Self.sample.file
        var refused = 0
        for place in 0..<bytes.count {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[place] ^= 1 << bit
                do {
                    try Self.use(damaged)
                } catch let error as EngineFormatError {
                    #expect((0...bytes.count).contains(error.offset ?? 0))
                    refused += 1
                }
            }
        }
        #expect(refused > 2000)
    }

    @Test("bytes that were written over are refused or read, without a crash", arguments: [1, 2, 3] as [UInt64])
    func overwrittenBytes(seed: UInt64) throws {
        let bytes = Self.sample.file
        var generator = SplitMix64(seed: seed)
        for _ in 0..<500 {
            var damaged = bytes
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let place = Int.random(in: 4..<Self.sample.header.count - 8, using: &generator)
                let word: UInt64? = [0, 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, .max].randomElement(
                    using: &generator
                )
                damaged.replaceSubrange(place..<place + 8, with: littleEndianBytes(word ?? 0))
            }
            do { try Self.use(damaged) } catch is EngineFormatError {}
        }
    }
}
