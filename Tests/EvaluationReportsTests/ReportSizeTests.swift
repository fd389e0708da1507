import EvaluationReports
import Foundation
import KVCacheEvaluation
import LlamaDecoder
import Testing
import ThinkCompress

/// Pages of journals that have much in them: what is drawn is bounded, and what is not drawn is counted.
@Suite struct ReportSizeTests {
    private static func journal() -> EvaluationJournal {
        EvaluationJournal(
            subject: .init(
                metadata: ["model.id": "m"],
                text: "t",
                textBytes: [1].span.bytes,
                prompts: .plain,
                seed: 0
            )
        )
    }

    private static func report(_ journal: EvaluationJournal) -> EvaluationReport {
        EvaluationReport(journal, recipes: ["f16"], tasks: [])
    }

    @Test("needles that each have a context and a depth of their own make a map each, up to a bound")
    func needles() throws {
        let journal = Self.journal()
        for index in 0..<530 {
            let task = EvaluationTask.needles(context: 150 + index, depths: [Double(index) / 1000])
            try journal.add(.answers(unseen: [true], seen: [true]), for: .init(task: task, trial: 0, recipe: "f16"))
        }
        let report = Self.report(journal)
        #expect(report.needleGrids.count == 530)
        #expect(report.needleGrids.allSatisfy { $0.cellCount == 1 })
        let page = try PageElement.parse(report.html)
        // 2,500 cells, where a table's head counts as ten; each map is there twice.
        #expect(page.all("table", class: "heat").count == 2 * 227)
        #expect(page.all("td").count == 2 * 227 + 2)
        #expect(page.text.contains("Not drawn here: 303 of 530 lengths and depths."))
        #expect(report.html.utf8.count < 300_000)
    }

    @Test("a grid with many recipes is drawn for the first of them")
    func manyMaps() throws {
        let journal = Self.journal()
        for recipe in 0..<40 {
            for place in 0..<400 where recipe == 0 || place == recipe {
                let task = EvaluationTask.needles(context: 100 + place % 20, depths: [Double(place / 20) / 20])
                try journal.add(
                    .answers(unseen: [true], seen: [true]),
                    for: .init(task: task, trial: 0, recipe: recipe == 0 ? "f16" : "recipe \(recipe)")
                )
            }
        }
        let page = try PageElement.parse(Self.report(journal).html)
        // 400 cells and the head's ten, of 10,000.
        #expect(page.all("table", class: "heat").count == 2 * 24)
        #expect(page.text.contains("Not drawn here: 16 of 40 recipes."))
    }

    @Test("a page shows the first hundred recipes and says how many more there are")
    func recipes() throws {
        let journal = Self.journal()
        let measured = """
            {"fileBytes": 1000, "payloadBytes": 900, "values": 3000, "tokens": 64, "divergence": 1, "agreements": 3,
             "surprise": 1.5, "fullSurprise": 1.25, "layerAttentionErrors": [0.5, 0.25]}
            """
        var sums = try JSONDecoder().decode(TextOutcome.self, from: Data(measured.utf8))
        for index in 0..<30_000 {
            (sums.payloadBytes, sums.divergence) = (900 + index, 1 + Double(index))
            let key = TrialKey(task: .text(prefix: 1000, continuation: 64), trial: 0, recipe: "kivi(bits=2) \(index)")
            try journal.add(.text(sums: sums), for: key)
        }
        let report = Self.report(journal)
        #expect(report.recipes.count == 30_000)
        let html = report.html
        let page = try PageElement.parse(html)
        #expect(page.text.contains("29,900 more recipes are not shown here."))
        #expect(page.all("table", class: "recipes").first?.all("tr").count == 101)
        #expect(page.all("circle").count <= 100 + 200)
        #expect(html.utf8.count < 300_000)
    }
}
