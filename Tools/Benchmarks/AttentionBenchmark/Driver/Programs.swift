import Foundation

/// Where the programs of all contestants are, and how they are started.
struct Programs {
    private let selection: PeerSelection
    /// Where children put their temporary files.
    private let folder: String
    private let peers: String
    private let torchScript: String
    /// What the cases of a whole model are measured on.
    private let text: ModelText?

    init(checkout: String, selection: PeerSelection, text: ModelText?, folder: String) {
        self.selection = selection
        self.text = text
        self.folder = folder
        let root = URL(filePath: checkout, directoryHint: .isDirectory)
        peers = root.appending(path: ".build/benchmark-peers").path
        torchScript = root.appending(path: "Tools/Benchmarks/Peers/torch_peer.py").path
    }

    /// Who can be measured.
    var available: [Contestant] { Contestant.allCases.filter { isWanted($0) && isPresent($0) } }

    /// Who is wanted and can't be measured, and why.
    var missing: [String] {
        Contestant.allCases.filter { isWanted($0) && !isPresent($0) }
            .map { "\($0.name): there is no \(executable(of: $0)); run Tools/Benchmarks/Peers/setup" }
    }

    /// Starts a process that measures.
    ///
    /// - Parameter onModel: whether cases of a whole model are what it measures.
    func start(_ contestant: Contestant, threads: Int, onModel: Bool) throws -> ChildProcess {
        var environment = ProcessInfo.processInfo.environment
        environment["TMPDIR"] = folder
        if contestant == .oursAVX2 { environment["THINK_COMPRESS_KERNELS"] = "avx2" }
        let leading =
            switch contestant {
            case .ours, .oursAVX2: ["serve"]
            case .llamaGCC, .llamaClang: [String]()
            case .torch: [torchScript]
            }
        let text = onModel ? self.text : nil
        let last = text.map { [$0.model, $0.path] } ?? []
        return try ChildProcess(
            executable: executable(of: contestant, onModel: onModel),
            arguments: leading + ["--threads", "\(threads)"] + last,
            environment: environment,
            folder: folder
        )
    }

    private func executable(of contestant: Contestant, onModel: Bool = false) -> String {
        switch contestant {
        case .ours, .oursAVX2: Bundle.main.executablePath ?? CommandLine.arguments[0]
        case .llamaGCC: peers + (onModel ? "/llama-model-peer-gcc" : "/ggml-peer-gcc")
        case .llamaClang: peers + (onModel ? "/llama-model-peer-clang" : "/ggml-peer-clang")
        case .torch: peers + "/python/bin/python"
        }
    }

    private func isWanted(_ contestant: Contestant) -> Bool {
        switch contestant {
        case .ours: true
        case .oursAVX2:
            #if arch(x86_64)
                true
            #else
                false
            #endif
        case .llamaGCC, .llamaClang, .torch: selection == .all
        }
    }

    private func isPresent(_ contestant: Contestant) -> Bool {
        FileManager.default.isExecutableFile(atPath: executable(of: contestant))
    }
}
