import Foundation

/// The machine that figures were measured on.
struct Machine: Codable {
    let processor: String
    let processors: Int
    /// Sizes of the first processor's caches, as the system tells them.
    let caches: [String]
    /// Those of the instruction sets that kernels know.
    let instructionSets: [String]
    let memoryGibibytes: Int
    let system: String
    let transparentHugePages: String?

    init() {
        let lines = (Self.text("/proc/cpuinfo") ?? "").split(separator: "\n")
        func value(_ key: String) -> String? {
            lines.first { $0.hasPrefix(key) }.flatMap { $0.split(separator: ":", maxSplits: 1).last }
                .map { $0.trimmingCharacters(in: .whitespaces) }
        }
        processor = value("model name") ?? "unknown"
        processors = ProcessInfo.processInfo.activeProcessorCount
        let flags = Set((value("flags") ?? "").split(separator: " ").map(String.init))
        instructionSets = ["avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"].filter(flags.contains)
        caches = (0..<8).compactMap { index in
            let folder = "/sys/devices/system/cpu/cpu0/cache/index\(index)/"
            guard let level = Self.text(folder + "level"), let size = Self.text(folder + "size"),
                let type = Self.text(folder + "type")
            else { return nil }
            return "L\(level) \(type.lowercased()) \(size)"
        }
        memoryGibibytes = Int(ProcessInfo.processInfo.physicalMemory >> 30)
        system = ProcessInfo.processInfo.operatingSystemVersionString
        transparentHugePages = Self.text("/sys/kernel/mm/transparent_hugepage/enabled")
    }

    var text: String {
        let parts = [
            "\(processor), \(processors) processors", instructionSets.joined(separator: " "),
            caches.joined(separator: ", "), "\(memoryGibibytes) GiB", system,
        ]
        return parts.filter { !$0.isEmpty }.joined(separator: "; ")
    }

    private static func text(_ path: String) -> String? {
        (try? String(contentsOfFile: path, encoding: .utf8))?.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
