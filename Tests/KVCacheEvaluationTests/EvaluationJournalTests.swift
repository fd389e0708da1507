import EvaluationReports
import Foundation
import KVCacheEvaluation
import LlamaDecoder
import TestSupport
import Testing
import ThinkCompress

@Suite struct EvaluationJournalTests {
    private let folder: TemporaryFolder
    private var path: String { folder.file("results.jsonl") }

    init() throws {
        folder = try TemporaryFolder()
    }

    private func subject(
        fingerprint: String = "f",
        tokenizer: String = "k",
        text: [UInt8] = [1],
        prompts: ChatForm = .plain,
        seed: UInt64 = 0
    ) -> EvaluationJournal.Subject {
        let metadata = ["model.id": "m", "model.fingerprint": fingerprint, "tokenizer.sha256": tokenizer]
        return .init(metadata: metadata, text: "t", textBytes: text.span.bytes, prompts: prompts, seed: seed)
    }

    private static func key(_ trial: Int) -> TrialKey {
        TrialKey(task: .needles(context: 10, depths: [0.25]), trial: trial, recipe: "f16")
    }

    private func fill(_ count: Int) throws {
        let journal = try EvaluationJournal(path: path, subject: subject())
        for trial in 0..<count {
            try journal.add(.answers(unseen: [trial % 2 == 0], seen: [true]), for: Self.key(trial))
        }
    }

    private func append(_ text: String) throws {
        let handle = try FileHandle(forUpdating: URL(filePath: path))
        try handle.seekToEnd()
        try handle.write(contentsOf: Data(text.utf8))
        try handle.close()
    }

    @Test func outcomesAreReadBack() throws {
        try fill(3)
        let journal = try EvaluationJournal(path: path, subject: subject())
        #expect(journal.records.map(\.key) == [Self.key(0), Self.key(1), Self.key(2)])
        #expect(journal.outcome(of: Self.key(0)) == .answers(unseen: [true], seen: [true]))
        #expect(journal.outcome(of: Self.key(1)) == .answers(unseen: [false], seen: [true]))
        #expect(journal.outcome(of: Self.key(3)) == nil)
    }

    @Test func whatABudgetChoseIsKeptAndReported() throws {
        let task = EvaluationTask.recall(context: 10, pairs: 2, questions: 1)
        func key(_ trial: Int, _ recipe: String) -> TrialKey { TrialKey(task: task, trial: trial, recipe: recipe) }
        func write() throws {
            let journal = try EvaluationJournal(path: path, subject: subject())
            for (trial, chosen) in ["think(bits=3)", "think(bits=2)", "think(bits=2)"].enumerated() {
                let outcome = TrialOutcome.answers(unseen: [true], seen: [true])
                try journal.add(outcome, for: key(trial, "f16"), chosen: "f16")
                try journal.add(outcome, for: key(trial, "auto(error=2%)"), chosen: chosen)
            }
        }
        try write()
        let read = try EvaluationJournal(path: path, subject: subject())
        #expect(read.records.map(\.chosen) == [nil, "think(bits=3)", nil, "think(bits=2)", nil, "think(bits=2)"])
        let report = EvaluationReport(read, recipes: ["f16"], tasks: [])
        #expect(report.recipes.map(\.recipe) == ["f16", "think(bits=2)"])
        #expect(report.recipes.map(\.name) == [nil, "auto(error=2%)"])
        #expect(report.recipes.map(\.title) == ["f16", "auto(error=2%): think(bits=2)"])
    }

    @Test(arguments: [#""""#, #""f16""#, #""\u001b[1m""#, #""thé""#, "7"])
    func choicesThatNoRecipeCanMakeAreDamage(chosen: String) throws {
        try fill(1)
        let key = #"{"recipe":"f16","task":{"needles":{"context":10,"depths":[0.25]}},"trial":1}"#
        let outcome = #"{"answers":{"seen":[true],"unseen":[true]}}"#
        try append("{\"chosen\":\(chosen),\"key\":\(key),\"outcome\":\(outcome)}\n")
        let error = #expect(throws: EvaluationError.self) { try EvaluationJournal(path: path, subject: subject()) }
        #expect(error?.message.contains("line 3 is damaged") == true)
    }

    @Test func aLineThatWasNotFinishedIsDroppedAndWrittenAnew() throws {
        try fill(2)
        try append(#"{"key":{"recipe":"f16","#)
        let journal = try EvaluationJournal(path: path, subject: subject())
        #expect(journal.records.count == 2)
        try journal.add(.answers(unseen: [true], seen: [false]), for: Self.key(2))
        #expect(try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").count == 4)
    }

    @Test func journalsOfOthersAreRefusedAndKept() throws {
        try fill(1)
        let before = try Data(contentsOf: URL(filePath: path))
        for other in [
            subject(fingerprint: "g"), subject(tokenizer: "l"), subject(text: [2]), subject(prompts: .chatML),
            subject(seed: 1),
        ] {
            let error = #expect(throws: EvaluationError.self) { try EvaluationJournal(path: path, subject: other) }
            #expect(error?.path == path)
        }
        #expect(try Data(contentsOf: URL(filePath: path)) == before)
    }

    @Test(arguments: ["hello", "hello\nworld\n", "{\"format\": \"other\"}\n", "{\"a\": 1}"])
    func otherFilesAreRefusedAndKept(content: String) throws {
        try Data(content.utf8).write(to: URL(filePath: path))
        #expect(throws: EvaluationError.self) { try EvaluationJournal(path: path, subject: subject()) }
        #expect(try String(contentsOfFile: path, encoding: .utf8) == content)
    }

    @Test func ofLinesWithEqualKeysTheLastCounts() throws {
        try fill(2)
        let journal = try EvaluationJournal(path: path, subject: subject())
        try journal.add(.answers(unseen: [false], seen: [false]), for: Self.key(0))
        #expect(journal.records.count == 2)
        #expect(journal.outcome(of: Self.key(0)) == .answers(unseen: [false], seen: [false]))
        let report = EvaluationReport(journal, recipes: [], tasks: [])
        #expect(report.recipes.first?.needle?.first?.trials == 2)
        #expect(report.recipes.first?.needle?.first?.accuracy == 0)
    }

    @Test func aJournalThatIsWrittenToIsNotOpenedByAnother() throws {
        let journal = try EvaluationJournal(path: path, subject: subject())
        let error = #expect(throws: FileError.self) { try EvaluationJournal(path: path, subject: subject()) }
        #expect(error?.message.contains("another run") == true)
        #expect(journal.records.isEmpty)
    }

    @Test(arguments: [false, true])
    func aJournalThatIsRemovedOrReplacedWhileItIsWrittenIsAnError(isReplaced: Bool) throws {
        let journal = try EvaluationJournal(path: path, subject: subject())
        try journal.add(.answers(unseen: [true], seen: [true]), for: Self.key(0))
        let before = try Data(contentsOf: URL(filePath: path))
        if isReplaced {
            // As an editor saves a file.
            try before.write(to: URL(filePath: path), options: .atomic)
        } else {
            try FileManager.default.removeItem(atPath: path)
        }
        let error = #expect(throws: FileError.self) {
            try journal.add(.answers(unseen: [true], seen: [true]), for: Self.key(1))
        }
        #expect(error?.description.hasPrefix("\(path): was removed or replaced while it was written") == true)
        #expect(journal.records.count == 1)
        if isReplaced { #expect(try Data(contentsOf: URL(filePath: path)) == before) }
    }

    @Test func aJournalOfAPrivateTextIsPrivate() throws {
        let text = folder.file("text")
        try Data("a".utf8).write(to: URL(filePath: text))
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: text)
        _ = try EvaluationJournal(path: path, access: FileAccess(inputs: [text]), subject: subject())
        let attributes = try FileManager.default.attributesOfItem(atPath: path)
        #expect(attributes[.posixPermissions] as? Int == 0o600)
    }

    /// Journals of version 1 have answers to other prompts.
    @Test(arguments: [1, 3])
    func aJournalOfAnotherVersionIsNamedSo(version: Int) throws {
        let text = #"{"format":"think-compress evaluation","version":\#(version),"subject":{}}"# + "\n"
        try Data(text.utf8).write(to: URL(filePath: path))
        let error = #expect(throws: EvaluationError.self) { try EvaluationJournal(path: path, subject: subject()) }
        #expect(error?.message.contains("version \(version)") == true)
    }

    @Test func aDamagedLineIsNamed() throws {
        try fill(2)
        try append("{\"key\": 3}\n")
        let error = #expect(throws: EvaluationError.self) { try EvaluationJournal(path: path, subject: subject()) }
        #expect(error?.message.contains("line 4") == true)
    }

    @Test(
        arguments: [
            #""text":{"prefix":9,"continuation":2}"#: #""text":{"sums":{"agreements":3,"divergence":0,"fileBytes":9,"#
                + #""fullSurprise":1,"payloadBytes":9,"surprise":1,"tokens":2,"values":9}}"#,
            #""needles":{"context":10,"depths":[0,1]}"#: #""answers":{"seen":[true],"unseen":[true]}"#,
            #""recall":{"context":10,"pairs":2,"questions":1}"#: #""answers":{"seen":[],"unseen":[true]}"#,
            #""recall":{"context":10,"pairs":2,"questions":2}"#: #""text":{"sums":{"agreements":1,"divergence":0,"#
                + #""fileBytes":9,"fullSurprise":1,"payloadBytes":9,"surprise":1,"tokens":2,"values":9}}"#,
            #""text":{"prefix":9,"continuation":2}"#: #""answers":{"seen":[],"unseen":[]}"#,
        ] as KeyValuePairs
    )
    func outcomesThatCannotBeAreDamage(task: String, outcome: String) throws {
        try fill(1)
        try append(#"{"key":{"recipe":"f16","task":{\#(task)},"trial":0},"outcome":{\#(outcome)}}"# + "\n")
        let error = #expect(throws: EvaluationError.self) { try EvaluationJournal(path: path, subject: subject()) }
        #expect(error?.message.contains("line 3") == true)
    }

    @Test func placesThatCannotBeWrittenAreErrors() throws {
        #expect(throws: FileError.self) {
            try EvaluationJournal(path: folder.file("no/such/folder.jsonl"), subject: subject())
        }
        #expect(throws: FileError.self) { try EvaluationJournal(path: folder.path, subject: subject()) }
        #expect(throws: FileError.self) { try EvaluationJournal(path: "/dev/null", subject: subject()) }
    }
}
