internal import Foundation

extension Double {
    /// The number with so many digits after the point, and no minus before zeros.
    func fixed(_ digits: Int) -> String {
        let text = String(format: "%.\(digits)f", self)
        return text.hasPrefix("-") && !text.contains { ("1"..."9").contains($0) } ? String(text.dropFirst()) : text
    }

    /// The number with so many digits that count, very small and large ones with a power of ten.
    ///
    /// - Parameter trimmed: whether zeros at the end of a fraction are left out, as at an axis.
    func significant(_ digits: Int, trimmed: Bool = false) -> String {
        guard self != 0 else { return "0" }
        // Rounded before the power of ten is read: 9.9996 is 10.00.
        let parts = String(format: "%.\(digits - 1)e", magnitude).split(separator: "e")
        guard parts.count == 2, let exponent = Int(parts[1]) else { return "–" }
        let sign = self < 0 ? "−" : ""
        if (-4..<6).contains(exponent) {
            let text = magnitude.fixed(max(0, digits - 1 - exponent))
            return sign + (trimmed ? Self.withoutZeros(text) : text)
        }
        let mantissa = trimmed ? Self.withoutZeros(String(parts[0])) : String(parts[0])
        let power = "10" + Self.superscript(exponent)
        return sign + (trimmed && mantissa == "1" ? power : "\(mantissa) × \(power)")
    }

    /// A share as a percentage with one digit after the point.
    var percent: String { percent(digits: 1) }

    /// A share as a percentage. The space before the sign doesn't break.
    func percent(digits: Int) -> String {
        let text = magnitude < 1e4 ? (magnitude * 100).fixed(digits) : (magnitude * 100).significant(4)
        let isNegative = self < 0 && text.contains { ("1"..."9").contains($0) }
        return (isNegative ? "−" : "") + text + "\u{A0}%"
    }

    /// A change as a percentage with its sign.
    var signedPercent: String {
        let text = percent
        return text.hasPrefix("−") || !text.contains { ("1"..."9").contains($0) } ? text : "+" + text
    }

    /// A share as a whole percentage, which is 0 or 100 only where nothing or everything counted.
    var wholePercent: String {
        let isExtreme = self <= 0 || self >= 1
        return (isExtreme ? self : min(max(self, 0.01), 0.99)).percent(digits: 0)
    }

    private static func withoutZeros(_ text: String) -> String {
        guard text.contains(".") else { return text }
        let digits = text.reversed().drop { $0 == "0" }
        return String(digits.drop { $0 == "." }.reversed())
    }

    private static func superscript(_ number: Int) -> String {
        let digits: [Character] = ["⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"]
        return String(String(number).map { $0.wholeNumberValue.map { digits[$0] } ?? "⁻" })
    }
}

extension Int {
    /// The number with its thousands apart.
    var grouped: String {
        let digits = String(magnitude)
        let parts = stride(from: digits.count, to: 0, by: -3).map { end in
            digits.dropFirst(Swift.max(end - 3, 0)).prefix(Swift.min(3, end))
        }
        return (self < 0 ? "−" : "") + parts.reversed().joined(separator: ",")
    }
}
