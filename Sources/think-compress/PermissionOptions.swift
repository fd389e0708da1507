internal import ArgumentParser
internal import ByteStorage

/// Who may use what is written of a prompt.
struct PermissionOptions: ParsableArguments {
    @Option(
        name: .customLong("mode"),
        help: ArgumentHelp(
            "Permissions of the output, such as 640.",
            discussion: """
                By default a new file is its owner's alone (600), as caches can be read back, and one that is replaced \
                keeps its permissions, but for what those of the inputs do not give.
                """,
            valueName: "octal"
        )
    )
    var octal: String?

    /// The mode that was asked for.
    var mode: FileMode? { octal.flatMap(FileMode.init(octal:)) }

    func validate() throws {
        if let octal, mode == nil {
            throw ValidationError("--mode \(octal): must be octal and let the owner read and write, such as 640")
        }
    }
}
