import Foundation
import TestSupport
import Testing
import ThinkCompress

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

@Suite struct FileAccessTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    private func put(_ name: String, _ mode: mode_t) throws -> String {
        let path = folder.file(name)
        try Data([1]).write(to: URL(filePath: path))
        try #require(chmod(path, mode) == 0)
        return path
    }

    private func permissions(_ path: String) throws -> mode_t {
        var status = stat()
        try #require(stat(path, &status) == 0)
        return status.st_mode & 0o7777
    }

    /// Writes a file and returns its permissions, which it must have had from the start.
    private func write(_ access: FileAccess, over path: String? = nil) throws -> mode_t {
        let path = path ?? folder.file("new")
        let writer = try AtomicFileWriter(path: path, replacingExisting: true, access: access)
        let partial = try #require(folder.content.first { $0.hasSuffix(".partial") })
        let atFirst = try permissions(folder.file(partial))
        try writer.commit()
        #expect(try permissions(path) == atFirst)
        return atFirst
    }

    /// What the process gives a file that it makes without further ado.
    private func usual() throws -> mode_t {
        let path = folder.file("usual")
        close(open(path, O_CREAT | O_WRONLY, 0o666))
        return try permissions(path)
    }

    @Test("a new file is as the umask says, or its owner's alone")
    func newFiles() throws {
        #expect(try write(.standard) == usual())
        #expect(try write(.ownerOnly, over: folder.file("other")) == 0o600)
    }

    @Test(
        "a file that replaces another keeps its permissions",
        arguments: [0o600, 0o640, 0o644, 0o666, 0o400] as [mode_t]
    )
    func replaced(mode: mode_t) throws {
        #expect(try write(.ownerOnly, over: put("old", mode)) == mode)
        #expect(try write(.standard, over: put("old", mode)) == mode)
    }

    @Test("a mode that is asked for holds, whatever the inputs", arguments: ["600", "640", "0644", "666"])
    func explicit(octal: String) throws {
        let mode = try #require(FileMode(octal: octal))
        let input = try put("input", 0o600)
        let access = FileAccess(mode: mode, isOwnerOnly: true, inputs: [input])
        #expect(try write(access) == mode_t(mode.bits))
        #expect(try write(access, over: put("old", 0o604)) == mode_t(mode.bits))
    }

    @Test(
        "group and others get nothing of what they may not read",
        arguments: [(0o600, 0o600), (0o640, 0o660), (0o604, 0o606), (0o644, 0o666), (0o444, 0o666), (0o622, 0o600)]
            as [(mode_t, mode_t)]
    )
    func narrowed(input: mode_t, limit: mode_t) throws {
        let access = FileAccess(inputs: [try put("public", 0o644), try put("input", input)])
        #expect(try write(access) == usual() & limit)
        #expect(try write(access, over: put("old", 0o666)) == limit)
    }

    @Test("an input that is gone counts as private")
    func missingInput() throws {
        let access = FileAccess(inputs: [folder.file("missing")])
        #expect(try write(access) == 0o600)
        #expect(try write(access, over: put("old", 0o644)) == 0o600)
    }

    @Test("modes are three or four octal digits by which the owner reads and writes")
    func modes() {
        for text in ["600", "0640", "777"] { #expect(FileMode(octal: text)?.bits == UInt16(text, radix: 8)) }
        for text in ["", "6", "64", "00640", "648", "400", "244", "044", "1600", "-600", "u+r", "６００"] {
            #expect(FileMode(octal: text) == nil, "\(text)")
        }
        #expect(FileMode(octal: "0640")?.description == "640")
    }
}
