import Dispatch
import Foundation
import FuzzTargets

/// The parser that the environment names: a process fuzzes one.
private let parser: Parser = {
    let name = ProcessInfo.processInfo.environment["THINK_COMPRESS_FUZZ_TARGET"] ?? ""
    guard let target = ParserTarget(rawValue: name) else {
        fatalError("THINK_COMPRESS_FUZZ_TARGET is '\(name)'; it must be one of \(ParserTarget.allCases)")
    }
    do { return try Parser(target) } catch { fatalError("\(target): \(error)") }
}()

/// What libFuzzer calls with every input; a trap is what it looks for.
@c(LLVMFuzzerTestOneInput)
public func testOneInput(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    let done = DispatchSemaphore(value: 0)
    Task.detached {
        do { try await parser.parse(bytes) } catch { fatalError("\(error)") }
        done.signal()
    }
    done.wait()
    return 0
}
