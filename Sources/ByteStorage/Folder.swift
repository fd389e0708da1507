#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// The folder that a file is written to, to be searched and synchronized.
struct Folder: ~Copyable, Sendable {
    /// -1 where the folder may be written to but not read, and so can be neither.
    private let descriptor: Int32

    /// Opens the folder of the file `path`.
    init(of path: String) throws(FileError) {
        descriptor = uninterrupted { unsafe open(Self.path(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
        guard descriptor >= 0 || errno == EACCES else {
            throw FileError(errorNumber: errno, path: path, action: "create it")
        }
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    /// The path of the folder of a file.
    static func path(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// The group that new files in it get.
    var groupOfNewFiles: gid_t {
        var status = stat()
        guard unsafe descriptor >= 0 && fstat(descriptor, &status) == 0 else { return getegid() }
        #if canImport(Darwin)
            return status.st_gid
        #else
            return status.st_mode & S_ISGID != 0 ? status.st_gid : getegid()
        #endif
    }

    /// Brings the names in it to the disk; a file's own synchronization doesn't.
    ///
    /// - Parameter path: a file that just got its name there.
    func synchronizeName(of path: String) throws(FileError) {
        let failure = descriptor < 0 ? 0 : synchronize(descriptor)
        guard failure != 0 else { return }
        let reason = unsafe String(cString: strerror(failure))
        throw FileError(
            .notSynchronized,
            path: path,
            message:
                "is written, but its folder can't be brought to disk: \(reason); the file may be gone after a loss of "
                + "power, so check the disk and write it again"
        )
    }

    // MARK: - Files that were left behind

    /// How many names of a folder are looked at, so that a writer never waits long for a large one.
    private static let maximumNames = 10_000

    /// Removes partial files that no process holds. What goes wrong is left for the next writer.
    func removeAbandonedFiles() {
        guard descriptor >= 0 else { return }
        let listing = uninterrupted { unsafe openat(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
        guard listing >= 0 else { return }
        guard let directory = unsafe fdopendir(listing) else {
            close(listing)
            return
        }
        defer { unsafe closedir(directory) }
        for _ in 0..<Self.maximumNames {
            guard let entry = unsafe readdir(directory) else { return }
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if PartialFile.isName(name) { removeIfAbandoned(name) }
        }
    }

    private func removeIfAbandoned(_ name: String) {
        let flags = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC
        // Some file systems lock only what may be written to; a file that replaces a read-only one may only be read.
        var file = uninterrupted { unsafe openat(descriptor, name, O_RDWR | flags) }
        if file < 0, errno == EACCES { file = uninterrupted { unsafe openat(descriptor, name, O_RDONLY | flags) } }
        guard file >= 0 else { return }
        defer { close(file) }
        guard uninterrupted({ flock(file, LOCK_EX | LOCK_NB) }) == 0 else { return }
        // With the lock held, its maker can't be about to use it; the name may have become another file's meanwhile.
        var (held, named) = (stat(), stat())
        guard unsafe fstat(file, &held) == 0, held.isRegularFile,
            unsafe fstatat(descriptor, name, &named, AT_SYMLINK_NOFOLLOW) == 0, held.isSameFile(as: named)
        else { return }
        unsafe unlinkat(descriptor, name, 0)
    }
}
