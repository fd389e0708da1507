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
    guard (MemoryLayout<Int>.size...4096).contains(size) else {
        throw .invalid("\(name).size is \(size); set it to sizeof the struct")
    }
    return size
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

extension ClosedRange<Int> {
    /// - Throws: `Failure` if a number of the caller's is outside.
    func check(_ number: Int, _ name: String) throws(Failure) {
        // Those above Int.max, as size_t may be, are negative here.
        guard !contains(number) else { return }
        throw .invalid("\(name) is \(UInt(bitPattern: number)), must be \(lowerBound) to \(upperBound)")
    }
}
