import Foundation
import TestSupport
import Testing

/// What Formats/Vectors/manifest.json says of its files.
struct VectorManifest: Decodable {
    struct Valid: Decodable, Sendable, CustomTestStringConvertible {
        let name: String
        let recipe: String
        let reproducible: Bool
        /// Sinks of the layers that can have so many; none where it is nil.
        let sinks: Int?
        /// False where the plan's ranges are chosen by a rule that is not known; nil elsewhere.
        let appendable: Bool?
        var testDescription: String { name }
    }

    struct Archive: Decodable, Sendable, CustomTestStringConvertible {
        let name: String
        /// The profile that restores it; nil where it was made without.
        let profile: String?
        /// What makes it of the cache beside it; nil where none does.
        var recipe: String?
        var testDescription: String { name }
    }

    struct Invalid: Decodable, Sendable, CustomTestStringConvertible {
        let name: String
        let error: String
        let offset: Int
        var testDescription: String { name }
    }

    let valid: [Valid]
    let archives: [Archive]
    let invalid: [Invalid]

    /// Empty if it can't be read, which a test finds.
    static let shared: VectorManifest = {
        guard let json = try? Data(contentsOf: URL(filePath: ProjectFiles.vector("manifest.json"))),
            let manifest = try? JSONDecoder().decode(VectorManifest.self, from: json)
        else { return VectorManifest(valid: [], archives: [], invalid: []) }
        return manifest
    }()

    private init(valid: [Valid], archives: [Archive], invalid: [Invalid]) {
        self.valid = valid
        self.archives = archives
        self.invalid = invalid
    }
}
