import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Writing safetensors files.
@Suite struct SafetensorsWriterTests {
    private static let entries = [
        SafetensorsWriter.Entry(name: "b", elementType: "I32", shape: [3], byteCount: 12),
        SafetensorsWriter.Entry(name: "a", elementType: "F16", shape: [1, 3], byteCount: 6),
        SafetensorsWriter.Entry(name: "empty", elementType: "F32", shape: [0], byteCount: 0),
        SafetensorsWriter.Entry(name: "a.10", elementType: "U8", shape: [2], byteCount: 2),
        SafetensorsWriter.Entry(name: "a.9", elementType: "U8", shape: [1], byteCount: 1),
    ]
    private static let content: [String: [UInt8]] = [
        "b": Array(1...12), "a": Array(21...26), "empty": [], "a.10": [31, 32], "a.9": [41],
    ]

    private static func write(to path: String, metadata: [String: String]) throws {
        let writer = try SafetensorsWriter(
            path: path,
            replacingExisting: false,
            tensors: entries,
            metadata: metadata
        )
        for (name, bytes) in content { try writer.write(SharedBytes(bytes), to: name) }
        try writer.commit()
    }

    @Test(
        "what is written is read again, from data that begins at a multiple of 8",
        arguments: [0, 1, 2, 3, 4, 5, 6, 7, 8]
    )
    func comesBack(length: Int) throws {
        let folder = try TemporaryFolder()
        let metadata = ["k/\"\n é🔑": String(repeating: "v", count: length)]
        try Self.write(to: folder.file("a.safetensors"), metadata: metadata)
        let bytes = try MappedFile.bytes(path: folder.file("a.safetensors")).array
        let headerLength = (0..<8).reduce(0) { $0 | Int(bytes[$1]) << (8 * $1) }
        #expect(headerLength % 8 == 0)
        #expect(bytes.count == 8 + headerLength + 21)
        #expect(Array(bytes.suffix(21)) == Array(1...12) + Array(21...26) + [31, 32, 41])

        let file = try SafetensorsFile(SharedBytes(bytes))
        #expect(file.metadata == metadata)
        #expect(file.tensors.mapValues(\.bytes.array) == Self.content)
        for entry in Self.entries {
            #expect(file.tensors[entry.name]?.elementType == entry.elementType)
            #expect(file.tensors[entry.name]?.shape == entry.shape)
        }
    }

    @Test("the header's keys are in the order of their bytes, so that files are the same everywhere")
    func sortedKeys() throws {
        let folder = try TemporaryFolder()
        try Self.write(
            to: folder.file("a.safetensors"),
            metadata: ["z": "1", "model.id": "2", "Z": "3", "y10": "4", "y9": "5"]
        )
        let bytes = try Data(contentsOf: URL(filePath: folder.file("a.safetensors")))
        let header = String(decoding: bytes, as: UTF8.self)
        func places(_ keys: [String]) throws -> [String.Index] {
            try keys.map { try #require(header.range(of: "\"\($0)\":")).lowerBound }
        }
        let top = try places(["__metadata__", "a", "a.10", "a.9", "b", "empty"])
        #expect(top == top.sorted())
        let metadata = try places(["Z", "model.id", "y10", "y9", "z"])
        #expect(metadata == metadata.sorted())
        let fields = try places(["data_offsets", "dtype", "shape"])
        #expect(fields == fields.sorted())
    }

    @Test("the same tensors make the same file")
    func sameFile() throws {
        let folder = try TemporaryFolder()
        for name in ["a", "b"] { try Self.write(to: folder.file(name), metadata: ["k": "v", "l": "w", "m": "x"]) }
        let files = try ["a", "b"].map { try Data(contentsOf: URL(filePath: folder.file($0))) }
        #expect(files[0] == files[1])
    }

    @Test("a tensor may be written in parts, in any order")
    func parts() throws {
        let folder = try TemporaryFolder()
        let writer = try SafetensorsWriter(
            path: folder.file("a"),
            replacingExisting: false,
            tensors: [Self.entries[0]],
            metadata: [:]
        )
        try writer.write(SharedBytes([9, 10, 11, 12]), to: "b", at: 8)
        try writer.write(SharedBytes(Array(1...8)), to: "b")
        try writer.commit()
        let file = try SafetensorsFile(MappedFile.bytes(path: folder.file("a")))
        #expect(file.tensors["b"]?.bytes.array == Array(1...12))
        #expect(file.metadata == [:])
    }

    @Test("without a commit there is no file, and a taken name is refused")
    func withoutCommit() throws {
        let folder = try TemporaryFolder()
        func begin() throws {
            let writer = try SafetensorsWriter(
                path: folder.file("a"),
                replacingExisting: false,
                tensors: [Self.entries[0]],
                metadata: [:]
            )
            try writer.write(SharedBytes([1]), to: "b")
        }
        try begin()
        #expect(folder.content == [])
        try Data([7]).write(to: URL(filePath: folder.file("a")))
        let error = #expect(throws: FileError.self) { try begin() }
        #expect(error?.code == .alreadyExists)
        #expect(folder.content == ["a"])
        #expect(try Data(contentsOf: URL(filePath: folder.file("a"))) == Data([7]))
    }
}
