import CThinkKernels
import Testing

@Suite("Layout of blocks")
struct LayoutTests {
    /// A plan of blocks of 32 tokens in float16.
    private func plan(
        _ dimensions: HeadDimensions,
        keyRuns: [(count: Int, width: UInt32)],
        valueWidth: UInt32
    ) -> tck_block_plan {
        var plan = tck_block_plan()
        plan.tokens = 32
        plan.key_dimension = dimensions.keys
        plan.value_dimension = dimensions.values
        plan.full_type = TCK_FLOAT16
        plan.key_run_count = keyRuns.count
        withUnsafeMutableBytes(of: &plan.key_runs) { bytes in
            let slots = bytes.bindMemory(to: tck_coded_channels.self)
            for (index, run) in keyRuns.enumerated() {
                slots[index] = tck_coded_channels(count: run.count, coding: tck_coding(width: run.width))
            }
        }
        plan.values = tck_coding(width: valueWidth)
        return plan
    }

    @Test("The size in Formats/kivi.md: 77 of 128 key channels at 2 bits")
    func sizeOfPrunedBlock() {
        var plan = plan(HeadDimensions(128), keyRuns: [(77, 2)], valueWidth: 2)
        let format = tck_layout(&plan)
        let run = format.key_runs.0
        #expect([run.codes, run.scales, run.minima] == [0, 640, 800])
        #expect([format.value_codes, format.value_scales, format.value_minima] == [960, 1984, 2240])
        #expect(format.byte_count == 2496)
        #expect(format.tokens == 32 && format.value_group == 32 && format.key_run_count == 1)
        #expect(run.count == 77 && run.coding.width == 2 && format.value_coding.width == 2)
    }

    @Test("Codes of all runs, then scales, then minima; values at a multiple of 64, in full precision as rows")
    func mixedRuns() {
        var plan = plan(HeadDimensions(keys: 24, values: 9), keyRuns: [(5, 2), (8, 0), (3, 8)], valueWidth: 0)
        let format = tck_layout(&plan)
        let (first, full, last) = (format.key_runs.0, format.key_runs.1, format.key_runs.2)
        // 2 quads at 2 bits are a line, a quad at 8 bits is two.
        #expect([first.codes, full.codes, last.codes] == [0, 64, 64 + 8 * 32 * 2])
        #expect([first.scales, last.scales] == [704, 720])
        #expect([first.minima, last.minima] == [728, 744])
        #expect(format.value_codes == 768)
        #expect(format.byte_count == 768 + 32 * 9 * 2)
        #expect(format.key_dimension == 24 && format.value_dimension == 9 && format.full_type == TCK_FLOAT16)
    }

    @Test("Dimensions of keys and values may differ; the last group of values may be shorter")
    func dimensions() {
        var plan = plan(HeadDimensions(keys: 192, values: 80), keyRuns: [(192, 4)], valueWidth: 8)
        let format = tck_layout(&plan)
        let keyBytes = 192 * 32 / 2 + 192 * 4
        #expect(format.key_runs.0.minima == keyBytes - 192 * 2)
        #expect(format.value_codes == keyBytes)
        #expect(format.value_scales == keyBytes + 80 * 32)
        #expect(format.value_minima == format.value_scales + 32 * 3 * 2)
        #expect(format.byte_count == format.value_minima + 32 * 3 * 2)
    }

    @Test("Without values a block is its keys", arguments: [0, 2] as [UInt32])
    func noValues(valueWidth: UInt32) {
        var plan = plan(HeadDimensions(keys: 576, values: 0), keyRuns: [(576, 4)], valueWidth: valueWidth)
        let format = tck_layout(&plan)
        #expect(format.byte_count == 576 * 32 / 2 + 576 * 4)
        #expect(format.value_codes == format.byte_count)
    }
}
