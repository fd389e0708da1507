internal import CThinkCompress
internal import KVCacheModel

/// A struct of the caller's that begins with its size: as much of it as there is, and 0 for the rest; nil is all 0.
///
/// - Throws: `Failure` if the size can't be one, or the struct says what this version doesn't know.
func sized<Struct: BitwiseCopyable>(
    _ pointer: UnsafePointer<Struct>?,
    _ name: String,
    absent: Struct
) throws(Failure) -> Struct {
    guard let pointer = unsafe pointer else { return absent }
    let source = unsafe UnsafeRawPointer(pointer)
    let size = unsafe try checkedSize(of: source, name)
    let known = min(size, MemoryLayout<Struct>.size)
    for offset in known..<size where unsafe source.load(fromByteOffset: offset, as: UInt8.self) != 0 {
        throw .invalid("\(name) has members that this version doesn't know; set them to 0, or use a newer version")
    }
    var result = absent
    unsafe withUnsafeMutableBytes(of: &result) {
        unsafe $0.copyMemory(from: UnsafeRawBufferPointer(start: source, count: known))
    }
    return result
}

/// The size that a struct of the caller's begins with.
func checkedSize(of pointer: UnsafeRawPointer, _ name: String) throws(Failure) -> Int {
    let size = unsafe pointer.load(as: Int.self)
    // Far more than any version has: what isn't initialized is found before it is believed.
    guard (MemoryLayout<Int>.size...4096).contains(size), size % MemoryLayout<Int>.alignment == 0 else {
        throw .invalid("\(name).size is \(size); set it to sizeof the struct")
    }
    return size
}

/// Writes as much of a struct as there is room for, and 0 where the caller's version has more members.
func write<Struct: BitwiseCopyable>(_ result: Struct, to place: UnsafeMutablePointer<Struct>, size: Int) {
    let room = unsafe UnsafeMutableRawBufferPointer(start: place, count: size)
    unsafe withUnsafeBytes(of: result) { result in
        let known = min(size, result.count)
        unsafe room.copyMemory(from: UnsafeRawBufferPointer(rebasing: result[..<known]))
        for offset in known..<size { unsafe room[offset] = 0 }
    }
}

/// Text of the caller's.
func text(_ pointer: UnsafePointer<CChar>?, _ name: String) throws(Failure) -> String {
    guard let pointer = unsafe pointer else { throw .null(name) }
    guard let text = unsafe String(validatingCString: pointer) else { throw .invalid("\(name) is not UTF-8") }
    return text
}

/// Numbers of the caller's, or nil where there are none.
func array<Element: BitwiseCopyable>(_ pointer: UnsafePointer<Element>?, count: Int) -> [Element]? {
    guard let pointer = unsafe pointer else { return nil }
    return unsafe Array(UnsafeBufferPointer(start: pointer, count: count))
}

/// Metadata of the caller's.
func dictionary(_ metadata: UnsafePointer<tc_metadata>?, count: Int, _ name: String) throws -> [String: String] {
    try (0...KVCache.maximumMetadataEntries).check(count, "\(name)_count")
    guard count > 0 else { return [:] }
    guard let metadata = unsafe metadata else { throw Failure.null(name) }
    var result: [String: String] = [:]
    for index in 0..<count {
        let key = unsafe try text(metadata[index].key, "\(name)[\(index)].key")
        guard result[key] == nil else { throw Failure.invalid("\(name)[\(index)].key is there twice: '\(key)'") }
        result[key] = unsafe try text(metadata[index].value, "\(name)[\(index)].value")
    }
    return result
}

extension ClosedRange<Int> {
    /// - Throws: `Failure` if a number of the caller's is outside.
    func check(_ number: Int, _ name: @autoclosure () -> String) throws(Failure) {
        // Those above Int.max, as size_t may be, are negative here.
        guard !contains(number) else { return }
        throw .invalid("\(name()) is \(UInt(bitPattern: number)), must be \(lowerBound) to \(upperBound)")
    }
}

extension tc_type {
    init(_ type: ElementType) { self.init(rawValue: type.rawValue) }
}

extension ElementType {
    /// - Throws: `Failure` if a type of the caller's is none.
    init(_ type: tc_type, _ name: @autoclosure () -> String) throws(Failure) {
        guard let known = ElementType(rawValue: type.rawValue) else {
            throw .invalid("\(name()) is \(type.rawValue), must be 1 to 3")
        }
        self = known
    }
}

extension tc_layer_shape {
    init(_ geometry: LayerGeometry) {
        self.init(
            query_heads: geometry.queryHeads,
            kv_heads: geometry.kvHeads,
            key_dimension: geometry.keyDimension,
            value_dimension: geometry.valueDimension
        )
    }
}
