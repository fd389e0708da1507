import BenchmarkSupport
import PlainRead
import ThinkCompress

/// A plain read of as many bytes as packed layers take, in pieces as long as theirs: what memory allows at best.
final class PlainReadWorkload: Workload {
    /// A cache line's.
    private static let lineBytes = 64

    private let layers: [[SharedBytes]]
    private let layerBytes: Int
    private let threads: Int
    /// Of a pass over all layers, when it was last measured.
    private var passSeconds: Double = Round.leastSeconds

    init(recipe: Recipe, tokens: Int, threads: Int) throws {
        self.threads = threads
        let layer = try SyntheticLayer(tokens: tokens).compressed(by: recipe)
        let slabs = layer.extent.chunks.map { layer.slabByteCount(chunk: $0) }
        let window = layer.packedByteCount - slabs.reduce(0, +)
        let pieces = slabs + (window > 0 ? [window] : [])
        layerBytes = layer.packedByteCount
        let count = max((Round.rotatingBytes + layerBytes - 1) / layerBytes, 2)
        layers = try (0..<count).map { _ in try pieces.map { try SharedBytes(byteCount: $0) { _ in } } }
        passSeconds = try read(passes: 1)
    }

    func run() throws -> RoundResult {
        let passes = Int(Round.leastSeconds / passSeconds) + 1
        passSeconds = try read(passes: passes) / Double(passes)
        return RoundResult(microseconds: passSeconds * 1e6 / Double(layers.count), byteCount: layerBytes)
    }

    /// Every thread reads its share of each piece; nobody waits for the others before all is read.
    private func read(passes: Int) throws -> Double {
        try GatedThreads.seconds(count: threads) { [layers, threads] member in
            var sum: UInt64 = 0
            for _ in 0..<passes {
                for piece in layers.joined() {
                    let lines = piece.count / Self.lineBytes
                    let start = lines * member / threads * Self.lineBytes
                    let end = lines * (member + 1) / threads * Self.lineBytes
                    piece[start..<end].span.withUnsafeBytes { sum &+= plain_read($0.baseAddress, $0.count) }
                }
            }
            if sum != 0 { throw ServingError("zeros have been read as something else") }
        }
    }
}
