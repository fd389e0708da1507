/// Who is measured.
enum Contestant: String, CaseIterable, Codable {
    case ours
    case oursAVX2 = "ours-avx2"
    case llamaGCC = "llama-gcc"
    case llamaClang = "llama-clang"
    case torch

    /// llama.cpp is built with two compilers, and the faster counts.
    static let llama: [Contestant] = [.llamaGCC, .llamaClang]

    var name: String {
        switch self {
        case .ours: "think-compress"
        case .oursAVX2: "think-compress, AVX2 alone"
        case .llamaGCC: "llama.cpp, gcc"
        case .llamaClang: "llama.cpp, clang"
        case .torch: "PyTorch"
        }
    }
}

/// Which peers are to be measured.
enum PeerSelection: String, CaseIterable {
    case all, none
}
