import Foundation

#if canImport(FoundationXML)
    import FoundationXML
#endif

/// An element of a page, read as XML: what isn't well-formed is refused.
final class PageElement {
    let name: String
    let attributes: [String: String]
    fileprivate(set) var children: [PageElement] = []
    /// The text of the element and of those in it.
    fileprivate(set) var text = ""

    fileprivate init(name: String, attributes: [String: String]) {
        self.name = name
        self.attributes = attributes
    }

    /// - Throws: The parser's error.
    static func parse(_ page: String) throws -> PageElement {
        let builder = Builder()
        let parser = XMLParser(data: Data(page.utf8))
        parser.delegate = builder
        guard parser.parse(), let root = builder.root else {
            throw parser.parserError ?? CocoaError(.fileReadCorruptFile)
        }
        return root
    }

    /// Elements within this one, in their order.
    func all(_ name: String, class className: String? = nil) -> [PageElement] {
        children.flatMap { child in
            let isWanted = child.name == name && (className == nil || child.classes.contains(className ?? ""))
            return (isWanted ? [child] : []) + child.all(name, class: className)
        }
    }

    func number(_ attribute: String) -> Double? { attributes[attribute].flatMap(Double.init) }

    private var classes: [String] { (attributes["class"] ?? "").split(separator: " ").map(String.init) }
}

extension PageElement {
    private final class Builder: NSObject, XMLParserDelegate {
        private(set) var root: PageElement?
        private var open: [PageElement] = []

        func parser(
            _ parser: XMLParser,
            didStartElement name: String,
            namespaceURI: String?,
            qualifiedName: String?,
            attributes: [String: String] = [:]
        ) {
            let element = PageElement(name: name, attributes: attributes)
            open.last?.children.append(element)
            open.append(element)
            root = root ?? element
        }

        func parser(_ parser: XMLParser, didEndElement: String, namespaceURI: String?, qualifiedName: String?) {
            open.removeLast()
        }

        func parser(_ parser: XMLParser, foundCharacters text: String) {
            for element in open { element.text += text }
        }
    }
}
