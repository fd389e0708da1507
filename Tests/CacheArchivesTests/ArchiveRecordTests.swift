import CThinkKernels
import TestSupport
import Testing
import ThinkCompress

@testable import CacheArchives

/// Records of units: what is encoded is decoded, number by number.
@Suite struct ArchiveRecordTests {
    /// Rows of so many places, of shifts in turn.
    static func rows(_ counts: [Int]) -> ArchiveRows {
        ArchiveRows(places: Array(0..<counts.reduce(0, +)), segments: counts)
    }

    /// Encodes columns of numbers, nil for components that are 0, and decodes them.
    static func roundTrip(_ columns: [[Int16]], tables: [ComponentTable?], counts: [Int]) throws -> [UInt8] {
        let rows = rows(counts)
        let stride = ArchiveRecord.padded(rows.count)
        var codes = [Int16](repeating: 0, count: columns.count * stride)
        for (component, column) in columns.enumerated() {
            for (row, code) in column.enumerated() { codes[component * stride + row] = code }
        }
        let bytes = unsafe codes.withUnsafeBufferPointer { codes -> [UInt8] in
            guard let base = codes.baseAddress else { return [] }
            return unsafe ArchiveRecord.encode(base, tables: tables, rows: rows)
        }
        let source = ArchiveRecord.Source(
            bytes: SharedBytes(bytes),
            componentCount: columns.count,
            chunk: 0,
            unit: 0
        )
        let decoded = try ArchiveRecord.decode([source], rows: rows)[0]
        #expect(decoded.components == tables.indices.filter { tables[$0] != nil })
        unsafe decoded.numbers.withUnsafeMutableBytes { numbers in
            let numbers = unsafe numbers.bindMemory(to: Int16.self)
            for (column, component) in decoded.components.enumerated() {
                let found = (0..<rows.count).map { unsafe numbers[column * stride + $0] }
                #expect(found == columns[component], "component \(component)")
            }
        }
        return bytes
    }

    @Test(arguments: [[100, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 70], [30, 17, 16, 15], [0, 1, 1, 1]])
    func numbersOfEveryTableComeBack(counts: [Int]) throws {
        var generator = SplitMix64(seed: 1)
        let total = counts.reduce(0, +)
        for byte in 1...ComponentTable.largestByte {
            let table = ComponentTable(byte: byte)
            #expect(table.byte == byte)
            let deviation = Float.exp2(table.scale)
            let column = (0..<total).map { _ -> Int16 in
                if Int.random(in: 0..<9, using: &generator) == 0 {
                    return [32767, -32767, 0, 31, -31, 32, -32, 1, -1].randomElement(using: &generator) ?? 0
                }
                return Int16(max(min(generator.normal() * deviation, 32767), -32767))
            }
            let zeros = [Int16](repeating: 0, count: total)
            _ = try Self.roundTrip([zeros, column, column], tables: [nil, table, table], counts: counts)
        }
    }

    @Test func recordsSideBySideAreThoseAlone() throws {
        var generator = SplitMix64(seed: 5)
        let rows = Self.rows([70, 5, 0, 1])
        let stride = ArchiveRecord.padded(rows.count)
        // Of other numbers of components, some of which are 0.
        let sources = (0..<6).map { unit -> ArchiveRecord.Source in
            let tables = (0..<unit * 3).map { component in
                component % 4 == 1 ? nil : ComponentTable(family: component % 2, scale: (7 * component + unit) % 40)
            }
            var codes = [Int16](repeating: 0, count: tables.count * stride)
            for (component, table) in tables.enumerated() {
                guard let table else { continue }
                for row in 0..<rows.count {
                    codes[component * stride + row] = Int16(generator.normal() * Float.exp2(table.scale))
                }
            }
            let bytes = unsafe codes.withUnsafeBufferPointer { codes -> [UInt8] in
                guard let base = codes.baseAddress else { return [] }
                return unsafe ArchiveRecord.encode(base, tables: tables, rows: rows)
            }
            return ArchiveRecord.Source(
                bytes: SharedBytes(bytes),
                componentCount: tables.count,
                chunk: 0,
                unit: unit
            )
        }
        let together = try ArchiveRecord.decode(sources, rows: rows)
        for (source, codes) in zip(sources, together) {
            let alone = try ArchiveRecord.decode([source], rows: rows)[0]
            #expect(codes.components == alone.components && codes.denseCount == alone.denseCount)
            func numbers(_ codes: ArchiveRecord.Codes) -> [Int16] {
                unsafe codes.numbers.withUnsafeMutableBytes { bytes in
                    let numbers = unsafe bytes.bindMemory(to: Int16.self)
                    return codes.components.indices.flatMap { column in
                        (0..<rows.count).map { unsafe numbers[column * stride + $0] }
                    }
                }
            }
            #expect(numbers(codes) == numbers(alone))
        }
        // What is wrong names its unit.
        var damaged = sources
        damaged[3] = ArchiveRecord.Source(bytes: SharedBytes([1]), componentCount: 9, chunk: 2, unit: 3)
        let error = #expect(throws: ArchiveError.self) { try ArchiveRecord.decode(damaged, rows: rows) }
        #expect(error?.message.hasPrefix("chunk 2, unit 3: ") == true)
    }

    @Test func zerosTakeABytePerComponent() throws {
        let bytes = try Self.roundTrip([[0, 0], [0, 0], [0, 0]], tables: [nil, nil, nil], counts: [1, 1, 0, 0])
        #expect(bytes == [0, 0, 0, 0])
        #expect(try Self.roundTrip([[]], tables: [nil], counts: [0, 0, 0, 0]).isEmpty)
    }

    @Test func wideTablesSplitNumbers() {
        #expect(ComponentTable(family: 0, scale: 27).symbols(shift: 0) == (27, 0))
        #expect(ComponentTable(family: 0, scale: 28).symbols(shift: 0) == (24, 1))
        #expect(ComponentTable(family: 1, scale: 63).symbols(shift: 0) == (55, 9))
        #expect(ComponentTable(family: 1, scale: 63).symbols(shift: 3) == (55, 9))
        #expect(ComponentTable(family: 1, scale: 20).symbols(shift: 2) == (52, 1))
        #expect(ArchiveRecord.split(-1, lowBits: 3) == (0, 3))
        #expect(ArchiveRecord.split(-5, lowBits: 3) == (-1, 7))
        #expect(ArchiveRecord.split(32767, lowBits: 9) == (64, 255))
    }

    @Test func bitsComeInOrder() {
        var writer = BitWriter()
        for (field, width) in [(1, 1), (5, 3), (0x1FF, 9), (0, 2)] { writer.append(field, count: width) }
        let bytes = writer.finish()
        #expect(bytes == [0b1111_1011, 0b0001_1111])
        SharedBytes(bytes).withUnsafeBytes { bytes in
            var reader = unsafe BitReader(bytes)
            #expect([reader.next(1), reader.next(3), reader.next(9)] == [1, 5, 0x1FF])
            #expect(reader.next(2) == 0)
            #expect(reader.isAtEnd)
            _ = reader.next(9)
            #expect(!reader.isAtEnd)
        }
    }

    // MARK: - Tables

    /// Bits of a column by a table, in units of 1/256 bit.
    private static func cost(_ column: [Int16], _ table: ComponentTable, counts: [Int]) -> Int {
        var (cost, start) = (0, 0)
        for (shift, count) in counts.enumerated() {
            let (number, lowBits) = table.symbols(shift: shift)
            let costs = unsafe tck_symbol_costs(number)
            for code in column[start..<start + count] {
                let symbol = ArchiveRecord.split(code, lowBits: lowBits).symbol
                let isWide = symbol.magnitude > 31
                cost += lowBits * 256 + (unsafe costs.map { unsafe Int($0[isWide ? 63 : symbol + 31]) } ?? 0)
            }
            start += count
        }
        return cost
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func theTableOfLeastCostIsChosen(seed: UInt64) throws {
        var generator = SplitMix64(seed: seed)
        var costs = ComponentCosts()
        for counts in [[60, 0, 0, 0], [40, 12, 5, 3], [0, 0, 9, 0]] {
            for deviation in [0.05, 0.3, 1, 4, 40, 700, 9000] as [Float] {
                let column = counts.enumerated().flatMap { shift, count in
                    (0..<count).map { _ in
                        let number = generator.normal() * deviation * Float(1 << shift)
                        return Int16(max(min(number.rounded(), 32767), -32767))
                    }
                }
                let best = column.withUnsafeBufferPointer { codes in
                    codes.baseAddress.flatMap { unsafe costs.best($0, segments: counts) }
                }
                guard column.contains(where: { $0 != 0 }) else {
                    #expect(best == nil)
                    continue
                }
                let chosen = try #require(best)
                // The variance's scale, by powers that are close enough, and what is tried about it.
                var variance = 0.0
                var start = 0
                for (shift, count) in counts.enumerated() {
                    for code in column[start..<start + count] {
                        variance += Double(code) * Double(code) / Double(1 << (2 * shift))
                    }
                    start += count
                }
                variance /= Double(column.count)
                let middle = (0..<64).first { variance < Double.exp2(Double($0) / 2 - 9.75) } ?? 63
                let tried = (max(middle - 4, 0)...min(middle + 3, 63)).flatMap { scale in
                    (0..<2).map { ComponentTable(family: $0, scale: scale) }
                }
                let all = tried.map { Self.cost(column, $0, counts: counts) }
                let least = try #require(all.min())
                #expect(chosen.cost == least, "deviation \(deviation)")
                #expect(chosen.table == tried[all.firstIndex(of: least) ?? 0])
            }
        }
    }
}

extension Float {
    /// The standard deviation of a table's scale, in steps.
    fileprivate static func exp2(_ scale: Int) -> Float { Float(Double.exp2(Double(scale) / 4 - 5)) }
}

extension Double {
    /// 2^x by whole quarters, which all scales are.
    fileprivate static func exp2(_ x: Double) -> Double {
        let quarters = Int((x * 4).rounded(.down))
        let octave = quarters >> 2
        let root = 2.0.squareRoot()
        let rest = [1, root.squareRoot(), root, root * root.squareRoot()][quarters & 3]
        return Double(sign: .plus, exponent: octave, significand: 1) * rest
    }
}
