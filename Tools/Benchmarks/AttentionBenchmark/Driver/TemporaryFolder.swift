import Foundation

/// A folder for the temporary files of all children, removed when the program ends or is interrupted.
final class TemporaryFolder {
    let path: String
    private let signals: [any DispatchSourceSignal]

    init() throws {
        let url = FileManager.default.temporaryDirectory.appending(path: "attention-benchmark-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        let path = url.path
        self.path = path
        signals = [SIGINT, SIGTERM].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number)
            source.setEventHandler {
                try? FileManager.default.removeItem(atPath: path)
                exit(128 + number)
            }
            source.resume()
            return source
        }
    }

    func remove() {
        for source in signals { source.cancel() }
        try? FileManager.default.removeItem(atPath: path)
    }
}
