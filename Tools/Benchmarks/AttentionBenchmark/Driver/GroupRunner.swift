import BenchmarkSupport
import Foundation

/// Measures a group: all its cases wait in processes of their own, and take turns.
final class GroupRunner {
    /// A whole model's prompt takes minutes where it is long.
    private static let loadTimeout = (usual: 120.0, model: 1200.0)
    private static let runTimeout = (usual: 60.0, model: 600.0)

    let rounds: Int
    private let programs: Programs
    /// What each contestant says that it is.
    private(set) var versions: [String: String] = [:]
    /// What could not be measured, and why.
    private(set) var failures: [String] = []
    /// Who has hung: waiting for all the others' cases would take too long.
    private var abandoned: Set<Contestant> = []

    init(programs: Programs, rounds: Int) {
        self.programs = programs
        self.rounds = rounds
    }

    /// A case that takes part, and what it has taken.
    private final class Participant {
        let entry: MeasurementPlan.Entry
        let child: ChildProcess
        var times: [Double] = []
        /// Of the same in Swift, where the case goes through C.
        var swiftTimes: [Double] = []
        var byteCount: Int?
        var peakByteCount: Int?
        var relativeError: Double?

        init(_ entry: MeasurementPlan.Entry, child: ChildProcess) {
            self.entry = entry
            self.child = child
        }
    }

    /// Measures; what fails is noted and left out.
    func run(_ group: MeasurementPlan.Group, number: String) -> [Figure] {
        let title = "[\(number)] \(group.title), \(group.threads) thread\(group.threads == 1 ? "" : "s")"
        var participants: [Participant] = []
        let loading = seconds {
            participants = group.entries.compactMap { load($0, in: group) }
        }
        Progress.report("\(title): \(participants.count) cases loaded in \(String(format: "%.0f", loading)) s")
        let spinner = group.threads == 1 ? Spinner() : nil
        let measuring = seconds {
            for _ in 0..<rounds {
                participants = participants.filter { participant in
                    attempt(participant.entry, in: group) { try runRound(participant, in: group) } != nil
                }
            }
        }
        spinner?.stop()
        if group.isOnModel {
            participants = participants.filter { participant in
                attempt(participant.entry, in: group) {
                    participant.peakByteCount = Int(try participant.child.ask("memory", timeout: Self.runTimeout.usual))
                } != nil
            }
        }
        for participant in participants { participant.child.end() }
        Progress.report("\(title): \(rounds) round\(rounds == 1 ? "" : "s") in \(String(format: "%.0f", measuring)) s")
        return participants.map { participant in
            Figure(
                contestant: participant.entry.contestant,
                caseName: participant.entry.caseName,
                tokens: participant.entry.tokens,
                threads: group.threads,
                microseconds: median(participant.times),
                fastest: participant.times.min() ?? 0,
                slowest: participant.times.max() ?? 0,
                byteCount: participant.byteCount,
                peakByteCount: participant.peakByteCount,
                relativeError: participant.relativeError,
                swiftMicroseconds: participant.swiftTimes.isEmpty ? nil : median(participant.swiftTimes),
                addedMicroseconds: participant.swiftTimes.isEmpty
                    ? nil : median(zip(participant.times, participant.swiftTimes).map { $0 - $1 })
            )
        }
    }

    private func load(_ entry: MeasurementPlan.Entry, in group: MeasurementPlan.Group) -> Participant? {
        guard !abandoned.contains(entry.contestant) else { return nil }
        return attempt(entry, in: group) {
            let child = try programs.start(entry.contestant, threads: group.threads, onModel: group.isOnModel)
            let loadTimeout = group.isOnModel ? Self.loadTimeout.model : Self.loadTimeout.usual
            let participant = Participant(entry, child: child)
            if versions[entry.contestant.rawValue] == nil {
                versions[entry.contestant.rawValue] = try child.ask("version", timeout: Self.runTimeout.usual)
            }
            _ = try child.ask("load \(entry.caseName) \(entry.tokens)", timeout: loadTimeout)
            if group.checks && !entry.caseName.hasPrefix("read:") {
                participant.relativeError = Double(try child.ask("check", timeout: loadTimeout))
            }
            return participant
        }
    }

    private func runRound(_ participant: Participant, in group: MeasurementPlan.Group) throws {
        let timeout = group.isOnModel ? Self.runTimeout.model : Self.runTimeout.usual
        let answer = try participant.child.ask("run", timeout: timeout)
        let numbers = answer.split(separator: " ")
        guard let time = numbers.first.flatMap({ Double($0) }), time > 0 else {
            throw ChildError("it answered: ok \(answer)")
        }
        participant.times.append(time)
        if numbers.count == 3, numbers[1] == "swift", let time = Double(numbers[2]) {
            participant.swiftTimes.append(time)
        } else if numbers.count > 1 {
            participant.byteCount = Int(numbers[1])
        }
    }

    /// Does it, or notes why it can't be done.
    private func attempt<Result>(
        _ entry: MeasurementPlan.Entry,
        in group: MeasurementPlan.Group,
        _ body: () throws -> Result
    ) -> Result? {
        do {
            return try body()
        } catch {
            let failure =
                "\(entry.contestant.name), \(entry.caseName), \(entry.tokens) tokens, \(group.threads) "
                + "thread\(group.threads == 1 ? "" : "s"): \(error)"
            failures.append(failure)
            Progress.report("failed, left out: \(failure)")
            if (error as? ChildError)?.isTimeout == true, abandoned.insert(entry.contestant).inserted {
                Progress.report("\(entry.contestant.name) is not asked again")
            }
            return nil
        }
    }
}
