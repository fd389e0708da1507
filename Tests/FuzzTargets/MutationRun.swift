import Foundation
import TestSupport
import ThinkCompress

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Mutations of one parser's inputs in a process of their own, which a trap, a hang or too much memory ends.
public struct MutationRun: Codable, Sendable {
    /// What any mutation may take: they run in milliseconds, but machines that test are busy.
    private static let maximumSeconds: UInt32 = 20
    /// Peak of the whole process; inputs are of 10 KB, or 150 KB of weights.
    private static let maximumBytes = 512 << 20

    public let target: String
    public let seed: UInt64
    public let count: Int
    /// The file that says which mutation is being tried.
    public let progress: String

    public init(target: ParserTarget, seed: UInt64, count: Int, progress: String) {
        self.target = target.rawValue
        self.seed = seed
        self.count = count
        self.progress = progress
    }

    /// Tries all mutations.
    ///
    /// - Throws: `Parser.Fault` of the first that ends neither in an error of the library's nor in a value.
    public func callAsFunction() async throws {
        guard let target = ParserTarget(rawValue: target) else { throw Parser.Fault(description: "no such parser") }
        let mutator = try await Mutator(target, seed: seed)
        let parser = try Parser(target)
        try Data().write(to: URL(filePath: progress))
        let file = try FileHandle(forWritingTo: URL(filePath: progress))
        var used = 0
        for number in 0..<count {
            try file.seek(toOffset: 0)
            try file.write(contentsOf: Data("\(number)\n".utf8))
            alarm(Self.maximumSeconds)
            do {
                if try await parser.parse(mutator.mutation(number)) == .used { used += 1 }
                guard try PeakMemory.ofThisProcess() <= Self.maximumBytes else {
                    throw Parser.Fault(description: "the process took \(try PeakMemory.ofThisProcess()) bytes")
                }
            } catch {
                try file.write(contentsOf: Data("\(error)\n".utf8))
                throw error
            }
        }
        alarm(0)
        // Mutations that are all refused, or all valid where not every text is, would test little.
        let most = target.syntax == .text ? count : count - 1
        guard count < 100 || (1...most).contains(used) else {
            try file.write(contentsOf: Data("\(used) of \(count) mutations were valid\n".utf8))
            throw Parser.Fault(description: "mutations that test little")
        }
        try file.write(contentsOf: Data("\(used) valid, peak of \(try PeakMemory.ofThisProcess() >> 20) MiB\n".utf8))
    }

    /// What to say of a run that didn't end as it should.
    public var report: String {
        let lines = (try? String(contentsOfFile: progress, encoding: .utf8))?.split(separator: "\n") ?? []
        let reason =
            lines.count > 1 ? lines[1...].joined(separator: " ") : "a trap, or more than \(Self.maximumSeconds) s"
        let number = lines.first ?? "none"
        return "\(target), seed \(seed), mutation \(number): \(reason); the input: Tools/fuzz --save \(target) "
            + "--seed \(seed) --mutation \(number)"
    }
}
