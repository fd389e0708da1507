import Foundation
import TestSupport
import Testing
import ThinkCompress

@Suite struct AppendedFileTests {
    private let folder: TemporaryFolder
    private let path: String

    init() throws {
        folder = try TemporaryFolder()
        path = folder.file("journal")
    }

    private func content() throws -> [UInt8] { Array(try Data(contentsOf: URL(filePath: path))) }

    private func append(_ bytes: [UInt8], to file: AppendedFile) throws { try file.append(bytes.span.bytes) }

    @Test("appends to a new file, and to one that is there")
    func appends() throws {
        try append([1, 2], to: try AppendedFile(path: path))
        let file = try AppendedFile(path: path)
        #expect(file.byteCount == 2)
        #expect(try file.content() == [1, 2])
        try append([3], to: file)
        #expect(try content() == [1, 2, 3])
        try file.truncate(to: 1)
        try append([4, 5], to: file)
        #expect(try content() == [1, 4, 5])
        #expect(try file.content() == [1, 4, 5])
    }

    @Test("is held by one at a time")
    func locked() throws {
        let file = try AppendedFile(path: path)
        let error = #expect(throws: FileError.self) { try AppendedFile(path: path) }
        #expect(error?.code == .inUse)
        try append([1], to: file)
    }

    @Test("a file that was removed or replaced meanwhile is an error", arguments: [false, true])
    func removed(isReplaced: Bool) throws {
        let file = try AppendedFile(path: path)
        try append([1], to: file)
        try FileManager.default.removeItem(atPath: path)
        if isReplaced { try Data([1]).write(to: URL(filePath: path)) }
        let error = #expect(throws: FileError.self) { try append([2], to: file) }
        #expect(error?.code == .changed)
        #expect(error?.description.hasPrefix("\(path): was removed or replaced while it was written") == true)
        if isReplaced { #expect(try content() == [1]) } else { #expect(folder.content == []) }
    }

    @Test("a file that another program wrote to or cut short is an error, and stays as it is", arguments: [0, 1, 3])
    func changed(length: UInt64) throws {
        let file = try AppendedFile(path: path)
        try append([1, 2], to: file)
        let handle = try FileHandle(forUpdating: URL(filePath: path))
        try handle.truncate(atOffset: length)
        try handle.close()
        let error = #expect(throws: FileError.self) { try append([3], to: file) }
        #expect(error?.code == .changed)
        #expect(try content() == Array([1, 2, 0].prefix(Int(length))))
    }

    @Test("follows a link to the file")
    func link() throws {
        try append([1], to: try AppendedFile(path: path))
        let link = folder.file("link")
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: path)
        try append([2], to: try AppendedFile(path: link))
        #expect(try content() == [1, 2])
    }

    @Test("refuses what can't be written", arguments: ["", "missing/journal"])
    func refuses(name: String) throws {
        #expect(throws: FileError.self) { try AppendedFile(path: folder.file(name)) }
        #expect((#expect(throws: FileError.self) { try AppendedFile(path: "/dev/null") })?.code == .notRegularFile)
    }
}
