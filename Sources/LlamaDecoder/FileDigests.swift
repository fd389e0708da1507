internal import ByteStorage
internal import Crypto
internal import Foundation

/// SHA-256 digests of files, which may be remembered, so that a large file is read once and not at every start.
///
/// A file is known again by its device, inode, length, and times of modification and change in nanoseconds. Whoever can
/// write bytes without those times changing, or set the clock, is not noticed: Formats/model.md, "Identity". What is
/// remembered is checked when it is read; what is damaged, or can't be read or written, is as if it weren't there.
public struct FileDigests: Sendable {
    /// The most files that are remembered; of more, those go that were remembered first.
    public static let maximumCount = 1000
    /// Files with fewer bytes are not remembered: they are read as fast as one that says what they are.
    public static let smallestFile = 1 << 20
    /// A digest in hex.
    private static let digestLength = SHA256.byteCount * 2

    /// Where digests are remembered, a file each; nil for nowhere.
    private let folder: String?
    private let restTime: Duration

    /// - Parameters:
    ///   - folder: where digests are remembered; made for its owner alone when the first one is. Nil for nowhere.
    ///   - restTime: how long a file must have been left alone to be remembered: one that is written to again within the
    ///     grain of the file system's clock has the same times.
    public init(folder: String?, restTime: Duration = .seconds(2)) {
        self.folder = folder
        self.restTime = restTime
    }

    /// Digests that the user's programs remember: in `XDG_CACHE_HOME`, or the user's cache folder.
    public static var ofUser: FileDigests {
        let set = ProcessInfo.processInfo.environment["XDG_CACHE_HOME"]
        #if os(macOS)
            let standard = "Library/Caches"
        #else
            let standard = ".cache"
        #endif
        let home = FileManager.default.homeDirectoryForCurrentUser.path
        // Relative ones are to be ignored.
        let caches = set.flatMap { $0.hasPrefix("/") ? $0 : nil } ?? "\(home)/\(standard)"
        return FileDigests(folder: "\(caches)/think-compress/digests")
    }

    /// The SHA-256 of a file in hex.
    ///
    /// - Throws: `FileError` if the file can't be read.
    public func digest(path: String) throws -> String {
        let state = FileState(path: path)
        if let state, let known = remembered(state) { return known }
        let isAtRest = state.map { $0.changed.duration + restTime < FileState.Time.now.duration } ?? false
        let bytes = try MappedFile.bytes(path: path)
        var hash = SHA256()
        unsafe bytes.withUnsafeBytes { unsafe hash.update(bufferPointer: $0) }
        let digest = hash.finalize().hex
        if let state, isAtRest, FileState(path: path) == state { remember(digest, of: state) }
        return digest
    }

    // MARK: - What is remembered

    private func remembered(_ state: FileState) -> String? {
        guard let folder, state.byteCount >= Self.smallestFile, Self.isPrivate(folder) else { return nil }
        guard let reader = try? FileReader(path: "\(folder)/\(state.name)"),
            reader.byteCount == Self.record(String(repeating: "0", count: Self.digestLength), of: state).utf8.count,
            let bytes = try? reader.bytes(0..<reader.byteCount)
        else { return nil }
        let text = unsafe bytes.withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
        let digest = String(text.prefix(Self.digestLength))
        return text == Self.record(digest, of: state) ? digest : nil
    }

    private func remember(_ digest: String, of state: FileState) {
        guard let folder, state.byteCount >= Self.smallestFile else { return }
        let files = FileManager.default
        try? files.createDirectory(
            atPath: folder,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        guard Self.isPrivate(folder) else { return }
        try? Self.write(Self.record(digest, of: state), to: "\(folder)/\(state.name)")
        guard let names = try? files.contentsOfDirectory(atPath: folder), names.count > Self.maximumCount else {
            return
        }
        let aged = names.filter(FileState.isName).map { name in
            (name: name, age: FileState(path: "\(folder)/\(name)")?.modified ?? .init(seconds: 0, nanoseconds: 0))
        }
        for (name, _) in aged.sorted(by: { ($0.age, $0.name) < ($1.age, $1.name) }).dropLast(Self.maximumCount) {
            try? files.removeItem(atPath: "\(folder)/\(name)")
        }
    }

    private static func write(_ text: String, to path: String) throws(FileError) {
        let writer = try AtomicFileWriter(
            path: path,
            replacingExisting: true,
            access: FileAccess(mode: FileMode(octal: "600"))
        )
        let bytes = Array(text.utf8)
        unsafe try writer.write(bytes.span.bytes, at: 0)
        try writer.commit()
    }

    /// The content of a file that remembers a digest: the digest, and one by which damage is found.
    private static func record(_ digest: String, of state: FileState) -> String {
        "\(digest) \(SHA256.hash(data: Data("\(state.name) \(digest)".utf8)).hex)\n"
    }

    /// Whether nobody else can write to a folder.
    private static func isPrivate(_ folder: String) -> Bool {
        var status = stat()
        return unsafe stat(folder, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR && status.st_uid == geteuid()
            && status.st_mode & (S_IWGRP | S_IWOTH) == 0
    }
}

/// What the system says of a regular file without reading it.
private struct FileState: Equatable {
    struct Time: Equatable, Comparable {
        let seconds: Int
        let nanoseconds: Int

        /// Since the system's epoch.
        var duration: Duration { .seconds(seconds) + .nanoseconds(nanoseconds) }

        static var now: Time {
            var time = timespec()
            unsafe clock_gettime(CLOCK_REALTIME, &time)
            return Time(seconds: time.tv_sec, nanoseconds: time.tv_nsec)
        }

        static func < (left: Time, right: Time) -> Bool {
            (left.seconds, left.nanoseconds) < (right.seconds, right.nanoseconds)
        }
    }

    let device: UInt64
    let inode: UInt64
    let byteCount: Int
    /// When its content was last written to.
    let modified: Time
    /// When anything about it last changed, which programs can't choose as they can the former.
    let changed: Time

    /// Nil if there is no such file.
    init?(path: String) {
        var status = stat()
        guard unsafe stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        #if canImport(Darwin)
            let (modified, changed) = (status.st_mtimespec, status.st_ctimespec)
        #else
            let (modified, changed) = (status.st_mtim, status.st_ctim)
        #endif
        device = UInt64(truncatingIfNeeded: status.st_dev)
        inode = UInt64(status.st_ino)
        byteCount = Int(status.st_size)
        self.modified = Time(seconds: modified.tv_sec, nanoseconds: modified.tv_nsec)
        self.changed = Time(seconds: changed.tv_sec, nanoseconds: changed.tv_nsec)
    }

    /// All of it, as the name of the file that remembers the digest.
    var name: String {
        let numbers = [
            device, inode, UInt64(byteCount), UInt64(bitPattern: Int64(modified.seconds)), UInt64(modified.nanoseconds),
            UInt64(bitPattern: Int64(changed.seconds)), UInt64(changed.nanoseconds),
        ]
        return numbers.map { String($0, radix: 16) }.joined(separator: "-")
    }

    /// Whether a file's name is one of these.
    static func isName(_ name: String) -> Bool {
        let numbers = name.split(separator: "-", omittingEmptySubsequences: false)
        return numbers.count == 7 && numbers.allSatisfy { UInt64($0, radix: 16) != nil }
    }
}

extension Digest {
    /// The digest in hex.
    var hex: String {
        map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
    }
}
