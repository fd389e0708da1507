/// All that was measured.
struct Figures {
    private(set) var all: [Figure] = []

    mutating func add(_ figures: [Figure]) { all += figures }

    /// The figure of a case; of several contestants the fastest's.
    func figure(
        _ caseName: String,
        tokens: Int,
        threads: Int,
        by contestants: [Contestant] = [.ours]
    ) -> Figure? {
        all.filter {
            $0.caseName == caseName && $0.tokens == tokens && $0.threads == threads
                && contestants.contains($0.contestant)
        }.min { $0.microseconds < $1.microseconds }
    }

    func microseconds(
        _ caseName: String,
        tokens: Int,
        threads: Int,
        by contestants: [Contestant] = [.ours]
    ) -> Double? {
        figure(caseName, tokens: tokens, threads: threads, by: contestants)?.microseconds
    }

    /// Microseconds in which a perfect float16 kernel would read a layer: its bytes at the plain read's speed.
    func perfectFloat16(tokens: Int, threads: Int) -> Double? {
        guard let read = figure(Case.plainRead, tokens: tokens, threads: threads), let bytes = read.byteCount else {
            return nil
        }
        return read.microseconds * Double(Case.float16LayerBytes(tokens: tokens)) / Double(bytes)
    }

    /// Bytes per second of a plain read.
    func readSpeed(tokens: Int, threads: Int) -> Double? {
        figure(Case.plainRead, tokens: tokens, threads: threads).flatMap { read in
            read.byteCount.map { Double($0) / read.microseconds * 1e6 }
        }
    }

    /// Numbers of threads that attention was measured with, in order.
    var threadCounts: [Int] { Set(all.map(\.threads)).sorted() }

    /// Context lengths that attention was measured over, in order.
    var attentionTokens: [Int] {
        Set(all.filter { $0.caseName == Case.headline }.map(\.tokens)).sorted()
    }
}
