/// Runs work and returns seconds.
public func seconds(_ work: () throws -> Void) rethrows -> Double {
    let start = ContinuousClock.now
    try work()
    return (ContinuousClock.now - start).inSeconds
}

/// The number in the middle; of an even count the higher of the two.
public func median(_ numbers: [Double]) -> Double { numbers.sorted()[numbers.count / 2] }

extension Duration {
    public var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
