// Functions are named as the header names them.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

internal import ByteStorage
public import CThinkCompress
internal import EngineFormats
internal import KVCacheModel

final class ProfileHandle: Handle {
    private let file: SafetensorsFile
    private let path: String
    /// What caches of the model say of it.
    private let model: [String: String]

    init(path: String, model: [String: String]) throws {
        do {
            file = try SafetensorsFile(MappedFile.bytes(path: path))
            guard try ModelProfile.geometry(of: file) != nil else {
                throw Failure(TC_DAMAGED, "\(path): is no model's profile; pass one that the command profile makes")
            }
            if !CacheIdentity.haveSameWeights(file.metadata, model),
                let mismatch = CacheIdentity.mismatch(model, file.metadata)
            {
                let message = "\(path): the profile has another \(mismatch.name); pass that of the cache's model"
                throw Failure(TC_OTHER_MODEL, message)
            }
        } catch let error as EngineFormatError {
            throw Failure(TC_DAMAGED, "\(path): \(error)")
        }
        self.path = path
        self.model = model
    }

    /// The profile of every layer of a cache.
    func layers(of geometry: CacheGeometry) throws -> [LayerProfile] {
        do {
            return try ModelProfile.read(file, metadata: model, geometry: geometry)
        } catch {
            throw Failure(error.code == .damaged ? TC_DAMAGED : TC_OTHER_MODEL, "options.profile: \(path): \(error)")
        }
    }
}

@c @implementation
public func tc_profile_open(
    _ path: UnsafePointer<CChar>?,
    _ model: UnsafePointer<tc_metadata>?,
    _ modelCount: Int,
    _ profile: UnsafeMutablePointer<OpaquePointer?>?
) -> tc_status {
    unsafe statusOf(handingOut: profile, "profile") {
        try ProfileHandle(path: unsafe text(path, "path"), model: unsafe dictionary(model, count: modelCount, "model"))
    }
}

@c @implementation
public func tc_profile_free(_ profile: OpaquePointer?) { unsafe ProfileHandle.release(profile) }
