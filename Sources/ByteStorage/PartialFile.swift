internal import CProcessGuard

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// A file under a name of its own while it is written, `.NAME.RANDOM.think-compress.partial`.
///
/// It is held by an exclusive lock (`flock`) for as long as it is open. A process that is killed leaves it behind
/// without its lock, by which the next writer of the folder knows that it may be removed.
struct PartialFile: ~Copyable, Sendable {
    let path: String
    let file: FileDescriptor
    private let registration: Int32
    private var isFinished = false

    private static let suffix = ".think-compress.partial"
    /// Digits to base 36 that say any 64-bit number.
    private static let randomDigits = 13
    /// Names that are tried: others can take a file only between its creation and its lock.
    private static let maximumTries = 100

    private init(path: String, file: consuming FileDescriptor, registration: Int32) {
        self.path = path
        self.file = file
        self.registration = registration
    }

    /// Creates a partial file in the folder of what will be `path`.
    static func create(for path: String, permissions: mode_t) throws(FileError) -> PartialFile {
        // Not more of the name than fits into a legal one with what is added.
        let name = String((path.split(separator: "/").last ?? "").unicodeScalars.prefix(50))
        for _ in 0..<maximumTries {
            let random = String(UInt64.random(in: .min ... .max), radix: 36)
            let digits = String(repeating: "0", count: randomDigits - random.count) + random
            let partial = "\(Folder.path(of: path))/.\(name).\(digits)\(suffix)"
            var registration: Int32 = TCG_NOT_COVERED
            let number = unsafe tcg_create_partial(partial, permissions, &registration)
            guard number >= 0 else { throw FileError(errorNumber: errno, path: path, action: "create it") }
            let file = PartialFile(path: partial, file: FileDescriptor(number), registration: registration)
            // Another writer may take it for one that was left behind before the lock is there: then it is removed, or
            // about to be, and another is made. Where files can't be locked, nobody removes any.
            let isLocked = uninterrupted { flock(number, LOCK_EX | LOCK_NB) } == 0
            if (isLocked || errno != EWOULDBLOCK) && file.file.hasName(partial) { return file }
        }
        throw FileError(
            .inputOutput,
            path: path,
            message: "cannot be written: files that are created in its folder are gone at once; choose another folder"
        )
    }

    deinit {
        if !isFinished { unsafe unlink(path) }
        tcg_forget_partial(registration)
    }

    /// To be called when the file has its final name, and this one no more.
    mutating func finish() { isFinished = true }

    /// Whether a name is one of these files.
    static func isName(_ name: String) -> Bool {
        guard name.hasPrefix("."), name.hasSuffix(suffix) else { return false }
        // A dot, something of a name, another dot, and the digits.
        let stem = name.utf8.dropLast(suffix.utf8.count)
        let digits = stem.suffix(randomDigits)
        return digits.count == randomDigits && stem.count > randomDigits + 2
            && stem.dropLast(randomDigits).last == UInt8(ascii: ".")
            && digits.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x7A).contains($0) }
    }
}
