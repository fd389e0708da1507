import TestSupport
import Testing

@testable import CacheArchives

@Suite struct ArchiveRowsTests {
    @Test func rowsOfEqualShiftsAreTogether() {
        let rows = ArchiveRows(shifts: [0, 1, 0, 3, 1], chunk: 10..<15, places: 11..<15)
        #expect(rows.places == [12, 11, 14, 13])
        #expect(rows.segments == [1, 2, 0, 1])
        #expect(rows.shifts == [0, 1, 1, 3])
    }

    @Test func shiftsTakeTwoBits() {
        let shifts: [UInt8] = [0, 1, 2, 3, 3, 2]
        let bytes = ShiftBytes.encode(shifts)
        #expect(bytes == [0b1110_0100, 0b1011])
    }
}
