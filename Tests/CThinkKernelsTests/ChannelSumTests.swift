import CThinkKernels
import Testing

@Suite("Channel sums")
struct ChannelSumTests {
    @Test("Scalar adds runs of 32 rows in float32 and these in float64")
    func scalarAdds() {
        let rows = SampleRows(.ordinary, type: .float16, tokens: 70, headDimension: 7, seed: 4)
        let totals = add(
            rows,
            to: Totals(sums: (0..<7).map(Double.init), squares: [Double](repeating: 1, count: 7)),
            with: .scalar
        )
        for channel in 0..<7 {
            var sum = Double(channel)
            var square = 1.0
            for start in stride(from: 0, to: 70, by: 32) {
                var partialSum: Float = 0
                var partialSquare: Float = 0
                for token in start..<min(start + 32, 70) {
                    let value = rows.value(token: token, channel: channel)
                    partialSum += value
                    let product = value * value
                    partialSquare += product
                }
                sum += Double(partialSum)
                square += Double(partialSquare)
            }
            #expect(totals.sums[channel] == sum)
            #expect(totals.squares[channel] == square)
        }
    }

    @Test("Vector sets give the bits of scalar", arguments: KernelSet.vectorSets, ElementType.allCases)
    func adds(set: KernelSet, type: ElementType) {
        for (number, headDimension) in (sampleHeadDimensions + [17, 144, Int(TCK_MAX_HEAD_DIMENSION)]).enumerated() {
            for (index, tokens) in ([32, 100] + sampleCounts.dropLast()).enumerated() {
                let seed = number * 31 + index
                let pattern = [Pattern.ordinary, .tiny, .offset, .mixedZeros][seed % 4]
                let rows = SampleRows(pattern, type: type, tokens: tokens, headDimension: headDimension, seed: seed)
                let start = Totals(
                    sums: (0..<headDimension).map { Double($0) / 3 },
                    squares: [Double](repeating: 0.1, count: headDimension)
                )
                let totals = add(rows, to: start, with: set)
                #expect(totals == add(rows, to: start, with: .scalar), "\(tokens) x \(headDimension)")
            }
        }
    }

    @Test(
        "NaN and infinity reach their own channel's totals only",
        arguments: [KernelSet.scalar] + KernelSet.vectorSets
    )
    func addsNaN(set: KernelSet) {
        var values = [Float](repeating: 2, count: 33 * 80)
        values[32 * 80 + 5] = .nan
        values[3 * 80 + 70] = -.infinity
        let rows = SampleRows(values, type: .float32, tokens: 33, headDimension: 80)
        let zeros = [Double](repeating: 0, count: 80)
        let totals = add(rows, to: Totals(sums: zeros, squares: zeros), with: set)
        #expect(totals.sums[5].isNaN && totals.squares[5].isNaN)
        #expect(totals.sums[70] == -.infinity && totals.squares[70] == .infinity)
        #expect(
            (0..<80).filter { ![5, 70].contains($0) }.allSatisfy { totals.sums[$0] == 66 && totals.squares[$0] == 132 }
        )
    }

    private struct Totals: Equatable {
        var sums: [Double]
        var squares: [Double]
    }

    private func add(_ rows: SampleRows, to start: Totals, with set: KernelSet) -> Totals {
        var totals = start
        rows.withRows {
            set.kernels.add_channel_sums($0, rows.tokens, rows.headDimension, &totals.sums, &totals.squares)
        }
        return totals
    }
}
