import Foundation
import TestSupport
import Testing
import ThinkCompress

@Suite struct MappedFileTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    private func write(_ bytes: [UInt8], to name: String) throws -> String {
        try Data(bytes).write(to: URL(filePath: folder.file(name)))
        return folder.file(name)
    }

    private func refusal(_ path: String) -> FileError? {
        #expect(throws: FileError.self) { try MappedFile.bytes(path: path) }
    }

    @Test("lends the bytes of a file")
    func lendsBytes() throws {
        let bytes = try MappedFile.bytes(path: write([3, 1, 4, 1, 5], to: "file"))
        #expect(bytes.count == 5)
        #expect(bytes.array == [3, 1, 4, 1, 5])
        #expect(bytes[1..<3].array == [1, 4])
    }

    @Test("keeps the bytes when the file is replaced or removed")
    func outlivesName() throws {
        let path = try write([1, 2, 3], to: "file")
        let bytes = try MappedFile.bytes(path: path)
        let writer = try AtomicFileWriter(path: path, replacingExisting: true)
        try writer.write(SharedBytes([9, 9, 9]).span, at: 0)
        try writer.commit()
        #expect(bytes.array == [1, 2, 3])
        #expect(try MappedFile.bytes(path: path).array == [9, 9, 9])
        try FileManager.default.removeItem(atPath: path)
        #expect(bytes.array == [1, 2, 3])
    }

    @Test("refuses a directory")
    func refusesDirectory() throws {
        let error = try #require(refusal(folder.path))
        #expect(error.code == .notRegularFile)
        #expect(error.description == "\(folder.path): is a directory; pass the path of a file")
    }

    @Test("refuses a device")
    func refusesDevice() throws {
        let error = try #require(refusal("/dev/null"))
        #expect(error.code == .notRegularFile)
        #expect(error.message == "is not a regular file; pass the path of a file")
    }

    @Test("refuses a named pipe without waiting for its writer")
    func refusesPipe() throws {
        let path = folder.file("pipe")
        try #require(mkfifo(path, 0o600) == 0)
        let error = try #require(refusal(path))
        #expect(error.code == .notRegularFile)
        #expect(error.message == "is not a regular file; pass the path of a file")
    }

    @Test("refuses an empty file")
    func refusesEmpty() throws {
        let error = try #require(refusal(write([], to: "empty")))
        #expect(error.code == .empty)
        #expect(error.message == "is empty; it may be left from a copy that failed")
    }

    @Test("refuses a file that is missing", arguments: ["missing", "missing/file"])
    func refusesMissing(name: String) throws {
        let error = try #require(refusal(folder.file(name)))
        #expect(error.code == .notFound)
        #expect(error.message == "cannot open it: No such file or directory; check the path")
    }
}
