import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Reading safetensors files: sound ones in any order and place, and every way to be broken.
@Suite struct SafetensorsFileTests {
    private static func read(_ bytes: [UInt8]) throws -> SafetensorsFile { try SafetensorsFile(SharedBytes(bytes)) }

    /// The error that a file must be refused with.
    private static func refusal(_ bytes: [UInt8]) -> EngineFormatError? {
        #expect(throws: EngineFormatError.self) { try read(bytes) }
    }

    /// The header of one U8 tensor `a`, of whatever offsets and shape.
    private static func header(offsets: String, shape: String = "[8]", type: String = "U8") -> String {
        #"{"a":{"dtype":"\#(type)","shape":\#(shape),"data_offsets":\#(offsets)}}"#
    }

    /// A file of U8 tensors with offsets as given, names a, b, c...
    private static func file(offsets: [[Int]], dataBytes: Int) -> [UInt8] {
        let entries = offsets.enumerated().map { index, pair in
            let name = String(UnicodeScalar(UInt8(97 + index)))
            return
                #""\#(name)":{"dtype":"U8","shape":[\#(pair[1] - pair[0])],"data_offsets":[\#(pair[0]),\#(pair[1])]}"#
        }
        return SafetensorsBuilder.file(
            header: "{" + entries.joined(separator: ",") + "}",
            data: (0..<dataBytes).map { UInt8(truncatingIfNeeded: $0) }
        )
    }

    private static func dataStart(_ file: [UInt8]) -> Int {
        8 + (0..<8).reduce(0) { $0 | Int(file[$1]) << (8 * $1) }
    }

    // MARK: - Sound files

    @Test("tensors are read where they lie, in any order")
    func tensorsInAnyOrder() throws {
        let file = try Self.read(Self.file(offsets: [[4, 10], [0, 4], [10, 11]], dataBytes: 11))
        #expect(file.tensors.mapValues(\.bytes.array) == ["a": [4, 5, 6, 7, 8, 9], "b": [0, 1, 2, 3], "c": [10]])
        #expect(file.tensors.mapValues(\.shape) == ["a": [6], "b": [4], "c": [1]])
        #expect(file.metadata == [:])
    }

    @Test("tensors that begin at odd bytes are read right", arguments: 0...7)
    func unalignedTensors(padding: Int) throws {
        var builder = SafetensorsBuilder([.init("x", "U8", [padding], bytes: [UInt8](repeating: 0, count: padding))])
        builder.tensors.append(.init("y", [3], floats: [1, -2, 0.5]))
        builder.tensors.append(.init("z", numbers: [-1, 70_000]))
        let file = try Self.read(builder.file)
        #expect(file.tensors["x"]?.bytes.count == padding)
        #expect(file.tensors["y"]?.bytes.array == [1, -2, 0.5].flatMap { littleEndianBytes(($0 as Float).bitPattern) })
        #expect(file.tensors["z"]?.bytes.array == [255, 255, 255, 255, 0x70, 0x11, 1, 0])
    }

    @Test("empty tensors, scalars and tensors without elements are read")
    func emptyTensors() throws {
        let file = try Self.read(
            SafetensorsBuilder([
                .init("empty", "F32", [0, 5], bytes: []),
                .init("scalar", "F64", [], bytes: [UInt8](repeating: 1, count: 8)),
                .init("end", "F16", [3, 0], bytes: []),
            ]).file
        )
        #expect(file.tensors.mapValues(\.bytes.count) == ["empty": 0, "scalar": 8, "end": 0])
    }

    @Test("a header may have spaces after it, other fields, and no tensors")
    func looseHeaders() throws {
        #expect(try Self.read(SafetensorsBuilder.file(header: "{}     ")).tensors.isEmpty)
        let header =
            #"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"note":[1,{"x":null}]},"__metadata__":{"k":"v"}}  "#
        let file = try Self.read(SafetensorsBuilder.file(header: header, data: [9]))
        #expect(file.tensors["a"]?.bytes.array == [9])
        #expect(file.metadata == ["k": "v"])
    }

    @Test("element types that nobody here reads may have any length")
    func unknownElementType() throws {
        let header = Self.header(offsets: "[0,3]", shape: "[8]", type: "F4_SOMETHING")
        let file = try Self.read(SafetensorsBuilder.file(header: header, data: [1, 2, 3]))
        #expect(file.tensors["a"]?.elementType == "F4_SOMETHING")
        #expect(file.tensors["a"]?.bytes.array == [1, 2, 3])
    }

    @Test("metadata of any script is read")
    func metadata() throws {
        let metadata = ["model.id": "a/b \"c\" \\", "ключ": "значение 🔑", "": "\u{0}\u{1F}"]
        #expect(try Self.read(SafetensorsBuilder(metadata: metadata).file).metadata == metadata)
    }

    // MARK: - Broken files

    @Test("a file without a whole length is refused", arguments: [0, 1, 7])
    func tooShort(count: Int) {
        let error = Self.refusal([UInt8](repeating: 1, count: count))
        #expect(error?.code == .damaged)
        #expect(error?.offset == 0)
        #expect(error?.message.contains("the file has \(count) bytes") == true)
    }

    @Test(
        "a header longer than the file or than any header is refused",
        arguments: [3, 100, 99_999_999, 100_000_000, 100_000_001, 1 << 32, 1 << 62, 1 << 63, (1 << 63) - 1, .max]
            as [UInt64]
    )
    func headerLength(length: UInt64) {
        let error = Self.refusal(littleEndianBytes(length) + [0x7B, 0x7D])
        #expect(error?.code == .damaged)
        #expect(error?.offset == 0)
        #expect(error?.tensor == nil)
        #expect(error?.message.contains(length > 100_000_000 ? "\(length) bytes, more than" : "cut off") == true)
    }

    @Test(
        "a header that isn't what safetensors has is refused",
        arguments: [
            ("", 0), (" ", 1), ("hello", 0), ("[]", 0), ("[1,2]", 0), ("null", 0), ("1", 0), ("\"a\"", 0), ("{", 1),
            ("{}}", 2), ("{\"a\"}", 4), ("{\"a\":1}", 5), ("{\"a\":null}", 5), ("{\"a\":[]}", 5), ("{\"a\":{}}", 5),
            ("{\"a\":{\"dtype\":\"U8\"}}", 5), ("{\"a\":{\"dtype\":1,\"shape\":[],\"data_offsets\":[0,1]}}", 14),
            ("{\"a\":{\"dtype\":\"U8\",\"shape\":8,\"data_offsets\":[0,8]}}", 27), ("{\"__metadata__\":[]}", 16),
            ("{\"__metadata__\":{\"k\":1}}", 21), ("{\"__metadata__\":{\"k\":null}}", 21),
            ("{\"__metadata__\":{\"k\":{\"x\":\"y\"}}}", 21), ("{\"__metadata__\":\"text\"}", 16),
        ]
    )
    func wrongHeader(_ header: String, place: Int) {
        let error = Self.refusal(SafetensorsBuilder.file(header: header, data: [UInt8](repeating: 0, count: 8)))
        #expect(error?.code == .damaged)
        #expect(error?.offset == 8 + place, "\(error?.description ?? "")")
    }

    @Test("a header that isn't UTF-8 is refused")
    func headerThatIsNotText() {
        let error = Self.refusal(SafetensorsBuilder.file(header: [0x7B, 0x22, 0xFF, 0xFE, 0x22, 0x3A, 0x31, 0x7D]))
        #expect(error?.code == .damaged)
        #expect(error?.offset == 10)
    }

    @Test(
        "deep nesting is refused without running out of stack",
        arguments: ["", "{\"a\":", "{\"__metadata__\":{\"k\":", "{\"a\":{\"shape\":"],
        ["[", "{\"a\":"]
    )
    func deepNesting(start: String, level: String) {
        let error = Self.refusal(SafetensorsBuilder.file(header: start + String(repeating: level, count: 100_000)))
        #expect(error?.code == .damaged)
        #expect(error?.message.contains("nested more than 64 deep") == true)
    }

    @Test(
        "data_offsets that are no two numbers are refused",
        arguments: [
            "[]", "[0]", "[0,4,8]", "[-8,0]", "[0,-8]", "[0.5,8]", "[0,1e300]", "[0,18446744073709551616]",
            "[0,1.0]", "[\"0\",\"8\"]", "[null,8]", "{\"begin\":0,\"end\":8}", "8",
        ]
    )
    func wrongOffsets(_ offsets: String) {
        let error = Self.refusal(
            SafetensorsBuilder.file(header: Self.header(offsets: offsets), data: [UInt8](repeating: 0, count: 8))
        )
        #expect(error?.code == .damaged)
        #expect((53...57).contains(error?.offset ?? 0), "\(error?.description ?? "")")
        #expect(error?.message.contains("a.data_offsets") == true)
    }

    @Test(
        "shapes that are no numbers of elements are refused",
        arguments: ["[-8]", "[2,-4]", "[-2,-4]", "[8.5]", "[\"8\"]", "[9223372036854775808]", "[[8]]", "null"]
    )
    func wrongShape(_ shape: String) {
        let error = Self.refusal(
            SafetensorsBuilder.file(
                header: Self.header(offsets: "[0,8]", shape: shape),
                data: [UInt8](repeating: 0, count: 8)
            )
        )
        #expect(error?.code == .damaged)
        #expect(error?.message.contains("a.shape") == true)
    }

    struct Misplaced: Sendable {
        let offsets: [[Int]]
        let dataBytes: Int
        let tensor: String
        /// From the beginning of the data.
        let offset: Int
        let message: String
    }

    @Test(
        "tensors that overlap, leave gaps or reach too far are refused by name and place",
        arguments: [
            Misplaced(offsets: [[0, 8], [4, 12]], dataBytes: 12, tensor: "b", offset: 4, message: "overlaps 'a'"),
            Misplaced(offsets: [[0, 8], [0, 8]], dataBytes: 8, tensor: "b", offset: 0, message: "overlaps 'a'"),
            Misplaced(offsets: [[0, 12], [4, 8]], dataBytes: 12, tensor: "b", offset: 4, message: "overlaps 'a'"),
            Misplaced(offsets: [[4, 8]], dataBytes: 8, tensor: "a", offset: 4, message: "4 bytes after the header"),
            Misplaced(offsets: [[0, 4], [5, 8]], dataBytes: 8, tensor: "b", offset: 5, message: "1 bytes after 'a'"),
            Misplaced(offsets: [[0, 9]], dataBytes: 8, tensor: "a", offset: 0, message: "cut off"),
            Misplaced(offsets: [[0, 4], [4, .max]], dataBytes: 8, tensor: "b", offset: 4, message: "cut off"),
            Misplaced(offsets: [[.max - 4, .max]], dataBytes: 8, tensor: "a", offset: 8, message: "bytes after"),
            Misplaced(offsets: [[0, 8], [9, 9]], dataBytes: 8, tensor: "b", offset: 8, message: "bytes after 'a'"),
        ]
    )
    func misplacedTensors(_ test: Misplaced) {
        let file = Self.file(offsets: test.offsets, dataBytes: test.dataBytes)
        let error = Self.refusal(file)
        #expect(error?.code == .damaged)
        #expect(error?.tensor == test.tensor)
        #expect(error?.offset == Self.dataStart(file) + test.offset)
        #expect(error?.message.contains(test.message) == true)
    }

    @Test("a tensor that ends before it begins is refused")
    func reversedOffsets() {
        let header =
            #"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[4],"data_offsets":[8,4]}}"#
        let file = SafetensorsBuilder.file(header: header, data: [UInt8](repeating: 0, count: 8))
        let error = Self.refusal(file)
        #expect(error?.code == .damaged)
        #expect(error?.tensor == "b")
        #expect(error?.offset == Self.dataStart(file) + 8)
        #expect(error?.message.contains("ends before it begins") == true)
    }

    @Test(
        "a length that doesn't fit the shape is refused",
        arguments: [
            ("F32", "[8]"), ("F16", "[3]"), ("BF16", "[8]"), ("U8", "[]"), ("F64", "[2]"), ("I32", "[0]"),
            ("BOOL", "[7]"),
            ("I64", "[4611686018427387904]"), ("U8", "[4611686018427387904,4611686018427387904,16]"),
            ("F32", "[2305843009213693952,8]"),
        ]
    )
    func wrongLength(type: String, shape: String) {
        let file = SafetensorsBuilder.file(
            header: Self.header(offsets: "[0,8]", shape: shape, type: type),
            data: [UInt8](repeating: 0, count: 8)
        )
        let error = Self.refusal(file)
        #expect(error?.code == .damaged)
        #expect(error?.tensor == "a")
        #expect(error?.offset == Self.dataStart(file))
    }

    @Test("bytes after the last tensor are refused where they begin", arguments: [1, 8, 1000])
    func trailingBytes(count: Int) {
        let file = Self.file(offsets: [[0, 8]], dataBytes: 8 + count)
        let error = Self.refusal(file)
        #expect(error?.code == .damaged)
        #expect(error?.offset == file.count - count)
        #expect(error?.message.contains("\(count) bytes follow the last tensor") == true)
    }

    private static func entry(_ name: String, _ offsets: String, shape: String = "[4]") -> String {
        #""\#(name)":{"dtype":"U8","shape":\#(shape),"data_offsets":\#(offsets)}"#
    }

    @Test("a name that is there twice is refused where it is, whatever it covers", arguments: ["[0,4]", "[4,8]"])
    func duplicateNames(offsets: String) {
        let first = Self.entry("a", "[0,4]")
        for second in [Self.entry("a", offsets), Self.entry(#"\u0061"#, offsets)] {
            let header = "{\(first),\(second)}"
            let error = Self.refusal(
                SafetensorsBuilder.file(header: header, data: [UInt8](repeating: 0, count: 8))
            )
            #expect(error?.code == .damaged)
            #expect(error?.message.contains("a: is there twice") == true, "\(error?.description ?? "")")
            let name = second.prefix { $0 != "{" }
            #expect(error?.offset == 8 + 1 + first.utf8.count + 1 + name.utf8.count)
        }
        let metadata = #"{"__metadata__":{"k":"v","k":"w"}}"#
        #expect(Self.refusal(SafetensorsBuilder.file(header: metadata))?.offset == 8 + 29)
        let shapes = #"{"a":{"dtype":"U8","shape":[8],"shape":[8],"data_offsets":[0,8]}}"#
        #expect(
            Self.refusal(SafetensorsBuilder.file(header: shapes, data: [UInt8](repeating: 0, count: 8)))?.offset
                == 8 + 39
        )
    }

    @Test("names that differ by their Unicode normal form are different tensors")
    func normalForms() throws {
        let (composed, decomposed) = ("\u{E9}", "e\u{301}")
        let header = "{\(Self.entry(composed, "[0,4]")),\(Self.entry(decomposed, "[4,8]"))}"
        let file = try Self.read(SafetensorsBuilder.file(header: header, data: [0, 1, 2, 3, 4, 5, 6, 7]))
        #expect(file.tensors.count == 2)
        #expect(file.tensors[composed]?.bytes.array == [0, 1, 2, 3])
        #expect(file.tensors[decomposed]?.bytes.array == [4, 5, 6, 7])
        #expect(file.tensors.names.map { Array($0.utf8) } == [[0xC3, 0xA9], [0x65, 0xCC, 0x81]])
    }

    @Test("metadata keys that differ by their Unicode normal form are refused: one would be lost")
    func normalFormsOfMetadata() {
        let error = Self.refusal(
            SafetensorsBuilder.file(header: "{\"__metadata__\":{\"\u{E9}\":\"1\",\"e\u{301}\":\"2\"}}")
        )
        #expect(error?.code == .unsupported)
        #expect(error?.message.contains("Unicode normal form") == true)
    }

    @Test("metadata that is null is none")
    func nullMetadata() throws {
        let file = try Self.read(SafetensorsBuilder.file(header: #"{"__metadata__":null}"#))
        #expect(file.metadata.isEmpty)
        #expect(file.tensors.isEmpty)
        #expect(file.tensors["__metadata__"] == nil)
    }

    @Test("offsets beyond the file are told as they are", arguments: [UInt64.max, 1 << 63, 1 << 40])
    func hugeOffsets(end: UInt64) {
        let file = SafetensorsBuilder.file(
            header: Self.header(offsets: "[0,\(end)]"),
            data: [UInt8](repeating: 0, count: 8)
        )
        let error = Self.refusal(file)
        #expect(error?.tensor == "a")
        #expect(error?.message == "ends at byte \(end) of the data, which has 8; the file is cut off or damaged")
        let far = Self.refusal(
            SafetensorsBuilder.file(
                header: Self.header(offsets: "[\(end - 1),\(end)]"),
                data: [UInt8](repeating: 0, count: 8)
            )
        )
        #expect(far?.message == "begins \(end - 1) bytes after the header ends")
    }

    @Test("tensors of more dimensions than any, and more metadata than any, are refused")
    func limits() throws {
        func file(dimensions: Int) -> [UInt8] {
            let shape = "[" + Array(repeating: "1", count: dimensions).joined(separator: ",") + "]"
            return SafetensorsBuilder.file(header: Self.header(offsets: "[0,1]", shape: shape), data: [7])
        }
        #expect(try Self.read(file(dimensions: 64)).tensors["a"]?.shape.count == 64)
        let error = Self.refusal(file(dimensions: 65))
        #expect(error?.code == .unsupported)
        #expect(error?.message.contains("more than 64 dimensions") == true)
        func file(entries: Int) -> [UInt8] {
            SafetensorsBuilder(metadata: Dictionary(uniqueKeysWithValues: (0..<entries).map { ("\($0)", "") })).file
        }
        #expect(try Self.read(file(entries: 1 << 14)).metadata.count == 1 << 14)
        #expect(Self.refusal(file(entries: 1 << 14 + 1))?.message.contains("16385 entries") == true)
    }

    @Test("a value that nobody needs may be NaN or infinite, as Python writes it")
    func notFinite() throws {
        let header = #"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":[NaN,Infinity,-Infinity]}}"#
        #expect(try Self.read(SafetensorsBuilder.file(header: header, data: [7])).tensors["a"]?.bytes.array == [7])
        for offsets in ["[0,NaN]", "[0,Infinity]", "[-Infinity,1]"] {
            #expect(Self.refusal(SafetensorsBuilder.file(header: Self.header(offsets: offsets))) != nil)
        }
    }

    @Test("a header of very many tensors is read and every tensor found", arguments: [9, 1000, 20_000])
    func manyTensors(count: Int) throws {
        let entries = (0..<count).map { Self.entry("t\($0)", "[\($0),\($0 + 1)]", shape: "[1]") }
        let bytes = SafetensorsBuilder.file(
            header: "{" + entries.joined(separator: ",") + "}",
            data: (0..<count).map { UInt8(truncatingIfNeeded: $0) }
        )
        let file = try Self.read(bytes)
        #expect(file.tensors.count == count)
        for index in stride(from: 0, to: count, by: max(count / 100, 1)) {
            #expect(file.tensors["t\(index)"]?.bytes.array == [UInt8(truncatingIfNeeded: index)])
        }
        #expect(file.tensors["t\(count)"] == nil)
    }

    @Test("a file cut anywhere is refused")
    func everyTruncation() {
        let file = SafetensorsBuilder(
            [.init("a", [2], floats: [1, 2]), .init("b", numbers: [3])],
            metadata: ["k": "v"]
        ).file
        for count in file.indices {
            let error = Self.refusal(Array(file[..<count]))
            #expect(error?.code == .damaged, "\(count) bytes")
            #expect((0...count).contains(error?.offset ?? -1), "\(count) bytes")
        }
    }

    @Test("damaged headers are refused or read, without a crash", arguments: [1, 2, 3] as [UInt64])
    func damagedHeaders(seed: UInt64) {
        var generator = SplitMix64(seed: seed)
        let sound = SafetensorsBuilder(
            [
                .init("a", [2], floats: [1, 2]), .init("b", numbers: [3, 4]),
                .init("c", "F16", [1, 2, 1], bytes: [1, 2, 3, 4]),
            ],
            metadata: ["k": "v"]
        ).file
        let end = Self.dataStart(sound)
        for _ in 0..<500 {
            var file = sound
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                file[Int.random(in: 0..<end, using: &generator)] =
                    Bool.random(using: &generator)
                    ? UInt8.random(in: 0...255, using: &generator)
                    : Array("0123456789-{}[]\",:".utf8).randomElement(using: &generator) ?? 0
            }
            do {
                let read = try Self.read(file)
                // What passes covers the data without gaps or overlaps.
                #expect(read.tensors.mapValues(\.bytes.count).values.reduce(0, +) + Self.dataStart(file) == file.count)
            } catch let error as EngineFormatError {
                #expect((0...file.count).contains(error.offset ?? 0))
            } catch {
                Issue.record(error)
            }
        }
    }
}
