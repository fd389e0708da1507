import Foundation
import TestSupport
import Testing
import ThinkCompress

extension BuiltCommandTests {
    /// Who may read what is written.
    @Suite struct PermissionTests {
        private static func mode(_ path: String) throws -> Int? {
            try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        }

        private static func setMode(_ mode: Int, _ path: String) throws {
            try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
        }

        @Test("new snapshots and dumps are their owner's alone, and --mode says otherwise")
        func newFiles() async throws {
            let folder = try TemporaryFolder()
            let dump = try writeSmallDump(in: folder)
            try Self.setMode(0o644, dump)
            let snapshot = try await makeSnapshot(of: dump, in: folder)
            #expect(try Self.mode(snapshot) == 0o600)
            for (option, expected) in [([], 0o600), (["--mode", "644"], 0o644), (["--mode", "0640"], 0o640)] {
                let output = folder.file("restored\(option.count)\(expected)")
                let result = try await Subprocess.run(
                    BuiltCommand.found(),
                    ["restore", snapshot, "-o", output] + option
                )
                #expect(result.status == 0, "\(result.errors)")
                #expect(try Self.mode(output) == expected)
            }
            let open = try await BuiltCommand.run(
                "snapshot",
                dump,
                "-o",
                folder.file("b.tkv"),
                "--codec",
                "f16",
                "--mode",
                "664"
            )
            #expect(open.status == 0)
            #expect(try Self.mode(folder.file("b.tkv")) == 0o664)
        }

        @Test("a file that is replaced keeps its mode, but gives no more than the input does")
        func replacedFiles() async throws {
            let folder = try TemporaryFolder()
            let snapshot = try await makeSnapshot(of: writeSmallDump(in: folder), in: folder)
            for (input, old, expected) in [(0o644, 0o640, 0o640), (0o644, 0o644, 0o644), (0o600, 0o644, 0o600)] {
                try Self.setMode(input, snapshot)
                try Data().write(to: URL(filePath: folder.file("r")))
                try Self.setMode(old, folder.file("r"))
                let result = try await BuiltCommand.run("restore", snapshot, "-o", folder.file("r"), "--force")
                #expect(result.status == 0, "\(result.errors)")
                #expect(try Self.mode(folder.file("r")) == expected)
            }
        }

        @Test("a mode that is none is wrong usage", arguments: ["9", "400", "u+r", ""])
        func wrongMode(octal: String) async throws {
            let result = try await BuiltCommand.run("restore", "a", "-o", "b", "--mode", octal)
            #expect(result.status == 2)
            #expect(result.errors.hasPrefix("think-compress: --mode \(octal): must be octal"))
        }
    }
}
