import Foundation
import TestSupport
import Testing
import ThinkCompress

@Suite struct FileReaderTests {
    private let folder: TemporaryFolder
    private let path: String

    init() throws {
        folder = try TemporaryFolder()
        path = folder.file("file")
        try Data([3, 1, 4, 1, 5]).write(to: URL(filePath: path))
    }

    /// Changes the file in place.
    private func change(_ body: (FileHandle) throws -> Void) throws {
        let handle = try FileHandle(forUpdating: URL(filePath: path))
        try body(handle)
        try handle.close()
    }

    @Test("reads ranges")
    func readsRanges() throws {
        let reader = try FileReader(path: path)
        #expect(reader.byteCount == 5)
        #expect(try reader.bytes(0..<5).array == [3, 1, 4, 1, 5])
        #expect(try reader.bytes(1..<3).array == [1, 4])
        #expect(try reader.bytes(5..<5).array == [])
    }

    @Test("what was read stays as it was when the file is overwritten")
    func keepsWhatWasRead() throws {
        let reader = try FileReader(path: path)
        let bytes = try reader.bytes(0..<5)
        try change { try $0.write(contentsOf: Data([9, 9, 9, 9, 9])) }
        #expect(bytes.array == [3, 1, 4, 1, 5])
        #expect(try reader.bytes(0..<2).array == [9, 9])
    }

    @Test("a file that is replaced or removed is read on")
    func outlivesName() throws {
        let reader = try FileReader(path: path)
        try Data([7, 7]).write(to: URL(filePath: path), options: .atomic)
        #expect(try reader.bytes(2..<5).array == [4, 1, 5])
        try FileManager.default.removeItem(atPath: path)
        #expect(try reader.bytes(0..<1).array == [3])
    }

    @Test("a file whose length changes is an error that names it", arguments: [0, 2, 4, 6, 4096])
    func changedLength(length: UInt64) throws {
        let reader = try FileReader(path: path)
        try change { try $0.truncate(atOffset: length) }
        for range in [0..<1, 0..<5, 4..<5] {
            let error = #expect(throws: FileError.self) { try reader.bytes(range) }
            #expect(error?.code == .changed)
            #expect(error?.path == path)
            #expect(error?.message.hasPrefix("had 5 bytes when it was opened and has \(length) now") == true)
        }
    }

    @Test("refuses what is no file with bytes")
    func refuses() throws {
        try Data().write(to: URL(filePath: folder.file("empty")))
        for (path, code) in [
            (folder.file("missing"), FileError.Code.notFound), (folder.path, .notRegularFile),
            (folder.file("empty"), .empty), ("/dev/null", .notRegularFile),
        ] {
            #expect(throws: FileError.self) { try FileReader(path: path) }
            #expect((#expect(throws: FileError.self) { try MappedFile.bytes(path: path) })?.code == code)
        }
    }
}
