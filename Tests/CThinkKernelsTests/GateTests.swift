import CThinkKernels
import Foundation
import Testing

@Suite("Gates of feed-forward layers")
struct GateTests {
    private static let sets = [KernelSet.scalar] + KernelSet.vectorSets
    private static let activations = [TCK_SILU, TCK_GELU]

    private func products(_ gates: [Float], _ ups: [Float], _ activation: tck_activation, set: KernelSet) -> [Float] {
        var guarded = GuardedBytes(count: gates.count * 4, shift: 1)
        guarded.withMutablePointer { bytes in
            gates.withUnsafeBytes { if let from = $0.baseAddress { bytes.copyMemory(from: from, byteCount: $0.count) } }
            set.kernels.multiply_gates(activation, bytes.assumingMemoryBound(to: Float.self), ups, gates.count)
        }
        #expect(guarded.marginsAreIntact, "\(set), \(gates.count) gates")
        return ElementType.float32.decode(guarded.bytes)
    }

    private func sigmoid(_ gate: Float, _ activation: tck_activation) -> Double {
        let gate = Double(gate)
        let bent = activation == TCK_SILU ? gate : (8 / Double.pi).squareRoot() * (gate + 0.044715 * gate * gate * gate)
        return 1 / (1 + exp(-bent))
    }

    @Test("Products are float64's within the bound", arguments: sets, activations)
    func products(set: KernelSet, activation: tck_activation) {
        for count in sampleCounts {
            let gates = Pattern.ordinary.values(count: count, seed: count).map { $0 * [1, 0.1, 20][count % 3] }
            let ups = Pattern.ordinary.values(count: count, seed: count + 1)
            for (index, product) in products(gates, ups, activation, set: set).enumerated() {
                let sigmoid = sigmoid(gates[index], activation)
                let magnitude = abs(Double(gates[index]) * Double(ups[index]))
                let expected = Double(gates[index]) * Double(ups[index]) * sigmoid
                let bound = magnitude * (sigmoid * (0x1p-16 + 0x1p-22) + 0x1p-59) + 0x1p-148
                #expect(abs(Double(product) - expected) <= bound, "\(gates[index]) of \(count)")
            }
        }
    }

    @Test("Far from zero a gate is open or shut", arguments: sets, activations)
    func extremes(set: KernelSet, activation: tck_activation) {
        let gates: [Float] = [0, -0.0, 30, 1e6, 3e38, -30, -1e6]
        let products = products(gates, [Float](repeating: 1, count: gates.count), activation, set: set)
        #expect(Array(products[..<5]) == Array(gates[..<5]))
        #expect(products[5...].allSatisfy { abs($0) < 1e-10 })
    }

    @Test("NaN stays NaN, in its own place", arguments: sets, activations)
    func notANumber(set: KernelSet, activation: tck_activation) {
        for place in [0, 15, 16, 20] {
            var gates = [Float](repeating: 1, count: 21)
            gates[place] = .nan
            let products = products(gates, [Float](repeating: 2, count: 21), activation, set: set)
            #expect(products.indices.allSatisfy { products[$0].isNaN == ($0 == place) })
        }
    }
}
