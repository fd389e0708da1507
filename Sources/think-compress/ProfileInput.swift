internal import ArgumentParser
internal import ByteStorage
internal import LlamaDecoder
internal import ThinkCompress

/// A model's profile that a command takes with `--profile`.
struct ProfileInput {
    private let input: InputFile
    private let file: SafetensorsFile
    /// What help says of the option.
    static let help: ArgumentHelp =
        "The model's profile, as profile makes it: bits go where errors cost most. Used in place of a prompt's queries."

    /// Opens the file of a name; nil where there is none.
    init?(_ name: String?) async throws {
        guard let name else { return nil }
        let input = try InputFile(name)
        file = try await about(input) { try SafetensorsFile(MappedFile.bytes(path: input.path)) }
        self.input = input
    }

    /// The text that came with the file.
    var metadata: [String: String] { file.metadata }

    /// The SHA-256 of the file, in hex.
    ///
    /// - Throws: `FileError` if it can't be read.
    func digest() async throws -> String {
        try await about(input) { try FileDigests(folder: nil).digest(path: input.path) }
    }

    /// The profile of every layer of a model.
    ///
    /// - Throws: `InputError` if it is of another one.
    func layers(metadata: [String: String], geometry: CacheGeometry) async throws -> [LayerProfile] {
        try await about(input) { try ModelProfile.read(file, metadata: metadata, geometry: geometry) }
    }
}
