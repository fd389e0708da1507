#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// Writes a file that appears under its name whole or not at all.
///
/// Bytes go to a temporary file in the same folder, `.NAME.RANDOM.partial`, which `commit` synchronizes and renames;
/// without `commit` it is removed. Only a process that is killed leaves it behind.
public struct AtomicFileWriter: ~Copyable, Sendable {
    private let path: String
    private let temporaryPath: String
    private let replacesExisting: Bool
    private let descriptor: Int32
    private var isCommitted = false

    /// Begins a file.
    ///
    /// - Parameter replacingExisting: whether a regular file of that name may be replaced.
    /// - Throws: `FileError` if the name is taken, or the folder can't be written to.
    public init(path: String, replacingExisting: Bool) throws(FileError) {
        try Self.checkName(path: path, replacingExisting: replacingExisting)
        let temporaryPath = Self.temporaryPath(for: path)
        let descriptor = unsafe open(temporaryPath, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw FileError(errorNumber: errno, path: path, action: "create it") }
        self.path = path
        self.temporaryPath = temporaryPath
        self.descriptor = descriptor
        replacesExisting = replacingExisting
    }

    deinit {
        close(descriptor)
        if !isCommitted { unsafe unlink(temporaryPath) }
    }

    /// A name for the temporary file of a file, in the same folder.
    private static func temporaryPath(for path: String) -> String {
        // Not more of the name than fits into a legal one with what is added.
        let name = String((path.split(separator: "/").last ?? "").unicodeScalars.prefix(50))
        let random = String(UInt64.random(in: .min ... .max), radix: 36)
        return "\(folder(of: path))/.\(name).\(random).partial"
    }

    /// Checks that a file may be written at `path`, so that a long job can refuse before it begins: a temporary file is
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
        try tryToCreate(beside: path)
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

    /// Creates a temporary file as a writer would, and removes it: only so is it known that the folder takes files.
    private static func tryToCreate(beside path: String) throws(FileError) {
        let temporaryPath = temporaryPath(for: path)
        let descriptor = unsafe open(temporaryPath, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileError(errorNumber: errno, path: path, action: "create it") }
        close(descriptor)
        unsafe unlink(temporaryPath)
    }

    /// Writes bytes at `offset`; what is never written reads as zero.
    public func write(_ bytes: RawSpan, at offset: Int) throws(FileError) {
        unsafe try bytes.withUnsafeBytes { (buffer) throws(FileError) in
            var written = 0
            while written < buffer.count {
                let rest = unsafe UnsafeRawBufferPointer(rebasing: buffer[written...])
                let count = unsafe pwrite(descriptor, rest.baseAddress, rest.count, off_t(offset + written))
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else {
                    throw FileError(errorNumber: count == 0 ? EIO : errno, path: path, action: "write it")
                }
                written += count
            }
        }
    }

    /// Makes the file appear under its name, after everything has reached the disk.
    public consuming func commit() throws(FileError) {
        guard Self.synchronize(descriptor) else { throw FileError(errorNumber: errno, path: path, action: "write it") }
        if replacesExisting {
            guard unsafe rename(temporaryPath, path) == 0 else {
                throw FileError(errorNumber: errno, path: path, action: "name it")
            }
        } else {
            // link() refuses a name that was taken meanwhile; file systems without links get a plain rename.
            if unsafe link(temporaryPath, path) == 0 {
                unsafe unlink(temporaryPath)
            } else if errno == EEXIST {
                throw FileError(errorNumber: EEXIST, path: path, action: "name it")
            } else {
                try Self.checkName(path: path, replacingExisting: false)
                guard unsafe rename(temporaryPath, path) == 0 else {
                    throw FileError(errorNumber: errno, path: path, action: "name it")
                }
            }
        }
        isCommitted = true
        // The name itself is on disk only once the folder is.
        let folder = unsafe open(Self.folder(of: path), O_RDONLY | O_CLOEXEC)
        if folder >= 0 {
            _ = Self.synchronize(folder)
            close(folder)
        }
    }

    /// Brings everything to the disk itself, which fsync alone doesn't on Apple's systems.
    private static func synchronize(_ descriptor: Int32) -> Bool {
        #if canImport(Darwin)
            if fcntl(descriptor, F_FULLFSYNC) == 0 { return true }
        #endif
        return fsync(descriptor) == 0
    }

    private static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }
}
