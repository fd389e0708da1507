internal import ByteStorage
internal import ComputeRuntime

/// Where a model's tensors are, by the names that `transformers` gives them.
protocol TensorSource {
    /// What says which shapes tensors have, for errors.
    var configurationName: String { get }
    /// What it means if a tensor has another shape.
    var shapeFault: String { get }

    func has(_ name: String) -> Bool

    /// The tensor of a name, or nil if there is none.
    ///
    /// - Throws: `ModelError` naming the tensor if it is of a type that isn't supported.
    func tensor(_ name: String) throws(ModelError) -> StoredTensor?

    /// The error for a tensor that isn't there.
    func missing(_ name: String) -> ModelError
}

/// A tensor where it lies in a file.
struct StoredTensor {
    let path: String
    /// As the file calls it.
    let name: String
    let shape: [Int]
    let type: WeightType
    let bytes: SharedBytes
    var rowOrder = WeightMatrix.RowOrder.plain
}

extension TensorSource {
    func matrix(_ name: String, rows: Int, columns: Int) throws(ModelError) -> WeightMatrix {
        let tensor = try tensor(name, shape: [rows, columns])
        return WeightMatrix(
            bytes: tensor.bytes,
            type: tensor.type,
            rows: rows,
            columns: columns,
            rowOrder: tensor.rowOrder
        )
    }

    func linear(_ name: String, rows: Int, columns: Int, hasBias: Bool) throws(ModelError) -> Linear {
        let bias = "\(name).bias"
        if !hasBias, let tensor = try tensor(bias) {
            throw ModelError(
                .unsupported,
                path: tensor.path,
                "tensor '\(tensor.name)' is there, and \(configurationName) says that there is no bias"
            )
        }
        return Linear(
            weights: try matrix("\(name).weight", rows: rows, columns: columns),
            bias: hasBias ? try vector(bias, count: rows) : nil
        )
    }

    func vector(_ name: String, count: Int) throws(ModelError) -> [Float] {
        let tensor = try tensor(name, shape: [count])
        let matrix: WeightMatrix
        switch tensor.rowOrder {
        case .plain:
            matrix = WeightMatrix(bytes: tensor.bytes, type: tensor.type, rows: 1, columns: count)
        case .interleavedHalves:
            guard tensor.type.blockLength == 1 else {
                throw ModelError(
                    .unsupported,
                    path: tensor.path,
                    "tensor '\(tensor.name)' has the type \(tensor.type.name), which is not supported for a bias"
                )
            }
            matrix = WeightMatrix(
                bytes: tensor.bytes,
                type: tensor.type,
                rows: count,
                columns: 1,
                rowOrder: tensor.rowOrder
            )
        }
        var result = [Float](repeating: 0, count: count)
        unsafe result.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            unsafe matrix.widen(from: 0, count: matrix.rows, into: base)
        }
        return result
    }

    private func tensor(_ name: String, shape: [Int]) throws(ModelError) -> StoredTensor {
        guard let tensor = try tensor(name) else { throw missing(name) }
        guard tensor.shape == shape else {
            throw ModelError(
                .damaged,
                path: tensor.path,
                "tensor '\(tensor.name)' has the shape \(tensor.shape), and by \(configurationName) it must be \(shape); "
                    + shapeFault
            )
        }
        return tensor
    }
}
