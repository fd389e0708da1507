import TestSupport
import Testing
import ThinkCompress

@Suite struct KVTensorTests {
    /// Two heads of three tokens of two channels: 0...11.
    private let tensor = KVTensor((0..<12).map { Float($0) }, elementType: .float16, heads: 2, headDimension: 2)

    @Test("lies without gaps where no strides are given")
    func defaultStrides() {
        #expect(tensor.tokens == 3)
        #expect(tensor.tokenStride == 4)
        #expect(tensor.headStride == 12)
        #expect(tensor.byteCount == 24)
        #expect(tensor.numbers == (0..<12).map { Float($0) })
    }

    @Test(
        "slices tokens of every head",
        arguments: [
            (0..<3, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]), (1..<2, [2, 3, 8, 9]),
            (1..<3, [2, 3, 4, 5, 8, 9, 10, 11]),
            (3..<3, []), (0..<0, []),
        ]
    )
    func slices(range: Range<Int>, numbers: [Float]) {
        let slice = tensor[tokens: range]
        #expect(slice.tokens == range.count)
        #expect(slice.numbers == numbers)
        #expect(slice.byteCount == numbers.count * 2)
        #expect(slice.headStride == 12)
    }

    @Test("slices slices")
    func slicesSlices() {
        #expect(tensor[tokens: 1..<3][tokens: 1..<2].numbers == [4, 5, 10, 11])
        #expect(tensor[tokens: 1..<3][tokens: 2..<2].numbers == [])
    }

    @Test("follows strides: tokens outermost, with a gap after every row")
    func followsStrides() {
        // [tokens][heads][channels and one more number]: as engines that append token by token keep it.
        let bytes = KVTensor((0..<18).map { Float($0) }, elementType: .float32, heads: 1, headDimension: 3).bytes
        let view = KVTensor(
            bytes: bytes,
            elementType: .float32,
            heads: 2,
            tokens: 3,
            headDimension: 2,
            headStride: 12,
            tokenStride: 24
        )
        #expect(view.numbers == [0, 1, 6, 7, 12, 13, 3, 4, 9, 10, 15, 16])
        #expect(view[tokens: 1..<3].numbers == [6, 7, 12, 13, 9, 10, 15, 16])
        // Without the gap after the last row.
        let shortest = KVTensor(
            bytes: bytes[0..<68],
            elementType: .float32,
            heads: 2,
            tokens: 3,
            headDimension: 2,
            headStride: 12,
            tokenStride: 24
        )
        #expect(shortest.numbers == view.numbers)
    }

    @Test("reads any view alike through its rows", arguments: ElementType.allCases)
    func widensRows(type: ElementType) {
        let numbers = (0..<24).map { Float($0) * 0.25 - 2 }
        let tensor = KVTensor(numbers, elementType: type, heads: 2, headDimension: 3)
        var rows = [Float](repeating: 0, count: 6)
        rows.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            tensor[tokens: 1..<4].widenRows(head: 1, from: 1, count: 2, into: base)
        }
        #expect(rows == Array(numbers[18..<24]))
    }

    @Test("gives its bytes in one piece, or head by head where heads lie apart")
    func contiguousPieces() {
        #expect(tensor.contiguousPieces.map(\.count) == [24])
        let slice = tensor[tokens: 1..<3]
        #expect(slice.contiguousPieces.map(\.count) == [8, 8])
        #expect(slice.contiguousPieces.flatMap(\.array) == slice.packedBytes)
    }

    @Test("refuses bytes that end before the tensor does")
    func refusesShortBytes() async {
        let end = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            _ = KVTensor(
                bytes: SharedBytes([UInt8](repeating: 0, count: 23)),
                elementType: .float16,
                heads: 2,
                tokens: 3,
                headDimension: 2
            )
        }
        #expect(ProgramEnd.says("the bytes end before the tensor does", end?.standardErrorContent))
    }

    @Test("refuses rows that overlap")
    func refusesOverlap() async {
        let end = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            _ = KVTensor(
                bytes: SharedBytes([UInt8](repeating: 0, count: 64)),
                elementType: .float16,
                heads: 1,
                tokens: 3,
                headDimension: 4,
                tokenStride: 6
            )
        }
        #expect(ProgramEnd.says("strides must not overlap rows", end?.standardErrorContent))
    }
}
