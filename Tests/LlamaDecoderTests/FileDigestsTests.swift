import Foundation
import LlamaDecoder
import TestSupport
import Testing

/// Digests of files that are remembered, and what is not believed.
@Suite struct FileDigestsTests {
    private let folder: TemporaryFolder
    private var path: String { folder.file("weights") }
    private var cache: String { folder.file("caches/think-compress/digests") }
    /// Remembers files that were written just now, too.
    private var digests: FileDigests { FileDigests(folder: cache, restTime: .zero) }

    /// The SHA-256 of a mebibyte of one letter.
    private static let ofLetters = "9bc1b2a288b26af7257a36277ae3816a7d4f16e89c1e7e77d0a5c48bad62b360"

    init() throws {
        folder = try TemporaryFolder()
        try write("a")
    }

    private func write(_ letter: String, count: Int = FileDigests.smallestFile) throws {
        let file = try FileHandle(forWritingTo: try made(path))
        try file.truncate(atOffset: 0)
        try file.write(contentsOf: Data(repeating: letter.utf8.first ?? 0, count: count))
        try file.close()
        // Clocks of file systems may stand still from one write to the next.
        let number = Double(letter.utf8.first ?? 0)
        try FileManager.default.setAttributes(
            [.modificationDate: Date(timeIntervalSince1970: number)],
            ofItemAtPath: path
        )
    }

    private func made(_ path: String) throws -> URL {
        if !FileManager.default.fileExists(atPath: path) { try Data().write(to: URL(filePath: path)) }
        return URL(filePath: path)
    }

    private func permissions(_ path: String) throws -> Int? {
        try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
    }

    private func entries() throws -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: cache)) ?? []).map { "\(cache)/\($0)" }
    }

    /// Puts another digest into what is remembered, so that it shows whether it is used.
    private func forge(_ entry: String, _ change: (String) -> String) throws {
        let text = try String(contentsOfFile: entry, encoding: .utf8)
        try Data(change(text).utf8).write(to: URL(filePath: entry))
    }

    @Test func aDigestIsRememberedForTheOwnerAlone() throws {
        #expect(try digests.digest(path: path) == Self.ofLetters)
        let entry = try #require(try entries().first)
        #expect(try entries().count == 1)
        #expect(try permissions(entry) == 0o600)
        #expect(try permissions(cache) == 0o700)
        #expect(try permissions(folder.file("caches/think-compress")) == 0o700)
        #expect(try digests.digest(path: path) == Self.ofLetters)
        #expect(try entries() == [entry])
    }

    @Test func whatIsRememberedIsUsed() throws {
        #expect(try digests.digest(path: path) == Self.ofLetters)
        let entry = try #require(try entries().first)
        let before = try String(contentsOfFile: entry, encoding: .utf8)
        #expect(before.hasPrefix(Self.ofLetters + " "))
        #expect(before.utf8.count == 130)
        let modified = try FileManager.default.attributesOfItem(atPath: entry)[.modificationDate] as? Date
        #expect(try digests.digest(path: path) == Self.ofLetters)
        // It was not written again.
        #expect(try FileManager.default.attributesOfItem(atPath: entry)[.modificationDate] as? Date == modified)
    }

    @Test func aFileThatChangedIsReadAgain() throws {
        #expect(try digests.digest(path: path) == Self.ofLetters)
        try write("b")
        #expect(try digests.digest(path: path) != Self.ofLetters)
        #expect(try entries().count == 2)
    }

    @Test func aFileThatWasWrittenJustNowIsNotRemembered() throws {
        #expect(try FileDigests(folder: cache).digest(path: path) == Self.ofLetters)
        #expect(try entries().isEmpty)
    }

    @Test func anotherFileOfTheSameLengthIsReadAgain() throws {
        #expect(try digests.digest(path: path) == Self.ofLetters)
        try FileManager.default.removeItem(atPath: path)
        try write("b")
        #expect(try digests.digest(path: path) != Self.ofLetters)
    }

    @Test(arguments: ["digest", "check", "end", "empty", "length", "garbage"]) func damageIsIgnored(kind: String) throws
    {
        #expect(try digests.digest(path: path) == Self.ofLetters)
        let entry = try #require(try entries().first)
        try forge(entry) { text in
            switch kind {
            case "digest": "0" + text.dropFirst()
            case "check": String(text.prefix(70)) + (text.dropFirst(70).first == "0" ? "1" : "0") + text.dropFirst(71)
            case "end": String(text.dropLast())
            case "empty": ""
            case "length": text + "\n"
            default: String(repeating: "x", count: text.count)
            }
        }
        #expect(try digests.digest(path: path) == Self.ofLetters)
        // It was mended.
        #expect(try String(contentsOfFile: entry, encoding: .utf8).hasPrefix(Self.ofLetters + " "))
    }

    @Test func aRecordOfAnotherFileIsIgnored() throws {
        #expect(try digests.digest(path: path) == Self.ofLetters)
        let first = try #require(try entries().first)
        try write("b")
        let other = try digests.digest(path: path)
        let second = try #require(try entries().first { $0 != first })
        try Data(contentsOf: URL(filePath: first)).write(to: URL(filePath: second))
        #expect(try digests.digest(path: path) == other)
    }

    @Test func smallFilesAreNotRemembered() throws {
        try write("a", count: FileDigests.smallestFile - 1)
        _ = try digests.digest(path: path)
        #expect(try entries().isEmpty)
    }

    @Test func nothingIsRememberedWhereItCanNotBe() throws {
        #expect(try FileDigests(folder: nil).digest(path: path) == Self.ofLetters)
        #expect(try FileDigests(folder: "/dev/null/digests").digest(path: path) == Self.ofLetters)
        // A folder that others can write to is nobody's to believe.
        try FileManager.default.createDirectory(atPath: cache, withIntermediateDirectories: true)
        try FileManager.default.setAttributes([.posixPermissions: 0o777], ofItemAtPath: cache)
        #expect(try digests.digest(path: path) == Self.ofLetters)
        #expect(try entries().isEmpty)
    }

    @Test func theOldestGo() throws {
        try FileManager.default.createDirectory(
            atPath: cache,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        for number in 0..<FileDigests.maximumCount + 5 {
            let entry = "\(cache)/0-0-0-0-0-0-\(String(number, radix: 16))"
            try Data().write(to: URL(filePath: entry))
            let age = Date(timeIntervalSince1970: 1_000_000 + Double(number))
            try FileManager.default.setAttributes([.modificationDate: age], ofItemAtPath: entry)
        }
        try Data().write(to: URL(filePath: "\(cache)/another file"))
        #expect(try digests.digest(path: path) == Self.ofLetters)
        let names = Set(try entries().map { String($0.dropFirst(cache.count + 1)) })
        #expect(names.count == FileDigests.maximumCount + 1)
        #expect(names.contains("another file"))
        #expect(!names.contains("0-0-0-0-0-0-5") && names.contains("0-0-0-0-0-0-6"))
    }

    @Test func manyAtOnceAgree() async throws {
        let digests = digests
        let path = path
        let results = await withTaskGroup(of: String?.self) { group in
            for _ in 0..<16 { group.addTask { try? digests.digest(path: path) } }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(results == [String?](repeating: Self.ofLetters, count: 16))
        #expect(try entries().count == 1)
    }

    @Test func aMissingFileIsNamed() {
        #expect(throws: (any Error).self) { try digests.digest(path: folder.file("none")) }
    }
}
