import Foundation
import TestSupport
import Testing
import ThinkCompress

@Suite struct AtomicFileWriterTests {
    private let folder: TemporaryFolder
    private let path: String

    init() throws {
        folder = try TemporaryFolder()
        path = folder.file("cache.tkv")
    }

    private func content(_ name: String = "cache.tkv") -> [UInt8]? {
        FileManager.default.contents(atPath: folder.file(name)).map { Array($0) }
    }

    private func putExisting(_ bytes: [UInt8]) throws { try Data(bytes).write(to: URL(filePath: path)) }

    private func refusal(_ path: String, replacingExisting: Bool = false) -> FileError? {
        #expect(throws: FileError.self) {
            _ = try AtomicFileWriter(path: path, replacingExisting: replacingExisting)
        }
    }

    @Test("makes the file appear under its name only with commit, and leaves nothing else")
    func appearsWhole() throws {
        let writer = try AtomicFileWriter(path: path, replacingExisting: false)
        try writer.write(SharedBytes([4, 5, 6]).span, at: 3)
        let partial = try #require(folder.content.first)
        #expect(folder.content.count == 1)
        #expect(partial.hasPrefix(".cache.tkv."))
        #expect(partial.hasSuffix(".think-compress.partial"))
        try writer.write(SharedBytes([1, 2, 3]).span, at: 0)
        try writer.commit()
        #expect(folder.content == ["cache.tkv"])
        #expect(content() == [1, 2, 3, 4, 5, 6])
    }

    @Test("reads as zero what was never written")
    func gapsAreZero() throws {
        let writer = try AtomicFileWriter(path: path, replacingExisting: false)
        try writer.write(SharedBytes([7]).span, at: 5)
        try writer.write(SharedBytes([]).span, at: 9)
        try writer.commit()
        #expect(content() == [0, 0, 0, 0, 0, 7])
    }

    @Test("leaves nothing in the folder without commit")
    func nothingWithoutCommit() throws {
        let writer = try AtomicFileWriter(path: path, replacingExisting: false)
        try writer.write(SharedBytes([1, 2, 3]).span, at: 0)
        #expect(folder.content.count == 1)
        _ = consume writer
        #expect(folder.content == [])
    }

    @Test("leaves the old file as it was without commit")
    func oldFileStaysWithoutCommit() throws {
        try putExisting([1, 2])
        let writer = try AtomicFileWriter(path: path, replacingExisting: true)
        try writer.write(SharedBytes([3, 4, 5]).span, at: 0)
        #expect(content() == [1, 2])
        _ = consume writer
        #expect(content() == [1, 2])
        #expect(folder.content == ["cache.tkv"])
    }

    @Test("replaces a file where that is allowed")
    func replaces() throws {
        try putExisting([1, 2, 3, 4])
        let writer = try AtomicFileWriter(path: path, replacingExisting: true)
        try writer.write(SharedBytes([9]).span, at: 0)
        try writer.commit()
        #expect(content() == [9])
        #expect(folder.content == ["cache.tkv"])
    }

    @Test("refuses a file that exists unless it is replaced")
    func refusesExisting() throws {
        try putExisting([1])
        let error = try #require(refusal(path))
        #expect(error.code == .alreadyExists)
        #expect(error.description == "\(path): exists already; choose another name or pass --force")
        #expect(content() == [1])
        #expect(folder.content == ["cache.tkv"])
    }

    @Test("refuses a name that was taken while it wrote")
    func refusesNameTakenMeanwhile() throws {
        let writer = try AtomicFileWriter(path: path, replacingExisting: false)
        try writer.write(SharedBytes([2]).span, at: 0)
        try putExisting([1])
        do {
            try writer.commit()
            Issue.record("commit took a name that was taken")
        } catch {
            #expect(error.code == .alreadyExists)
        }
        #expect(content() == [1])
        #expect(folder.content == ["cache.tkv"])
    }

    @Test("refuses a directory and a device, also when replacing", arguments: [false, true])
    func refusesOtherKinds(replacingExisting: Bool) throws {
        let directory = try #require(refusal(folder.path, replacingExisting: replacingExisting))
        #expect(directory.code == .notRegularFile)
        #expect(directory.message == "is a directory; pass the name of a file to write")
        let device = try #require(refusal("/dev/null", replacingExisting: replacingExisting))
        #expect(device.code == .notRegularFile)
        #expect(device.message == "is not a regular file; pass the name of a file to write")
        #expect(folder.content == [])
    }

    @Test("refuses a folder that is missing")
    func refusesMissingFolder() throws {
        let error = try #require(refusal(folder.file("missing/cache.tkv")))
        #expect(error.code == .notFound)
        #expect(error.path == folder.file("missing/cache.tkv"))
        #expect(error.message == "cannot create it: No such file or directory; check the path")
    }

    @Test("refuses a file in the place of a folder")
    func refusesFileAsFolder() throws {
        try putExisting([1])
        #expect(try #require(refusal("\(path)/inner.tkv")).code == .notFound)
    }

    @Test("refuses what is not the name of a file", arguments: ["", "/work-nowhere/missing/"])
    func refusesNoName(path: String) throws {
        let error = try #require(refusal(path))
        #expect(error.code == .notFound)
        #expect(error.message == "is not the name of a file")
    }

    @Test("tells before a long job whether a file may be written")
    func checksDestination() throws {
        try AtomicFileWriter.checkDestination(path: path, replacingExisting: false)
        try putExisting([1])
        try AtomicFileWriter.checkDestination(path: path, replacingExisting: true)
        #expect(
            throws: FileError(
                .alreadyExists,
                path: path,
                message: "exists already; choose another name or pass --force"
            )
        ) {
            try AtomicFileWriter.checkDestination(path: path, replacingExisting: false)
        }
        #expect(folder.content == ["cache.tkv"])
    }

    @Test("tells before a long job that the folder is missing")
    func checksFolderOfDestination() throws {
        let path = folder.file("missing/cache.tkv")
        let error = #expect(throws: FileError.self) {
            try AtomicFileWriter.checkDestination(path: path, replacingExisting: false)
        }
        #expect(error?.code == .notFound)
    }

    @Test("tells before a long job that a name is too long")
    func checksLengthOfName() throws {
        let path = folder.file(String(repeating: "n", count: 300))
        let error = #expect(throws: FileError.self) {
            try AtomicFileWriter.checkDestination(path: path, replacingExisting: true)
        }
        #expect(error?.message == "is too long a name; choose a shorter one")
    }

    @Test("links are not replaced, nor files that are read")
    func refusedDestinations() throws {
        let folder = try TemporaryFolder()
        let (file, link) = (folder.file("a"), folder.file("b"))
        try Data("a".utf8).write(to: URL(filePath: file))
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: file)
        for path in [link, "/dev/stdout"] {
            let error = #expect(throws: FileError.self) {
                _ = try AtomicFileWriter(path: path, replacingExisting: true)
            }
            #expect(error?.code == .notRegularFile)
        }
        let hardLink = folder.file("c")
        try FileManager.default.linkItem(atPath: file, toPath: hardLink)
        for input in [file, link, hardLink] {
            let error = #expect(throws: FileError.self) {
                try AtomicFileWriter.checkDestination(path: file, replacingExisting: true, inputs: [input])
            }
            #expect(error?.message.contains("is read as well") == true)
        }
        try AtomicFileWriter.checkDestination(path: file, replacingExisting: true, inputs: [folder.file("d")])
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "a")
    }
}
