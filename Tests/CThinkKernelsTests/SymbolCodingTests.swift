import CThinkKernels
import ComputeRuntime
import Foundation
import TestSupport
import Testing

@Suite("Coding of symbols")
struct SymbolCodingTests {
    private static let sets = [KernelSet.scalar] + KernelSet.vectorSets
    private static let tables = 0..<Int(TCK_SYMBOL_TABLES)

    /// Symbols of one call.
    private struct Call {
        let table: Int
        let symbols: [Int16]
    }

    private static func frequencies(_ table: Int) -> [Int] {
        UnsafeBufferPointer(start: tck_symbol_frequencies(UInt32(table)), count: Int(TCK_SYMBOLS)).map(Int.init)
    }

    private static func costs(_ table: Int) -> [Int] {
        UnsafeBufferPointer(start: tck_symbol_costs(UInt32(table)), count: Int(TCK_SYMBOLS)).map(Int.init)
    }

    /// Symbols as often as a table expects them, escapes among them.
    private static func draw(_ table: Int, count: Int, using generator: inout SplitMix64) -> Call {
        let lookup = tck_symbol_lookup(UInt32(table))!
        let symbols = (0..<count).map { _ -> Int16 in
            let entry = lookup[Int(generator.next() % UInt64(TCK_FREQUENCY_TOTAL))]
            return Int16(Int8(truncatingIfNeeded: entry >> 24))
        }
        return Call(table: table, symbols: symbols)
    }

    private static let stateBytes = Int(TCK_SYMBOL_STATE_BYTES)

    /// The states, then the words.
    private func encode(_ calls: [Call], set: KernelSet = .scalar) -> [UInt8] {
        let room = calls.reduce(0) { $0 + $1.symbols.count }
        var words = [UInt16](repeating: 0, count: room)
        return words.withUnsafeMutableBufferPointer { words in
            var encoder = tck_start_encoder(words.baseAddress, room)
            for call in calls.reversed() {
                set.kernels.encode_symbols(&encoder, UInt32(call.table), call.symbols, call.symbols.count)
            }
            var states = [UInt8](repeating: 0, count: Self.stateBytes)
            guard let start = tck_finish_symbols(&encoder, &states), let base = words.baseAddress else { return states }
            let byteCount = UnsafeRawPointer(base + room) - UnsafeRawPointer(start)
            return states + UnsafeBufferPointer(start: start, count: byteCount)
        }
    }

    private struct Decoding: Equatable {
        var symbols: [[Int16]] = []
        var hasEscape = false
        var isValid = true
        var hasEnded = false
        var wordsLeft = 0
    }

    /// Decodes states and words that are the last of their memory, so that the address sanitizer sees a read beyond them.
    private func decode(_ bytes: [UInt8], calls: [(table: Int, count: Int)], set: KernelSet) -> Decoding {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
        defer { memory.deallocate() }
        memory.copyBytes(from: bytes)
        var decoder = tck_start_decoder(
            memory.baseAddress,
            memory.baseAddress! + Self.stateBytes,
            (bytes.count - Self.stateBytes) / 2
        )
        var decoding = Decoding()
        for call in calls {
            let count = call.count
            var guarded = GuardedBytes(count: count * 2)
            guarded.withMutablePointer {
                let symbols = $0.assumingMemoryBound(to: Int16.self)
                withUnsafeMutablePointer(to: &decoder) { decoder in
                    let call = tck_symbol_call(decoder: decoder, table: UInt32(call.table), symbols: symbols)
                    withUnsafePointer(to: call) { set.kernels.decode_symbols($0, 1, count) }
                }
            }
            #expect(guarded.marginsAreIntact, "\(set), table \(call.table), \(call.count) symbols")
            decoding.symbols.append(guarded.bytes.withUnsafeBytes { Array($0.bindMemory(to: Int16.self)) })
        }
        decoding.hasEscape = decoder.has_escape
        decoding.isValid = decoder.is_valid
        decoding.hasEnded = tck_has_ended(&decoder)
        decoding.wordsLeft = (decoder.end - decoder.words) / 2
        return decoding
    }

    private func decode(_ bytes: [UInt8], _ calls: [Call], set: KernelSet) -> Decoding {
        decode(bytes, calls: calls.map { ($0.table, $0.symbols.count) }, set: set)
    }

    @Test("Decoders side by side give what each gives alone", arguments: [KernelSet.scalar] + KernelSet.vectorSets)
    func sideBySide(set: KernelSet) {
        var generator = SplitMix64(seed: 12)
        for count in [0, 1, 16, 40, 200] {
            for callCount in 1...6 {
                // Random words; some end before all symbols are decoded.
                let coded = (0..<callCount).map { call in
                    (0..<Self.stateBytes + 2 * (call % 3) * count / 2).map { _ in
                        UInt8.random(in: 1...255, using: &generator)
                    }
                }
                let tables = (0..<callCount).map { _ in Int.random(in: Self.tables, using: &generator) }
                var symbols = [Int16](repeating: 0, count: max(callCount * count, 1))
                let memory = coded.map { bytes in
                    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
                    memory.copyBytes(from: bytes)
                    return memory
                }
                defer { for bytes in memory { bytes.deallocate() } }
                var decoders = memory.map { bytes in
                    tck_start_decoder(
                        bytes.baseAddress,
                        bytes.baseAddress! + Self.stateBytes,
                        (bytes.count - Self.stateBytes) / 2
                    )
                }
                decoders.withUnsafeMutableBufferPointer { decoders in
                    symbols.withUnsafeMutableBufferPointer { symbols in
                        let calls = tables.enumerated().map { index, table in
                            tck_symbol_call(
                                decoder: decoders.baseAddress! + index,
                                table: UInt32(table),
                                symbols: symbols.baseAddress! + index * count
                            )
                        }
                        set.kernels.decode_symbols(calls, callCount, count)
                    }
                }
                for index in 0..<callCount {
                    let alone = decode(coded[index], calls: [(tables[index], count)], set: set)
                    #expect(Array(symbols[index * count..<(index + 1) * count]) == alone.symbols[0])
                    #expect(decoders[index].is_valid == alone.isValid)
                    #expect(decoders[index].has_escape == alone.hasEscape)
                    #expect((decoders[index].end - decoders[index].words) / 2 == alone.wordsLeft)
                }
            }
        }
    }

    // MARK: - Tables

    @Test("Frequencies add up to 4096, are symmetric, fall away from 0, and leave the escape some", arguments: tables)
    func frequencies(table: Int) {
        let frequencies = Self.frequencies(table)
        #expect(frequencies.reduce(0, +) == TCK_FREQUENCY_TOTAL)
        let symbols = frequencies.dropLast()
        #expect(Array(symbols) == symbols.reversed())
        let half = symbols.dropFirst(Int(TCK_SYMBOL_LIMIT))
        #expect(zip(half, half.dropFirst()).allSatisfy { $0 >= $1 })
        #expect(frequencies.last! >= 1)
    }

    @Test("Frequencies follow the distributions", arguments: tables)
    func distributions(table: Int) {
        let frequencies = Self.frequencies(table)
        let deviation = exp2(Double(table % Int(TCK_SYMBOL_SCALES)) / 4 - 5)
        let isGaussian = table < TCK_SYMBOL_SCALES
        func below(_ edge: Double) -> Double {
            isGaussian
                ? erfc(-edge / deviation / 2.0.squareRoot()) / 2
                : 1 / (1 + exp(-edge / deviation * .pi / 3.0.squareRoot()))
        }
        for symbol in 1...Int(TCK_SYMBOL_LIMIT) {
            let probability = below(0.5 - Double(symbol)) - below(-0.5 - Double(symbol))
            let frequency = Double(frequencies[symbol + Int(TCK_SYMBOL_LIMIT)])
            #expect(abs(frequency - 4096 * probability) <= 0.5 + 1e-9, "\(symbol)")
        }
    }

    @Test("Costs are the frequencies' logarithms", arguments: tables)
    func costs(table: Int) {
        let frequencies = Self.frequencies(table)
        let costs = Self.costs(table)
        let escape = Int((256 * -log2(Double(frequencies.last!) / 4096)).rounded()) + 16 * 256
        #expect(costs.last! == escape)
        for (frequency, cost) in zip(frequencies, costs).dropLast() {
            let expected = frequency == 0 ? escape : Int((256 * -log2(Double(frequency) / 4096)).rounded())
            #expect(cost == expected, "\(frequency)")
        }
    }

    @Test("What is looked up is what the frequencies say", arguments: tables)
    func lookup(table: Int) {
        let frequencies = Self.frequencies(table)
        let lookup = tck_symbol_lookup(UInt32(table))!
        var place = 0
        for (index, frequency) in frequencies.enumerated() {
            let symbol = index == TCK_SYMBOLS - 1 ? TCK_ESCAPE : Int32(index) - TCK_SYMBOL_LIMIT
            for offset in 0..<frequency {
                let entry = UInt32(bitPattern: symbol) << 24 | UInt32(frequency) << 12 | UInt32(offset)
                if lookup[place] != entry { Issue.record("\(lookup[place]) at \(place)") }
                place += 1
            }
        }
    }

    @Test("The tables are those of the specification")
    func generatedTables() throws {
        let file = ProjectFiles.root.appending(path: "Formats/archive-tables.txt")
        let text = try String(contentsOf: file, encoding: .utf8)
        let lines = text.split(separator: "\n").map { $0.split(separator: " ").compactMap { Int($0) } }
        #expect(lines == Self.tables.map(Self.frequencies))
    }

    // MARK: - Coding

    @Test("Symbols come back, whatever their number, with no words left", arguments: sets)
    func roundTrips(set: KernelSet) {
        var generator = SplitMix64(seed: 1)
        for table in Self.tables {
            let calls = (Array(0...100) + [1024]).map { Self.draw(table, count: $0, using: &generator) }
            for call in calls.suffix(3) + calls.prefix(40) {
                let decoding = decode(encode([call], set: set), [call], set: set)
                #expect(decoding.symbols == [call.symbols] && decoding.hasEnded, "\(table), \(call.symbols.count)")
            }
            let decoding = decode(encode(calls, set: set), calls, set: set)
            #expect(decoding.symbols == calls.map(\.symbols) && decoding.hasEnded, "\(table)")
        }
    }

    @Test("Calls may have different tables", arguments: sets)
    func tablesInTurn(set: KernelSet) {
        var generator = SplitMix64(seed: 2)
        let calls = (0..<300).map { _ in
            Self.draw(
                Int.random(in: Self.tables, using: &generator),
                count: Int.random(in: 0...70, using: &generator),
                using: &generator
            )
        }
        let bytes = encode(calls, set: set)
        #expect(bytes == encode(calls))
        let decoding = decode(bytes, calls, set: set)
        #expect(decoding.symbols == calls.map(\.symbols) && decoding.hasEnded)
        #expect(decoding.hasEscape == calls.contains { $0.symbols.contains(Int16(TCK_ESCAPE)) })
        let plain = calls.filter { !$0.symbols.contains(Int16(TCK_ESCAPE)) }
        #expect(!decode(encode(plain, set: set), plain, set: set).hasEscape)
    }

    @Test("Numbers are counted by the symbols that are left without low bits", arguments: [UInt32(0), 1, 3])
    func counts(lowBits: UInt32) {
        let codes: [Int16] = [0, 0, -1, 1, 5, -5, 31, 32, -31, -32, 247, -249, 252, 4000, -32767, 32767, 0, 2, 3]
        var counts = [UInt16](repeating: 9, count: Int(TCK_SYMBOLS))
        tck_count_symbols(codes, codes.count, lowBits, &counts)
        var expected = [UInt16](repeating: 0, count: Int(TCK_SYMBOLS))
        for code in codes {
            let symbol = (Int(code) + (1 << lowBits) / 2) >> lowBits
            let limit = Int(TCK_SYMBOL_LIMIT)
            expected[symbol.magnitude <= limit ? symbol + limit : Int(TCK_SYMBOLS) - 1] += 1
        }
        #expect(counts == expected)
    }

    @Test("Numbers are symbols up to the first that a table lacks", arguments: tables)
    func areSymbols(table: Int) {
        let lacking = Self.frequencies(table).dropFirst(Int(TCK_SYMBOL_LIMIT)).dropLast().firstIndex(of: 0)
        let limit = Int16(lacking.map { $0 - Int(TCK_SYMBOL_LIMIT) - 1 } ?? Int(TCK_SYMBOL_LIMIT))
        #expect(tck_need_no_escape(UInt32(table), [], 0))
        for count in [1, 7, 8, 40] {
            for place in [0, count / 2, count - 1] {
                for (code, isSymbol) in [(limit, true), (-limit, true), (limit + 1, false), (-limit - 1, false)] {
                    var codes = [Int16](repeating: 0, count: count)
                    codes[place] = code
                    #expect(tck_need_no_escape(UInt32(table), codes, count) == isSymbol, "\(code) of \(count)")
                }
            }
        }
    }

    @Test("Every symbol of every table, and nothing but escapes", arguments: sets)
    func allSymbols(set: KernelSet) {
        for table in Self.tables {
            let frequencies = Self.frequencies(table)
            let symbols = frequencies.indices.filter { frequencies[$0] > 0 }
                .map { $0 == TCK_SYMBOLS - 1 ? Int16(TCK_ESCAPE) : Int16($0 - Int(TCK_SYMBOL_LIMIT)) }
            let calls = [
                Call(table: table, symbols: symbols + symbols.reversed() + symbols),
                Call(table: table, symbols: [Int16](repeating: Int16(TCK_ESCAPE), count: 333)),
            ]
            let bytes = encode(calls, set: set)
            #expect(bytes == encode(calls))
            let most = Int(TCK_SYMBOL_STATE_BYTES) + 2 * calls.reduce(0) { $0 + $1.symbols.count }
            #expect(bytes.count <= most)
            let decoding = decode(bytes, calls, set: set)
            #expect(decoding.symbols == calls.map(\.symbols) && decoding.hasEnded, "\(table)")
        }
    }

    @Test("Symbols take what the tables say that they cost", arguments: tables)
    func sizes(table: Int) {
        var generator = SplitMix64(seed: 3)
        let calls = (0..<50).map { _ in Self.draw(table, count: 1024, using: &generator) }
        let costs = Self.frequencies(table).map { $0 == 0 ? 0 : -log2(Double($0) / 4096) }
        let bits = calls.reduce(0.0) { total, call in
            call.symbols.reduce(total) {
                $0 + costs[$1 == TCK_ESCAPE ? Int(TCK_SYMBOLS) - 1 : Int($1) + Int(TCK_SYMBOL_LIMIT)]
            }
        }
        // States begin with 16 bits of nothing; they may end with as many in each.
        let size = Double(encode(calls).count - Int(TCK_SYMBOL_STATE_BYTES) / 2)
        #expect(abs(size - bits / 8) <= 0.005 * bits / 8 + 33, "\(size) bytes, \(bits / 8) expected")
    }

    @Test("Known symbols give known bytes", arguments: sets)
    func knownBytes(set: KernelSet) {
        // From a coder in Python that was written from Formats/archive-coder.md.
        let calls = [
            Call(table: 20, symbols: [0, 1, -1, 2, 0, 0, -3, 0, 1, 1, -2, 0, 0, 4, -32, 0, 0, -1, 3]),
            Call(table: 53, symbols: [-7, 0, 9, -32, 5]),
            Call(table: 0, symbols: [0, 0, 0]),
            Call(table: 55, symbols: (0..<40).map { Int16($0 % 23 - 11) }),
        ]
        let hex =
            "7b1ab916d21de300c2532100308f0200a708df011ef50a0009304b04aea81000b82c9a58392c2826ba700349"
            + "6fa95806b2092204feff1200ffaf1000c8b8b602ffcfa0cca81dfb7f021f7b9f991fc43fe3cfee0ff45f0a80"
        let bytes = encode(calls, set: set)
        #expect(bytes.map { String(format: "%02x", $0) }.joined() == hex)
        let decoding = decode(bytes, calls, set: set)
        #expect(decoding.symbols == calls.map(\.symbols) && decoding.hasEnded)
    }

    // MARK: - Damage

    @Test("Where words are missing the decoder is not valid, and reads nothing beyond them", arguments: sets)
    func missingWords(set: KernelSet) {
        var generator = SplitMix64(seed: 4)
        for table in [8, 15, 20, 27, 44, 55] {
            for count in [1, 15, 16, 17, 40, 100, 1024] {
                let call = Self.draw(table, count: count, using: &generator)
                let bytes = encode([call])
                let states = Self.stateBytes
                for left in Set([states, (states + bytes.count) / 4 * 2, bytes.count - 2]) where left >= states {
                    guard left < bytes.count else { continue }
                    let cut = Array(bytes[..<left])
                    let decoding = decode(cut, [call], set: set)
                    #expect(!decoding.isValid && !decoding.hasEnded && decoding.wordsLeft == 0, "\(table), \(left)")
                    #expect(decoding == decode(cut, [call], set: .scalar), "\(table), \(count), \(left)")
                }
            }
        }
    }

    @Test("Random states and words are decoded alike, without harm", arguments: sets)
    func randomBytes(set: KernelSet) {
        var generator = SplitMix64(seed: 5)
        for round in 0..<400 {
            var bytes = (0..<64 + 2 * (round % 50)).map { _ in UInt8.random(in: 0...255, using: &generator) }
            for lane in 0..<Int(TCK_SYMBOL_LANES) {
                if round % 3 == 0 { bytes.replaceSubrange(4 * lane..<4 * lane + 4, with: [255, 255, 255, 255]) }
                bytes[4 * lane + 2] |= 1
            }
            let calls = (0..<4).map { _ -> (table: Int, count: Int) in
                let table = Int.random(in: Self.tables, using: &generator)
                return (table: table, count: Int.random(in: 0...90, using: &generator))
            }
            #expect(decode(bytes, calls: calls, set: set) == decode(bytes, calls: calls, set: .scalar), "\(round)")
        }
    }

    @Test("States that no encoder leaves are found at the start, and what is left over at the end", arguments: sets)
    func refusals(set: KernelSet) {
        let call = Call(table: 20, symbols: [1, 2, 3])
        let bytes = encode([call])
        var low = bytes
        low.replaceSubrange(8..<12, with: [255, 255, 0, 0])
        let decoding = decode(low, [call], set: set)
        #expect(!decoding.isValid && !decoding.hasEnded)
        #expect(!decode(bytes + [0, 0], [call], set: set).hasEnded)
        #expect(!decode(bytes, [], set: set).hasEnded)
    }

    @Test("Threads that are the first to ask wait for the tables")
    func concurrentUse() async {
        await withTaskGroup(of: Bool.self) { group in
            for table in Self.tables {
                group.addTask { tck_symbol_lookup(UInt32(table))[0] != 0 && tck_symbol_costs(UInt32(table))[0] != 0 }
            }
            for await isBuilt in group { #expect(isBuilt) }
        }
    }
}
