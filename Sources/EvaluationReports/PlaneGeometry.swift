/// A place in a drawing.
struct Point: Hashable {
    var x: Double
    var y: Double
}

/// A straight line in a drawing.
struct Segment {
    var from: Point
    var to: Point

    /// Whether a part of the line is inside the box.
    func crosses(_ box: Box) -> Bool {
        // The part of the line, 0 at its beginning and 1 at its end, that is between the box's sides.
        var (start, end) = (0.0, 1.0)
        func clip(_ place: Double, _ direction: Double, _ low: Double, _ high: Double) {
            guard direction != 0 else {
                if place <= low || place >= high { end = -1 }
                return
            }
            let (first, second) = ((low - place) / direction, (high - place) / direction)
            start = max(start, min(first, second))
            end = min(end, max(first, second))
        }
        clip(from.x, to.x - from.x, box.x, box.maxX)
        clip(from.y, to.y - from.y, box.y, box.maxY)
        return start < end
    }
}

/// A rectangle in a drawing.
struct Box {
    var x: Double
    var y: Double
    var width: Double
    var height: Double

    var maxX: Double { x + width }
    var maxY: Double { y + height }

    init(x: Double, y: Double, width: Double, height: Double) {
        self.x = x
        self.y = y
        self.width = width
        self.height = height
    }

    init(around point: Point, radius: Double) {
        self.init(x: point.x - radius, y: point.y - radius, width: 2 * radius, height: 2 * radius)
    }

    func contains(_ point: Point) -> Bool {
        x < point.x && point.x < maxX && y < point.y && point.y < maxY
    }

    func contains(_ other: Box) -> Bool {
        x <= other.x && other.maxX <= maxX && y <= other.y && other.maxY <= maxY
    }

    func overlaps(_ other: Box) -> Bool {
        x < other.maxX && other.x < maxX && y < other.maxY && other.y < maxY
    }

    /// The point of the box that is nearest to `point`.
    func nearest(to point: Point) -> Point {
        Point(x: min(max(point.x, x), maxX), y: min(max(point.y, y), maxY))
    }
}
