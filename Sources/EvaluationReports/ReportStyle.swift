/// The page's style sheet.
enum ReportStyle {
    /// How many lines of a drawing have colours of their own.
    static let lineColors = 8

    static let sheet = Markup(lines: [
        ":root{color-scheme:light dark;\(lightColors)}", AccuracyScale.lightRules, page, tables, drawings, lines,
        // Paper is white, and so is a page for it.
        "@media screen and (prefers-color-scheme:dark){", ":root{\(darkColors)}", AccuracyScale.darkRules, "}", paper,
    ])

    private static let lightColors: Markup = """
        --page:#fcfcfb;--ink:#16181b;--soft:#5b6068;--rule:#dcdcd6;--grid:#e6e6e1;--accent:#1c63c0;\
        --c0:#2a78d6;--c1:#c2571a;--c2:#12805a;--c3:#b3246f;--c4:#6a4fc4;--c5:#8a6a00;--c6:#c93a3a;--c7:#3d7f8f;
        """

    private static let darkColors: Markup = """
        --page:#17181a;--ink:#eceae6;--soft:#a5a8ad;--rule:#3b3d41;--grid:#2a2c2f;--accent:#6ba8f5;\
        --c0:#5c9ff0;--c1:#e8894a;--c2:#3fb98a;--c3:#e870b0;--c4:#a594f0;--c5:#cfa93a;--c6:#f07a78;--c7:#6cb8c9;
        """

    private static let page: Markup = """
        *{box-sizing:border-box}
        body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
        main{max-width:1200px;margin:0 auto;padding:28px 20px 56px}
        h1{font-size:1.75rem;line-height:1.2;margin:0 0 .6rem;overflow-wrap:anywhere}
        h2{font-size:1.15rem;margin:2.6rem 0 .5rem}
        p{max-width:44rem;margin:.5rem 0 .9rem}
        .kicker{margin:0 0 .3rem;color:var(--soft)}
        dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:0 0 .9rem}
        dt{color:var(--soft)}
        dd{margin:0;overflow-wrap:anywhere}
        figure{margin:0;min-width:0;max-width:100%}
        figcaption{overflow-wrap:anywhere}
        .wide{overflow-x:auto}
        """

    private static let tables: Markup = """
        table{border-collapse:collapse;font-variant-numeric:tabular-nums}
        .recipes{font-size:.86rem;min-width:100%}
        .recipes th,.recipes td{padding:.32rem .45rem;text-align:right;border-bottom:1px solid var(--rule)}
        .recipes td{white-space:nowrap}
        .recipes thead th{vertical-align:bottom;font-weight:600;color:var(--soft);line-height:1.25}
        .recipes th:first-child{text-align:left;position:sticky;left:0;background:var(--page);padding-left:0}
        .recipes tbody th{font-weight:400;font-family:var(--code);font-size:.78rem;overflow-wrap:anywhere;\
        min-width:14.5rem}
        .recipes tbody tr:first-child th{font-weight:700}
        .maps{display:flex;flex-wrap:wrap;gap:1.6rem 3rem;margin-top:1.1rem}
        .maps figcaption{font-family:var(--code);font-size:.85rem;font-weight:700;margin-bottom:.2rem}
        .pair{display:flex;gap:1rem;width:max-content}
        .heat{border-collapse:separate;border-spacing:2px;font-size:.78rem}
        .heat caption{text-align:left;padding-bottom:.15rem}
        .heat th{font-weight:400;color:var(--soft);padding:0 .35rem;text-align:center;white-space:nowrap}
        .heat tbody th,.heat th[rowspan]{text-align:right;padding-left:0}
        .heat th[rowspan]{vertical-align:bottom}
        .heat td{min-width:3rem;height:1.7rem;padding:0 .2rem;text-align:center;white-space:nowrap;border-radius:2px}
        .heat .none{color:var(--soft);background:var(--grid)}
        .legend{display:flex;align-items:center;gap:.6rem;font-size:.78rem;color:var(--soft);max-width:30rem}
        .legend>span{white-space:nowrap}
        .scale{display:flex;flex:1}
        .scale span{flex:1;height:1.1rem}
        """

    private static let drawings: Markup = """
        svg{display:block;font:12px system-ui,sans-serif}
        svg text{fill:var(--ink)}
        svg .note{fill:var(--soft)}
        svg .axis{fill:var(--soft);font-size:12.5px}
        svg .recipe{font-family:var(--code);font-size:11px;stroke:var(--page);stroke-width:3px;paint-order:stroke}
        svg .strong{font-weight:700}
        svg path,svg polyline{fill:none}
        .grid{stroke:var(--grid)}
        .break{stroke:var(--soft);stroke-dasharray:2 3}
        .leader{stroke:var(--soft);stroke-width:.8}
        .front{stroke:var(--accent);stroke-width:2}
        .toward-zero{stroke-dasharray:5 4}
        .best{fill:var(--accent);stroke:var(--page);stroke-width:1.5}
        .beaten{fill:var(--page);stroke:var(--soft);stroke-width:1.8}
        ol{font-size:.85rem;margin:.3rem 0;overflow-wrap:anywhere}
        """

    private static var lines: Markup {
        let colors = (0..<lineColors).map { ".c\($0){--line:var(--c\($0))}" as Markup }
        return """
            :root{--code:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace}
            \(colors)
            .line polyline{stroke:var(--line);stroke-width:1.8;stroke-linejoin:round}
            .line circle{fill:var(--line)}
            .line .leader{stroke:var(--line)}
            .dashed polyline{stroke-dasharray:5 3}
            """
    }

    private static let paper: Markup = """
        @media(max-width:640px){
        main{padding:18px 14px 40px}
        .recipes th:first-child{max-width:9.5rem;min-width:9.5rem;padding-right:.3rem}
        .pair{gap:.3rem}
        .heat{font-size:.62rem;border-spacing:1px}
        .heat caption{font-size:.72rem}
        .heat td{min-width:2.15rem;padding:0}
        .heat th{padding:0 .12rem}
        }
        @media print{
        :root{color-scheme:light;--page:#fff}
        body{font-size:10pt}
        main{max-width:none;padding:0}
        .wide{overflow:visible}
        .recipes{font-size:7.5pt;min-width:0}
        .recipes tbody th{font-size:7pt}
        .recipes th,.recipes td{padding:.2rem .3rem}
        svg{max-width:100%;height:auto}
        h2{break-after:avoid}
        .plot{break-inside:avoid}
        .maps figure,svg,tr{break-inside:avoid}
        .heat td,.scale span{print-color-adjust:exact;-webkit-print-color-adjust:exact}
        }
        """
}
