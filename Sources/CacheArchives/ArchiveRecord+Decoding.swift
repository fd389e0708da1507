internal import ByteStorage
internal import CThinkKernels
internal import ComputeRuntime

extension ArchiveRecord {
    /// A unit's record in a file, to be decoded.
    struct Source {
        let bytes: SharedBytes
        let componentCount: Int
        let chunk: Int
        let unit: Int
    }

    /// The numbers of a unit in a chunk.
    struct Codes {
        /// The components that have numbers other than 0, ascending.
        let components: [Int]
        /// How many of them come before those that are 0 in most rows.
        let denseCount: Int
        /// `[components.count][padded(rows)]` 16-bit integers, in order of coding.
        let numbers: AlignedBuffer
    }

    /// Decodes records of the same rows, side by side: symbols of one wait for each other, and not for another's.
    ///
    /// - Returns: the numbers of each.
    /// - Throws: `ArchiveError` if a record isn't one of so many components and rows; `MemoryError`.
    static func decode(_ sources: [Source], rows: ArchiveRows) throws -> [Codes] {
        var readers: [RecordReader] = []
        for source in sources { try readers.append(RecordReader(source, rows: rows)) }
        let segments = rows.segments.enumerated().filter { $0.element > 0 }
        // Decoded where they stay in the first-level cache, as the numbers of all components would not.
        let symbols = try AlignedBuffer(byteCount: sources.count * padded(rows.count) * MemoryLayout<Int16>.size)
        let kernels = unsafe Kernels.bestPointer
        var decoders = unsafe readers.map { unsafe $0.decoder }
        var calls = unsafe [tck_symbol_call](repeating: tck_symbol_call(), count: sources.count)
        let most = readers.reduce(0) { max($0, $1.components.count) }
        try unsafe symbols.withUnsafeMutableBytes { symbols in
            guard let symbols = unsafe symbols.bindMemory(to: Int16.self).baseAddress else { return }
            try unsafe decoders.withUnsafeMutableBufferPointer { decoders in
                guard let decoders = decoders.baseAddress else { return }
                var active = Array(readers.indices)
                for column in 0..<most {
                    if active.contains(where: { readers[$0].components.count == column }) {
                        active.removeAll { readers[$0].components.count == column }
                    }
                    var row = 0
                    for (shift, count) in segments {
                        for (place, index) in active.enumerated() {
                            unsafe decoders[index].has_escape = false
                            unsafe calls[place].decoder = decoders + index
                            unsafe calls[place].table = readers[index].symbols(column, shift: shift).table
                            unsafe calls[place].symbols = symbols + index * padded(rows.count)
                        }
                        unsafe kernels.pointee.decode_symbols(calls, active.count, count)
                        for index in active {
                            guard unsafe decoders[index].is_valid else {
                                throw readers[index].damaged("has too few words")
                            }
                            try unsafe readers[index].take(
                                symbols + index * padded(rows.count),
                                count,
                                hasEscape: decoders[index].has_escape,
                                column: column,
                                row: row,
                                shift: shift
                            )
                        }
                        row += count
                    }
                }
            }
        }
        return try readers.indices.map { index in
            try unsafe readers[index].finish(decoders[index])
        }
    }
}

/// Reads a record: what comes before its symbols, and what goes with them.
@safe
private struct RecordReader {
    private let source: ArchiveRecord.Source
    private let bytes: UnsafeRawBufferPointer
    /// The table bytes of the components that have numbers.
    private let tables: [UInt8]
    let components: [Int]
    /// As it is before the first symbol.
    let decoder: tck_symbol_decoder
    private let numbers: AlignedBuffer
    private let stride: Int
    /// Where words begin, and escapes end.
    private let wordStart: Int
    private var escape: Int
    private var bits: BitReader

    /// - Throws: `ArchiveError` if the record can't be one of such rows; `MemoryError`.
    init(_ source: ArchiveRecord.Source, rows: ArchiveRows) throws {
        self.source = source
        // The source keeps the bytes.
        let bytes = unsafe source.bytes.withUnsafeBytes { unsafe $0 }
        unsafe self.bytes = unsafe bytes
        stride = ArchiveRecord.padded(rows.count)
        let tableBytes = rows.count > 0 ? (source.componentCount + 3) / 4 * 4 : 0
        guard bytes.count >= tableBytes else { throw Self.damaged(source, "ends in its tables") }
        let all = unsafe Array(bytes[..<min(source.componentCount, tableBytes)])
        guard unsafe bytes[all.count..<tableBytes].allSatisfy({ $0 == 0 }) else {
            throw Self.damaged(source, "has padding that is not 0")
        }
        if let byte = all.first(where: { $0 > ComponentTable.largestByte }) {
            throw Self.damaged(source, "has table \(byte), must be at most \(ComponentTable.largestByte)")
        }
        let components = all.indices.filter { all[$0] != ComponentTable.zeroByte }
        self.components = components
        tables = components.map { all[$0] }
        guard !components.isEmpty else {
            guard bytes.count == tableBytes else {
                throw Self.damaged(
                    source,
                    rows.count > 0 ? "goes on after components that are all 0" : "has bytes and no rows"
                )
            }
            numbers = try AlignedBuffer(byteCount: 0)
            unsafe decoder = unsafe tck_symbol_decoder()
            (wordStart, escape) = (tableBytes, tableBytes)
            bits = unsafe BitReader(UnsafeRawBufferPointer(start: nil, count: 0))
            return
        }
        let start = tableBytes + ArchiveRecord.headBytes
        guard bytes.count >= start else { throw Self.damaged(source, "ends in its head") }
        func field(_ index: Int) -> UInt32 {
            UInt32(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: tableBytes + 4 * index, as: UInt32.self))
        }
        let (escapeCount, wordCount, lowByteCount) = (Int(field(0)), Int(field(1)), Int(field(2)))
        // A word and an escape for each symbol at the most, so that nothing overflows.
        let symbolCount = components.count * rows.count
        guard escapeCount <= symbolCount, wordCount <= symbolCount,
            bytes.count - start == 2 * escapeCount + 2 * wordCount + lowByteCount
        else { throw Self.damaged(source, "has \(bytes.count) bytes, and its parts have others together") }
        wordStart = start + 2 * escapeCount
        escape = start
        let lowStart = wordStart + 2 * wordCount
        bits = unsafe BitReader(UnsafeRawBufferPointer(rebasing: bytes[lowStart...]))

        // Neither is nil in a record that has so many bytes.
        let (states, words) = unsafe (
            UnsafeRawBufferPointer(rebasing: bytes[start - ArchiveRecord.stateBytes..<start]),
            UnsafeRawBufferPointer(rebasing: bytes[wordStart..<lowStart])
        )
        unsafe decoder = unsafe tck_start_decoder(states.baseAddress, words.baseAddress, wordCount)
        guard unsafe decoder.is_valid else { throw Self.damaged(source, "has a state below 2^16") }
        // `take` writes every row.
        numbers = unsafe try AlignedBuffer(
            uninitializedByteCount: components.count * stride * MemoryLayout<Int16>.size
        )
    }

    /// The table of a column's symbols, and how many low bits follow each.
    func symbols(_ column: Int, shift: Int) -> (table: UInt32, lowBits: Int) {
        ComponentTable(byte: tables[column]).symbols(shift: shift)
    }

    /// Takes the symbols of a column's rows, with the escapes and low bits that go with them.
    ///
    /// - Throws: `ArchiveError` if these are damaged.
    mutating func take(
        _ symbols: UnsafePointer<Int16>,
        _ count: Int,
        hasEscape: Bool,
        column: Int,
        row: Int,
        shift: Int
    ) throws(ArchiveError) {
        let lowBits = self.symbols(column, shift: shift).lowBits
        let target = unsafe numbers.withUnsafeMutableBytes { numbers in
            unsafe numbers.baseAddress.map {
                unsafe $0.assumingMemoryBound(to: Int16.self) + column * stride + row
            }
        }
        guard let target = unsafe target else { return }
        guard hasEscape || lowBits > 0 else { return unsafe target.update(from: symbols, count: count) }
        for index in 0..<count {
            let symbol = unsafe Int(symbols[index])
            let low = lowBits > 0 ? bits.next(lowBits) : 0
            if symbol == Int(TCK_ESCAPE) {
                guard escape < wordStart else { throw damaged("has too few escapes") }
                guard low == 0 else { throw damaged("has an escape with low bits") }
                unsafe target[index] = Int16(littleEndian: bytes.loadUnaligned(fromByteOffset: escape, as: Int16.self))
                escape += 2
            } else {
                unsafe target[index] = Int16(
                    truncatingIfNeeded: (symbol << lowBits) + low - ArchiveRecord.half(lowBits)
                )
            }
        }
    }

    /// The numbers, where all of the record was read.
    ///
    /// - Throws: `ArchiveError` if it has more than its symbols.
    func finish(_ decoder: tck_symbol_decoder) throws(ArchiveError) -> ArchiveRecord.Codes {
        if !components.isEmpty {
            var decoder = unsafe decoder
            guard escape == wordStart, unsafe tck_has_ended(&decoder), bits.isAtEnd else {
                throw damaged("has more words, escapes or low bits than symbols")
            }
        }
        let lastDense = tables.lastIndex { ComponentTable(byte: $0).scale > ComponentTable.largestSparseScale }
        return ArchiveRecord.Codes(components: components, denseCount: lastDense.map { $0 + 1 } ?? 0, numbers: numbers)
    }

    func damaged(_ what: String) -> ArchiveError { Self.damaged(source, what) }

    private static func damaged(_ source: ArchiveRecord.Source, _ what: String) -> ArchiveError {
        ArchiveError(
            .damagedChunk,
            "chunk \(source.chunk), unit \(source.unit): a unit's record \(what); make the archive again or copy it again"
        )
    }
}
