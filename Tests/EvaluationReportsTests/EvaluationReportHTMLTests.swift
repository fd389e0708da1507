import EvaluationReports
import Foundation
import Testing
import ThinkCompress

@Suite struct EvaluationReportHTMLTests {
    private static func headings(_ page: PageElement) -> [String] { page.all("h2").map(\.text) }

    /// Rows of the table of recipes, its header first.
    private static func rows(_ page: PageElement) -> [[String]] {
        page.all("table", class: "recipes").flatMap { $0.all("tr") }.map { $0.children.map(\.text) }
    }

    // MARK: - Table

    @Test("shows each recipe's numbers, rounded")
    func table() throws {
        let rows = Self.rows(try .parse(SampleReport.full.html))
        let header = [
            "Recipe", "Times smaller", "Bits per value", "KL, nats", "Same top-1", "Perplexity", "Change",
            "Attention error", "Recall, unseen", "Recall, seen", "Needles, unseen", "Needles, seen",
        ]
        #expect(rows.first == header)
        #expect(rows.dropFirst().map(\.first) == SampleReport.recipes)
        let first = [
            "f16", "1.00×", "16.01", "0", "100.0 %", "11.83", "0.0 %", "0", "100.0 %", "100.0 %", "100.0 %", "100.0 %",
        ]
        let third = [
            "kivi(bits=2)", "5.65×", "2.83", "0.04840", "95.2 %", "12.40", "+4.8 %", "0.1936", "90.0 %", "95.0 %",
            "95.3 %", "97.7 %",
        ]
        func breaking(_ row: [String]) -> [String] { row.map { $0.replacing("\u{A0}", with: " ") } }
        #expect(breaking(rows[1]) == first)
        #expect(breaking(rows[3]) == third)
        #expect(rows[8][3] == "3.120 × 10⁻⁵")
    }

    @Test("writes a dash for a missing number and leaves out what nothing was measured for")
    func missing() throws {
        var report = SampleReport.text
        report.recipes[1].kl = nil
        report.recipes[2].perplexityChange = -0.0314
        let page = try PageElement.parse(report.html)
        let rows = Self.rows(page)
        #expect(rows[0].count == 8)
        #expect(rows[2][3] == "–")
        #expect(rows[3][6] == "−3.1\u{A0}%")
        #expect(Self.headings(page) == ["Recipes", "Size against quality", "Attention error by layer"])
        #expect(page.all("circle", class: "best").count + page.all("circle", class: "beaten").count == 9)
        #expect(!page.text.contains("Unseen"))
    }

    @Test("says what was measured")
    func heading() throws {
        let page = try PageElement.parse(SampleReport.full.html)
        #expect(page.all("h1").map(\.text) == ["A model"])
        let facts = page.all("dd").map { $0.text.replacing("\u{A0}", with: " ") }
        let expected = [
            "a text.txt", "2,048 tokens compressed, 256 tokens after them measured, 8 places of the text",
            "64 pairs of keys and values, 256 questions",
        ]
        #expect(facts == expected)
        #expect(page.text.contains("Unseen"))
    }

    // MARK: - Needles

    @Test("maps needles by depth and context, unseen beside seen")
    func needles() throws {
        let page = try PageElement.parse(SampleReport.needles.html)
        #expect(Self.headings(page) == ["Recipes", "Needles found"])
        #expect(page.all("figcaption").map(\.text) == SampleReport.recipes)
        let maps = page.all("table", class: "heat")
        #expect(maps.count == 2 * SampleReport.recipes.count)
        func rows(_ map: PageElement) -> [[String]] {
            map.all("tr").map { row in row.children.map { $0.text.replacing("\u{A0}", with: " ") } }
        }
        let unseen = [
            ["depth", "tokens"], ["512", "1,024", "2,048", "4,096"], ["0 %", "89 %", "78 %", "55 %", "10 %"],
            ["25 %", "92 %", "83 %", "66 %", "32 %"], ["50 %", "94 %", "89 %", "78 %", "55 %"],
            ["75 %", "97 %", "94 %", "89 %", "78 %"], ["100 %", "100 %", "100 %", "100 %", "100 %"],
        ]
        #expect(rows(maps[18]) == unseen)
        #expect(rows(maps[19])[2] == ["0 %", "94 %", "89 %", "78 %", "55 %"])
        #expect(maps[18].all("td").first?.attributes["class"] == "a18")
        #expect(page.text.contains("of 20 in each cell"))
    }

    @Test("maps only what was measured together")
    func grids() throws {
        var report = EvaluationReport(model: "A model", text: "a text.txt")
        var result = EvaluationReport.RecipeResult(recipe: "f16")
        result.needle = [(512, 0.0), (512, 1), (1024, 0), (1024, 1), (2048, 0.5)].map { context, depth in
            .init(context: context, depth: depth, trials: 1, accuracy: 1, seenAccuracy: 1)
        }
        report.recipes = [result]
        #expect(report.needleGrids.map(\.contexts) == [[512, 1024], [2048]])
        #expect(report.needleGrids.map(\.depths) == [[0, 1], [0.5]])
        let maps = try PageElement.parse(report.html).all("table", class: "heat")
        #expect(maps.map { $0.all("td").count } == [4, 4, 1, 1])
    }

    @Test("keeps the same rows and columns where cells are missing")
    func missingCells() throws {
        var report = SampleReport.needles
        report.recipes[1].needle?.removeFirst()
        report.recipes[2].needle = nil
        report.recipes[3].needle?[0].accuracy = .nan
        let maps = try PageElement.parse(report.html).all("table", class: "heat")
        #expect(maps.count == 18)
        #expect(maps.map { $0.all("td").count } == Array(repeating: 20, count: 18))
        #expect(maps[2].all("td", class: "none").map(\.text) == ["–"])
        #expect(maps[4].all("td", class: "none").map(\.text) == ["–"])
        #expect(maps[5].all("td", class: "none").isEmpty)
    }

    @Test(
        "says 100 % only of all needles, and 0 % only of none",
        arguments: [
            (1, "100\u{A0}%", "a20"), (0.999, "99\u{A0}%", "a19"), (0.5, "50\u{A0}%", "a10"), (0.001, "1\u{A0}%", "a1"),
            (0, "0\u{A0}%", "a0"),
        ]
    )
    func extremes(_ accuracy: Double, _ text: String, _ className: String) throws {
        var report = EvaluationReport(model: "m", text: "t", recipes: [.init(recipe: "f16")])
        report.recipes[0].needle = [
            .init(context: 512, depth: 0.5, trials: 1000, accuracy: accuracy, seenAccuracy: accuracy)
        ]
        for cell in try PageElement.parse(report.html).all("td").suffix(2) {
            #expect(cell.text == text)
            #expect(cell.attributes["class"] == className)
        }
    }

    @Test("colours cells so that their text can be read, and lightness changes one way")
    func contrast() throws {
        let pattern = /\.a\d+\{background:rgb\((\d+),(\d+),(\d+)\);color:#(000|fff)\}/
        let luminances = SampleReport.needles.html.matches(of: pattern).map { match in
            let linear = [match.1, match.2, match.3].map { component in
                let share = (Double(component) ?? 0) / 255
                return share <= 0.04045 ? share / 12.92 : pow((share + 0.055) / 1.055, 2.4)
            }
            let luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
            // What WCAG asks for at least.
            #expect((match.4 == "000" ? (luminance + 0.05) / 0.05 : 1.05 / (luminance + 0.05)) >= 4.5)
            return luminance
        }
        try #require(luminances.count == 42)
        let (light, dark) = (Array(luminances.prefix(21)), Array(luminances.suffix(21)))
        #expect(light == light.sorted())
        #expect(dark == dark.sorted(by: >))
    }

    // MARK: - Page

    @Test(
        "is well-formed and names its parts for those who don't see them",
        arguments: [
            SampleReport.full, SampleReport.text, SampleReport.needles, EvaluationReport(model: "m", text: "t"),
        ]
    )
    func wellFormed(_ report: EvaluationReport) throws {
        let page = try PageElement.parse(report.html)
        #expect(page.all("th").allSatisfy { $0.attributes["scope"] != nil })
        for drawing in page.all("svg") {
            #expect(drawing.attributes["role"] == "img")
            #expect(drawing.all("title").first?.attributes["id"] == drawing.attributes["aria-labelledby"])
        }
        #expect(page.all("div", class: "wide").allSatisfy { $0.attributes["aria-label"]?.isEmpty == false })
        #expect(report.html == report.html)
    }

    @Test("loads nothing and runs nothing")
    func selfContained() {
        let page = SampleReport.full.html
            .replacing("http://www.w3.org/1999/xhtml", with: "").replacing("http://www.w3.org/2000/svg", with: "")
        for part in ["http", "url(", "@import", "<script", "src=", "href="] { #expect(!page.contains(part)) }
    }

    @Test(
        "takes names as text, whatever is in them",
        arguments: [
            "<b>&\"'>", "</style><script>alert(1)</script>", "]]>", "&amp;", "模型 é 🙂",
        ]
    )
    func escaping(_ name: String) throws {
        var report = SampleReport.full
        (report.model, report.text, report.recipes[2].recipe) = (name, name + "2", name + "3")
        let page = try PageElement.parse(report.html)
        #expect(page.all("h1").map(\.text) == [name])
        #expect(page.all("dd").first?.text == name + "2")
        #expect(Self.rows(page)[3][0] == name + "3")
        #expect(page.all("figcaption")[2].text == name + "3")
        #expect(page.all("script").isEmpty && page.all("b").isEmpty)
    }

    @Test("replaces characters that a page can't hold")
    func controlCharacters() throws {
        let report = EvaluationReport(model: "a\0b\u{1B}c\u{FFFF}d", text: "t")
        #expect(try PageElement.parse(report.html).all("h1").map(\.text) == ["a\u{FFFD}b\u{FFFD}c\u{FFFD}d"])
    }

    @Test("says so when there are no recipes")
    func noRecipes() throws {
        let page = try PageElement.parse(EvaluationReport(model: "m", text: "t").html)
        #expect(page.text.contains("No recipes were measured."))
        #expect(page.all("section").isEmpty)
    }

    @Test("prints no number that isn't one", arguments: [Double.nan, .infinity, -.infinity])
    func notFinite(_ number: Double) throws {
        var report = SampleReport.full
        for index in report.recipes.indices.dropFirst() {
            (report.recipes[index].ratio, report.recipes[index].kl, report.recipes[index].top1) = (
                number, number, number
            )
            (report.recipes[index].perplexity, report.recipes[index].recall) = (number, number)
            report.recipes[index].bitsPerValue = index.isMultiple(of: 2) ? number : 4
            report.recipes[index].layerAttentionErrors?[1] = number
            report.recipes[index].needle?[3].depth = number
            report.recipes[index].needle?[4].seenAccuracy = number
        }
        let page = try PageElement.parse(report.html)
        #expect(report.html.lowercased().firstMatch(of: /\b-?(nan|inf|infinity)\b/) == nil)
        #expect(Self.rows(page)[2][1] == "–")
        #expect(page.all("circle", class: "best").count == 1)
    }
}
