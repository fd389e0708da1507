import Foundation
import Synchronization
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

/// What killed processes left behind.
@Suite struct PartialFileTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    private func put(_ name: String) throws { try Data([1]).write(to: URL(filePath: folder.file(name))) }

    private func write(_ name: String) throws {
        let writer = try AtomicFileWriter(path: folder.file(name), replacingExisting: true)
        try writer.write(SharedBytes([1, 2]).span, at: 0)
        try writer.commit()
    }

    @Test("the next writer of a folder removes partial files that nobody holds, whatever they were to be")
    func removesAbandoned() throws {
        for number in 0..<40 {
            let digits = String(repeating: "0", count: 11) + "\(10 + number)"
            try put(".file \(number).tkv.\(digits).think-compress.partial")
        }
        try write("a.tkv")
        #expect(folder.content == ["a.tkv"])
    }

    @Test("files of others stay, and those that are held")
    func keepsOthers() throws {
        let held = ".b.0123456789abc.think-compress.partial"
        let others = [
            ".b.0123456789abc.partial", ".b.0123.think-compress.partial", ".b.0123456789ABC.think-compress.partial",
            "b.0123456789abc.think-compress.partial", ".0123456789abc.think-compress.partial", "think-compress.partial",
        ]
        for name in others + [held] { try put(name) }
        let descriptor = open(folder.file(held), O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        try #require(flock(descriptor, LOCK_EX | LOCK_NB) == 0)
        let link = ".l.0123456789abc.think-compress.partial"
        try FileManager.default.createSymbolicLink(
            atPath: folder.file(link),
            withDestinationPath: folder.file("think-compress.partial")
        )
        let directory = ".d.0123456789abc.think-compress.partial"
        try FileManager.default.createDirectory(atPath: folder.file(directory), withIntermediateDirectories: false)
        try write("a.tkv")
        #expect(folder.content == (others + [held, link, directory, "a.tkv"]).sorted())
    }

    @Test("writers of one folder never take each other's files for stale ones")
    func concurrentWriters() {
        let failures = Mutex(0)
        DispatchQueue.concurrentPerform(iterations: 8) { worker in
            for round in 0..<50 {
                do {
                    try write("\(worker)-\(round).tkv")
                } catch {
                    failures.withLock { $0 += 1 }
                }
            }
        }
        #expect(failures.withLock { $0 } == 0)
        #expect(folder.content.count == 400)
        #expect(!folder.content.contains { $0.hasSuffix(".partial") })
    }
}
