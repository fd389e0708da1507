import EvaluationReports
import Foundation
import Testing
import ThinkCompress

/// Drawings in a report's page.
@Suite struct EvaluationReportPlotTests {
    /// A recipe's point and what is written beside it.
    private struct Mark {
        let x: Double
        let y: Double
        let isBest: Bool
        let label: CGRect?

        init(_ group: PageElement) throws {
            let circle = try #require(group.all("circle").first)
            x = try #require(circle.number("cx"))
            y = try #require(circle.number("cy"))
            isBest = circle.attributes["class"] == "best"
            label = try group.all("text").first.map { text in
                let (x, y) = (try #require(text.number("x")), try #require(text.number("y")))
                // Eleven units high, of a font whose characters are 0.602 of that wide.
                let width = Double(text.text.count) * 0.602 * 11
                return CGRect(x: x - width / 2, y: y - 9, width: width, height: 12)
            }
        }
    }

    private static func plot(_ report: EvaluationReport) throws -> (page: PageElement, marks: [Mark]) {
        let page = try PageElement.parse(report.html)
        let plot = try #require(page.all("svg").first)
        return (page, try plot.all("g").map(Mark.init))
    }

    private static func report(_ results: [(bits: Double, kl: Double)]) -> EvaluationReport {
        var report = EvaluationReport(model: "m", text: "t")
        report.recipes = results.enumerated().map { index, numbers in
            var result = EvaluationReport.RecipeResult(recipe: "recipe \(index)")
            (result.bitsPerValue, result.kl) = numbers
            return result
        }
        return report
    }

    @Test("puts small recipes left and near ones low, zero below the logarithmic axis")
    func places() throws {
        let (page, marks) = try Self.plot(Self.report([(16, 0), (4, 0.01), (2, 0.1), (4, 0.1), (8, 0.001)]))
        #expect(marks.map(\.isBest) == [true, true, true, false, true])
        #expect(abs(marks[0].x + marks[1].x - 2 * marks[4].x) <= 0.2, "the axis is logarithmic")
        #expect(abs(marks[2].y + marks[4].y - 2 * marks[1].y) <= 0.2, "the axis is logarithmic")
        #expect(marks[2].x < marks[1].x && marks[1].x < marks[0].x)
        #expect(marks[2].y == marks[3].y && marks[1].x == marks[3].x)
        #expect(marks[2].y < marks[1].y && marks[4].y < marks[0].y)
        let line = try #require(page.all("path", class: "break").first?.attributes["d"]?.split(separator: " ").last)
        let base = try #require(Double(line.prefix { $0 != "H" }))
        #expect(marks[4].y < base && base < marks[0].y)
        #expect(page.all("path", class: "front").count == 3)
        #expect(page.all("path", class: "toward-zero").count == 1)
    }

    @Test("takes recipes that are equal, and numbers at the edges of their type, as they are")
    func corners() throws {
        let equal = try Self.plot(Self.report([(4, 0.1), (4, 0.1)]))
        #expect(equal.marks.map(\.isBest) == [true, true])
        let tiny = Double.leastNonzeroMagnitude
        let numbers = [(1e308, tiny), (tiny, 1e308), (4, -1e-9), (0, 1), (-1, 1)]
        let extreme = try Self.plot(Self.report(numbers))
        #expect(extreme.marks.count == 3)
        #expect(extreme.marks.allSatisfy { $0.x.isFinite && $0.y.isFinite })
        #expect(Self.report(numbers).html.firstMatch(of: /\b(nan|inf)\b/) == nil)
        let lossless = try Self.plot(Self.report([(16, 0)]))
        #expect(lossless.marks.count == 1)
    }

    @Test("names all recipes of a usual report, and no name covers a name or a point")
    func usualLabels() throws {
        let (page, marks) = try Self.plot(SampleReport.full)
        #expect(marks.count { $0.label != nil } == SampleReport.recipes.count)
        #expect(page.all("ol").isEmpty)
        Self.expectNoOverlaps(marks)
    }

    @Test("lists by number what there is no room to name", arguments: [1, 5, 15, 40, 90], [1, 2] as [UInt64])
    func crowdedLabels(_ count: Int, _ seed: UInt64) throws {
        let report = SampleReport.crowd(count: count, seed: seed)
        let (page, marks) = try Self.plot(report)
        #expect(marks.count == count)
        Self.expectNoOverlaps(marks)
        let plot = try #require(page.all("svg").first)
        let listed = page.all("li").compactMap { $0.number("value").map { Int($0) - 1 } }
        let written = plot.all("text", class: "recipe").map(\.text)
        for (index, result) in report.recipes.enumerated() {
            #expect(written.contains(result.recipe) != listed.contains(index))
        }
    }

    private static func expectNoOverlaps(_ marks: [Mark]) {
        let labels = marks.compactMap(\.label)
        for (index, label) in labels.enumerated() {
            #expect(!labels.dropFirst(index + 1).contains { $0.intersects(label) })
            #expect(!marks.contains { label.contains(CGPoint(x: $0.x, y: $0.y)) })
        }
    }

    @Test("cuts names that are too long for a drawing, and has them in full beside it")
    func longNames() throws {
        var report = Self.report([(4, 0.1)])
        report.recipes[0].recipe = String(repeating: "long", count: 50)
        let (page, _) = try Self.plot(report)
        let name = try #require(page.all("svg").first?.all("text", class: "recipe").first?.text)
        #expect(name.count == 44 && name.hasSuffix("…"))
        #expect(page.all("svg").first?.all("title").last?.text.hasPrefix(report.recipes[0].recipe) == true)
    }

    @Test("draws a line through the layers for each recipe, and keeps their names apart")
    func layers() throws {
        var report = SampleReport.text
        report.recipes[1].layerAttentionErrors = nil
        report.recipes[2].layerAttentionErrors?[3] = .nan
        let page = try PageElement.parse(report.html)
        let plot = try #require(page.all("svg").last)
        let names = plot.all("text", class: "recipe")
        #expect(names.map(\.text) == report.recipes.indices.filter { $0 != 1 }.map { report.recipes[$0].recipe })
        let counts = plot.all("polyline").map { $0.attributes["points"]?.split(separator: " ").count }
        #expect(counts == [4, 3, 4, 4, 4, 4, 4, 4, 4])
        let places = try names.map { try #require($0.number("y")) }.sorted()
        #expect(zip(places, places.dropFirst()).allSatisfy { $1 - $0 >= 14.9 })
        #expect(page.all("g", class: "dashed").count == 1)
    }
}
