#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// Writes a file that appears under its name whole or not at all.
///
/// Bytes go to a temporary file in the same folder, `.NAME.RANDOM.think-compress.partial`, which `commit` synchronizes and
/// renames; without `commit` it is removed. Only a process that is killed leaves it behind, for the next writer of that
/// folder to remove.
public struct AtomicFileWriter: ~Copyable, Sendable {
    private let path: String
    private let replacesExisting: Bool
    private let folder: Folder
    private var partial: PartialFile

    /// Begins a file.
    ///
    /// - Parameters:
    ///   - replacingExisting: whether a regular file of that name may be replaced.
    ///   - access: who may use the file.
    /// - Throws: `FileError` if the name is taken, or the folder can't be written to.
    public init(path: String, replacingExisting: Bool, access: FileAccess = .standard) throws(FileError) {
        try Self.checkName(path: path, replacingExisting: replacingExisting)
        let folder = try Folder(of: path)
        folder.removeAbandonedFiles()
        var replaced = stat()
        let isReplacing = unsafe lstat(path, &replaced) == 0
        let partial = try PartialFile.create(
            for: path,
            permissions: isReplacing ? 0o600 : access.initialPermissions(in: folder)
        )
        try access.apply(to: partial.file, replacing: isReplacing ? replaced : nil, path: path)
        self.path = path
        self.folder = folder
        self.partial = partial
        replacesExisting = replacingExisting
    }

    /// Checks that a file may be written at `path`, so that a long job can refuse before it begins: a partial file is
    /// created beside it and removed.
    ///
    /// Symbolic links are refused: what is renamed over one replaces the link and not the file that it names, which
    /// for `/dev/stdout` would be the system's.
    ///
    /// - Parameter inputs: files that must not be replaced because they are read, whatever name they are read by.
    public static func checkDestination(
        path: String,
        replacingExisting: Bool,
        inputs: [String] = []
    ) throws(FileError) {
        try checkName(path: path, replacingExisting: replacingExisting, inputs: inputs)
        _ = try PartialFile.create(for: path, permissions: 0o600)
    }

    private static func checkName(
        path: String,
        replacingExisting: Bool,
        inputs: [String] = []
    ) throws(FileError) {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else {
            let number = errno
            if path.isEmpty || path.hasSuffix("/") {
                throw FileError(.notFound, path: path, message: "is not the name of a file")
            }
            if number == ENAMETOOLONG {
                throw FileError(.inputOutput, path: path, message: "is too long a name; choose a shorter one")
            }
            guard number == ENOENT else { throw FileError(errorNumber: number, path: path, action: "create it") }
            return
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            let kind =
                switch status.st_mode & S_IFMT {
                case S_IFDIR: "a directory"
                case S_IFLNK: "a symbolic link"
                default: "not a regular file"
                }
            throw FileError(.notRegularFile, path: path, message: "is \(kind); pass the name of a file to write")
        }
        for input in inputs {
            var other = stat()
            guard unsafe stat(input, &other) == 0, other.st_dev == status.st_dev, other.st_ino == status.st_ino else {
                continue
            }
            throw FileError(.alreadyExists, path: path, message: "is read as well; choose another name to write to")
        }
        guard replacingExisting else { throw FileError(errorNumber: EEXIST, path: path, action: "create it") }
    }

    /// Writes bytes at `offset`; what is never written reads as zero.
    public func write(_ bytes: RawSpan, at offset: Int) throws(FileError) {
        try partial.file.write(bytes, at: offset, path: path)
    }

    /// Makes the file appear under its name, after everything has reached the disk.
    ///
    /// - Throws: `FileError` if something could not be done. Unless its code is `.notSynchronized`, the file did not
    ///   appear; with that it did, but may be gone after a loss of power.
    public consuming func commit() throws(FileError) {
        let failure = synchronize(partial.file.number)
        guard failure == 0 else { throw FileError(errorNumber: failure, path: path, action: "write it") }
        if replacesExisting {
            try Self.moveFile(partial.path, to: path)
        } else {
            // link() refuses a name that was taken meanwhile; file systems without links get a plain rename.
            if unsafe link(partial.path, path) == 0 {
                unsafe unlink(partial.path)
            } else if errno == EEXIST {
                throw FileError(errorNumber: EEXIST, path: path, action: "name it")
            } else {
                try Self.checkName(path: path, replacingExisting: false)
                try Self.moveFile(partial.path, to: path)
            }
        }
        partial.finish()
        try folder.synchronizeName(of: path)
    }

    private static func moveFile(_ partial: String, to path: String) throws(FileError) {
        guard unsafe rename(partial, path) == 0 else {
            throw FileError(errorNumber: errno, path: path, action: "name it")
        }
    }
}
