#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// Who may use a file that is written.
///
/// `mode` is what it says. Without it, a file that is replaced keeps its permissions (and its group, where the system
/// lets it), and a new one has those that the process gives files, or is its owner's alone. Either is narrowed so that
/// group and others may do nothing with a file that is made from `inputs` which they may not read.
public struct FileAccess: Sendable {
    /// The permissions that the file gets, whatever else holds.
    public var mode: FileMode?
    /// Whether a new file is its owner's alone.
    public var isOwnerOnly: Bool
    /// Files whose content the new one tells of. One that is gone by then counts as its owner's alone.
    public var inputs: [String]

    public init(mode: FileMode? = nil, isOwnerOnly: Bool = false, inputs: [String] = []) {
        self.mode = mode
        self.isOwnerOnly = isOwnerOnly
        self.inputs = inputs
    }

    /// For what tells of a prompt, as caches do: a new file is its owner's alone.
    public static let ownerOnly = FileAccess(isOwnerOnly: true)
    /// A new file has the permissions that the process gives files.
    public static let standard = FileAccess()

    /// What a file of a group may give at the most, because of the inputs.
    private func limit(group: gid_t) -> mode_t {
        inputs.reduce(0o777) { limit, input in
            var status = stat()
            guard unsafe stat(input, &status) == 0 else { return limit & 0o700 }
            let othersRead = status.st_mode & S_IROTH != 0
            let groupReads = status.st_gid == group ? status.st_mode & S_IRGRP != 0 : othersRead
            return limit & (0o700 | (groupReads ? 0o070 : 0) | (othersRead ? 0o007 : 0))
        }
    }

    /// The permissions to create a file with, before the process's umask.
    func initialPermissions(in folder: borrowing Folder) -> mode_t {
        mode != nil || isOwnerOnly ? 0o600 : 0o666 & limit(group: folder.groupOfNewFiles)
    }

    /// Gives a file that was just created, and holds nothing yet, the permissions that it is to have.
    ///
    /// Some file systems have no permissions of their own; that is an error only where a mode is asked for.
    ///
    /// - Parameter replaced: the file whose place it takes, if there is one.
    func apply(to file: borrowing FileDescriptor, replacing replaced: stat?, path: String) throws(FileError) {
        if let mode {
            guard uninterrupted({ fchmod(file.number, mode_t(mode.bits)) }) == 0 else {
                throw FileError(errorNumber: errno, path: path, action: "give it the mode \(mode)")
            }
            return
        }
        if let replaced, let status = file.status,
            status.st_uid != replaced.st_uid || status.st_gid != replaced.st_gid,
            fchown(file.number, replaced.st_uid, replaced.st_gid) != 0
        {
            // Only the system's administrator gives files away; groups of one's own are anybody's to give.
            _ = fchown(file.number, .max, replaced.st_gid)
        }
        guard let status = file.status else { return }
        var permissions = (replaced ?? status).permissions & limit(group: status.st_gid)
        if let replaced, replaced.st_gid != status.st_gid {
            // Another group than before gets no more than everybody does.
            permissions &= 0o707 | (permissions & 0o007) << 3
        }
        if permissions != status.permissions { _ = uninterrupted { fchmod(file.number, permissions) } }
    }
}

/// The permissions of a file, such as 640: its owner reads and writes, its group reads.
public struct FileMode: Sendable, Equatable, CustomStringConvertible {
    /// Three times three bits: read, write, execute for owner, group and others.
    public let bits: UInt16

    /// Reads three or four octal digits; nil if it is anything else, or something that its owner can't read and write.
    public init?(octal text: String) {
        guard (3...4).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x37).contains($0) }),
            let bits = UInt16(text, radix: 8), bits <= 0o777, bits & 0o600 == 0o600
        else { return nil }
        self.bits = bits
    }

    public var description: String { String(bits, radix: 8) }
}
