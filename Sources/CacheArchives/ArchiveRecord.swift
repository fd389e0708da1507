internal import ByteStorage
internal import CThinkKernels
internal import ComputeRuntime

/// A unit's numbers in a chunk, as the file has them: Formats/archive.md, "ARCHIVE CHUNKS".
enum ArchiveRecord {
    private static let stateBytes = Int(TCK_SYMBOL_STATE_BYTES)
    /// Bytes of the three counts and the lanes' states.
    static let headBytes = 12 + stateBytes
    /// Columns of numbers are padded to a multiple of so many.
    static let padding = 64

    static func padded(_ count: Int) -> Int { (count + padding - 1) / padding * padding }

    /// The symbol of a number and its low bits.
    @inline(__always)
    static func split(_ code: Int16, lowBits: Int) -> (symbol: Int, low: Int) {
        let shifted = Int(code) + half(lowBits)
        return (shifted >> lowBits, shifted & ((1 << lowBits) - 1))
    }

    /// What is added before low bits are taken off, so that they are of both sides of a symbol.
    @inline(__always)
    private static func half(_ lowBits: Int) -> Int { (1 << lowBits) >> 1 }

    // MARK: - Encoding

    /// Encodes the numbers of a unit in a chunk.
    ///
    /// - Parameters:
    ///   - codes: of each component `padded(rows.count)` numbers, in order of coding.
    ///   - tables: of each component; nil if all its numbers are 0.
    /// - Returns: nothing if there are no rows.
    static func encode(
        _ codes: UnsafePointer<Int16>,
        tables: [ComponentTable?],
        rows: ArchiveRows
    ) -> [UInt8] {
        guard rows.count > 0 else { return [] }
        let stride = padded(rows.count)
        let live = tables.indices.filter { tables[$0] != nil }
        var bytes = tables.map { $0?.byte ?? ComponentTable.zeroByte }
        while bytes.count % 4 != 0 { bytes.append(0) }
        if live.isEmpty { return bytes }

        // Symbols, escapes and low bits in the order of decoding.
        var symbols = [Int8](repeating: 0, count: live.count * stride)
        var escapes: [Int16] = []
        var bits = BitWriter()
        var calls: [(table: UInt32, start: Int, count: Int)] = []
        for (column, component) in live.enumerated() {
            guard let table = tables[component] else { continue }
            var start = 0
            for (shift, count) in rows.segments.enumerated() where count > 0 {
                let (number, lowBits) = table.symbols(shift: shift)
                let frequencies = unsafe tck_symbol_frequencies(number)
                for row in start..<start + count {
                    let code = unsafe codes[component * stride + row]
                    var (symbol, low) = split(code, lowBits: lowBits)
                    let isWide = symbol.magnitude > Int(TCK_SYMBOL_LIMIT)
                    let frequency = unsafe isWide ? 0 : frequencies?[symbol + Int(TCK_SYMBOL_LIMIT)] ?? 0
                    if frequency == 0 {
                        (symbol, low) = (Int(TCK_ESCAPE), 0)
                        escapes.append(code)
                    }
                    symbols[column * stride + row] = Int8(symbol)
                    if lowBits > 0 { bits.append(low, count: lowBits) }
                }
                calls.append((number, column * stride + start, count))
                start += count
            }
        }
        // The last symbol is coded first, and its word comes last.
        let capacity = live.count * rows.count
        var buffer = [UInt16](repeating: 0, count: capacity)
        var states = [UInt8](repeating: 0, count: stateBytes)
        let words = unsafe buffer.withUnsafeMutableBufferPointer { buffer -> [UInt8] in
            var encoder = unsafe tck_start_encoder(buffer.baseAddress, capacity)
            unsafe symbols.withUnsafeBufferPointer { symbols in
                guard let symbols = symbols.baseAddress else { return }
                for call in calls.reversed() {
                    unsafe tck_encode_symbols(&encoder, call.table, symbols + call.start, call.count)
                }
            }
            let words = unsafe tck_finish_symbols(&encoder, &states)
            let count = unsafe buffer.baseAddress.map { unsafe $0 + capacity - encoder.next } ?? 0
            return unsafe Array(UnsafeBufferPointer(start: words, count: 2 * count))
        }
        let low = bits.finish()
        for count in [escapes.count, words.count / 2, low.count] { append(UInt32(count), to: &bytes) }
        bytes += states
        for escape in escapes { append(UInt16(bitPattern: escape), to: &bytes) }
        return bytes + words + low
    }

    private static func append<Value: FixedWidthInteger>(_ value: Value, to bytes: inout [UInt8]) {
        for shift in stride(from: 0, to: Value.bitWidth, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: value >> Value(shift)))
        }
    }

    // MARK: - Decoding

    /// The numbers of a unit in a chunk.
    struct Codes {
        /// The components that have numbers other than 0, ascending.
        let components: [Int]
        /// `[components.count][padded(rows)]` 16-bit integers, in order of coding.
        let numbers: AlignedBuffer
    }

    /// Decodes a unit's record.
    ///
    /// - Throws: `ArchiveError` if it isn't one of so many components and rows; `MemoryError`.
    static func decode(_ bytes: SharedBytes, componentCount: Int, rows: ArchiveRows) throws -> Codes {
        try unsafe bytes.withUnsafeBytes { bytes in
            guard rows.count > 0 else {
                guard unsafe bytes.isEmpty else { throw damaged("has bytes and no rows") }
                return Codes(components: [], numbers: try AlignedBuffer(byteCount: 0))
            }
            let tableBytes = (componentCount + 3) / 4 * 4
            guard bytes.count >= tableBytes else { throw damaged("ends in its tables") }
            guard unsafe bytes[componentCount..<tableBytes].allSatisfy({ $0 == 0 }) else {
                throw damaged("has padding that is not 0")
            }
            let tables = unsafe Array(bytes[..<componentCount])
            if let byte = tables.first(where: { $0 > ComponentTable.largestByte }) {
                throw damaged("has table \(byte), must be at most \(ComponentTable.largestByte)")
            }
            let components = tables.indices.filter { tables[$0] != ComponentTable.zeroByte }
            let stride = padded(rows.count)
            guard !components.isEmpty else {
                guard bytes.count == tableBytes else { throw damaged("goes on after components that are all 0") }
                return Codes(components: [], numbers: try AlignedBuffer(byteCount: 0))
            }
            guard bytes.count >= tableBytes + headBytes, let base = bytes.baseAddress else {
                throw damaged("ends in its head")
            }
            func count(_ index: Int) -> Int {
                Int(
                    UInt32(
                        littleEndian: unsafe bytes.loadUnaligned(
                            fromByteOffset: tableBytes + 4 * index,
                            as: UInt32.self
                        )
                    )
                )
            }
            let (escapeCount, wordCount, lowByteCount) = (count(0), count(1), count(2))
            // A word and an escape for each symbol at the most, so that nothing overflows.
            let symbolCount = components.count * rows.count
            let start = tableBytes + headBytes
            guard escapeCount <= symbolCount, wordCount <= symbolCount,
                bytes.count - start == 2 * escapeCount + 2 * wordCount + lowByteCount
            else { throw damaged("has \(bytes.count) bytes, and its parts have others together") }
            let wordStart = start + 2 * escapeCount
            let lowStart = wordStart + 2 * wordCount

            var decoder = unsafe tck_start_decoder(base + start - stateBytes, base + wordStart, wordCount)
            guard unsafe decoder.is_valid else { throw damaged("has a state below 2^16") }

            let numbers = try AlignedBuffer(byteCount: components.count * stride * MemoryLayout<Int16>.size)
            let symbols = try AlignedBuffer(byteCount: padded(rows.count))
            var bits = unsafe BitReader(UnsafeRawBufferPointer(rebasing: bytes[lowStart...]))
            var escape = start
            let kernels = unsafe Kernels.best
            unsafe try numbers.withUnsafeMutableBytes { numbers in
                unsafe try symbols.withUnsafeMutableBytes { symbols in
                    let all = unsafe numbers.bindMemory(to: Int16.self)
                    guard let symbols = unsafe symbols.bindMemory(to: Int8.self).baseAddress,
                        let all = all.baseAddress
                    else { return }
                    for (column, component) in components.enumerated() {
                        let table = ComponentTable(byte: tables[component])
                        var row = column * stride
                        for (shift, count) in rows.segments.enumerated() where count > 0 {
                            let (number, lowBits) = table.symbols(shift: shift)
                            unsafe kernels.decode_symbols(&decoder, number, count, symbols)
                            guard unsafe decoder.is_valid else { throw damaged("has too few words") }
                            if lowBits == 0, unsafe widen(symbols, count, to: all + row) {
                                row += count
                                continue
                            }
                            for index in 0..<count {
                                let symbol = unsafe Int(symbols[index])
                                let low = lowBits > 0 ? bits.next(lowBits) : 0
                                if symbol == Int(TCK_ESCAPE) {
                                    guard escape < wordStart else { throw damaged("has too few escapes") }
                                    guard low == 0 else { throw damaged("has an escape with low bits") }
                                    unsafe all[row + index] = Int16(
                                        littleEndian: bytes.loadUnaligned(fromByteOffset: escape, as: Int16.self)
                                    )
                                    escape += 2
                                } else {
                                    unsafe all[row + index] = Int16(
                                        truncatingIfNeeded: (symbol << lowBits) + low - half(lowBits)
                                    )
                                }
                            }
                            row += count
                        }
                    }
                }
            }
            guard escape == wordStart, unsafe tck_has_ended(&decoder), bits.isAtEnd else {
                throw damaged("has more words, escapes or low bits than symbols")
            }
            return Codes(components: components, numbers: numbers)
        }
    }

    /// Widens symbols that are numbers.
    ///
    /// - Returns: whether all are: none is an escape.
    private static func widen(_ symbols: UnsafePointer<Int8>, _ count: Int, to numbers: UnsafeMutablePointer<Int16>)
        -> Bool
    {
        var least: Int8 = 0
        for index in 0..<count {
            let symbol = unsafe symbols[index]
            unsafe numbers[index] = Int16(symbol)
            least = min(least, symbol)
        }
        return least > TCK_ESCAPE
    }

    private static func damaged(_ what: String) -> ArchiveError {
        ArchiveError(.damagedChunk, "a unit's record \(what)")
    }
}

/// Appends fields of bits, each from the lowest bit on, to bytes.
struct BitWriter {
    private var bytes: [UInt8] = []
    private var pending: UInt64 = 0
    private var count = 0

    mutating func append(_ field: Int, count width: Int) {
        pending |= UInt64(field) << UInt64(count)
        count += width
        while count >= 8 {
            bytes.append(UInt8(truncatingIfNeeded: pending))
            pending >>= 8
            count -= 8
        }
    }

    /// All bytes, the last filled up with zeros.
    mutating func finish() -> [UInt8] {
        if count > 0 { bytes.append(UInt8(truncatingIfNeeded: pending)) }
        return bytes
    }
}

/// Reads what `BitWriter` has written; zeros beyond the end.
@safe
struct BitReader {
    private let bytes: UnsafeRawBufferPointer
    private var next = 0
    private var pending: UInt64 = 0
    private var count = 0
    private var isOverrun = false

    init(_ bytes: UnsafeRawBufferPointer) {
        unsafe self.bytes = unsafe bytes
    }

    mutating func next(_ width: Int) -> Int {
        while count < width {
            if unsafe next < bytes.count {
                pending |= unsafe UInt64(bytes[next]) << UInt64(count)
            } else {
                isOverrun = true
            }
            next += 1
            count += 8
        }
        defer {
            pending >>= UInt64(width)
            count -= width
        }
        return Int(pending & ((1 << UInt64(width)) - 1))
    }

    /// Whether all bytes were read, and no more, and what is left of the last is 0.
    var isAtEnd: Bool { unsafe next == bytes.count && !isOverrun && pending == 0 }
}
