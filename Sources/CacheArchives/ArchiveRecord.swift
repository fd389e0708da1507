internal import ByteStorage
internal import CThinkKernels
internal import ComputeRuntime

/// A unit's numbers in a chunk, as the file has them: Formats/archive.md, "ARCHIVE CHUNKS".
enum ArchiveRecord {
    static let stateBytes = Int(TCK_SYMBOL_STATE_BYTES)
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
    static func half(_ lowBits: Int) -> Int { (1 << lowBits) >> 1 }

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

        // Symbols, escapes and low bits in the order of decoding. Most numbers are symbols as they are.
        var splitSymbols: [Int16] = []
        var escapes: [Int16] = []
        var bits = BitWriter()
        var calls: [(table: UInt32, count: Int, isSplit: Bool, start: Int)] = []
        for component in live {
            guard let table = tables[component] else { continue }
            var start = component * stride
            for (shift, count) in rows.segments.enumerated() where count > 0 {
                let (number, lowBits) = table.symbols(shift: shift)
                if unsafe lowBits == 0 && tck_need_no_escape(number, codes + start, count) {
                    calls.append((number, count, false, start))
                } else {
                    calls.append((number, count, true, splitSymbols.count))
                    unsafe split(
                        codes + start,
                        count,
                        table: number,
                        lowBits: lowBits,
                        into: &splitSymbols,
                        &escapes,
                        &bits
                    )
                }
                start += count
            }
        }
        // The last symbol is coded first, and its word comes last.
        let capacity = live.count * rows.count
        var buffer = [UInt16](repeating: 0, count: capacity)
        var states = [UInt8](repeating: 0, count: stateBytes)
        let words = unsafe buffer.withUnsafeMutableBufferPointer { buffer -> [UInt8] in
            var encoder = unsafe tck_start_encoder(buffer.baseAddress, capacity)
            unsafe splitSymbols.withUnsafeBufferPointer { splitSymbols in
                let kernels = unsafe Kernels.bestPointer
                for call in calls.reversed() {
                    let source = unsafe call.isSplit ? splitSymbols.baseAddress : codes
                    guard let source = unsafe source else { continue }
                    unsafe kernels.pointee.encode_symbols(&encoder, call.table, source + call.start, call.count)
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

    /// Splits numbers into symbols, escapes and low bits.
    private static func split(
        _ codes: UnsafePointer<Int16>,
        _ count: Int,
        table: UInt32,
        lowBits: Int,
        into symbols: inout [Int16],
        _ escapes: inout [Int16],
        _ bits: inout BitWriter
    ) {
        let frequencies = unsafe tck_symbol_frequencies(table)
        for row in 0..<count {
            let code = unsafe codes[row]
            var (symbol, low) = split(code, lowBits: lowBits)
            let isWide = symbol.magnitude > Int(TCK_SYMBOL_LIMIT)
            let frequency = unsafe isWide ? 0 : frequencies?[symbol + Int(TCK_SYMBOL_LIMIT)] ?? 0
            if frequency == 0 {
                (symbol, low) = (Int(TCK_ESCAPE), 0)
                escapes.append(code)
            }
            symbols.append(Int16(symbol))
            if lowBits > 0 { bits.append(low, count: lowBits) }
        }
    }

    private static func append<Value: FixedWidthInteger>(_ value: Value, to bytes: inout [UInt8]) {
        for shift in stride(from: 0, to: Value.bitWidth, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: value >> Value(shift)))
        }
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
