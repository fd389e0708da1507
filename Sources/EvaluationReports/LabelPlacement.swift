/// Puts names beside the points of a drawing so that nothing covers anything else.
///
/// A name is tried close to its point, then farther away with a line to it, in all directions. Where it fits nowhere,
/// the point gets a short number instead, and where not even that fits, nothing.
struct LabelPlacement {
    struct Label {
        let box: Box
        /// From the point to the label, if they are apart.
        let leader: Segment?
        /// Whether the label is the number and not the name.
        let isNumber: Bool
    }

    /// What is to be labelled.
    struct Item {
        let point: Point
        let nameWidth: Double
        let numberWidth: Double
    }

    /// Room around a point that stays free.
    private static let pointRadius = 7.0
    /// Distances of labels from their points, the first without a line.
    private static let distances = [9.0, 20, 34, 50, 68, 90, 115]
    /// How often an order of placing is tried again.
    private static let corrections = 6
    /// What crossing a line that should stay visible costs, as a distance.
    private static let crossingCost = 25.0
    /// To the right, to the left, above, below, and between.
    private static let directions = [
        Point(x: 1, y: 0), Point(x: -1, y: 0), Point(x: 0, y: -1), Point(x: 0, y: 1), Point(x: 0.8, y: -0.6),
        Point(x: 0.8, y: 0.6), Point(x: -0.8, y: -0.6), Point(x: -0.8, y: 0.6), Point(x: 0.4, y: -0.92),
        Point(x: 0.4, y: 0.92), Point(x: -0.4, y: -0.92), Point(x: -0.4, y: 0.92),
    ]

    let items: [Item]
    /// What the labels stay within.
    let bounds: Box
    /// Lines better not covered.
    let lines: [Segment]
    let lineHeight: Double

    /// A label for each item, in their order; nil where there is no room.
    func labels() -> [Label?] {
        func sorted(_ key: (Item) -> Double) -> [Int] {
            items.indices.sorted { (key(items[$0]), $0) < (key(items[$1]), $1) }
        }
        let choices = items.indices.map(choices)
        let orders = [sorted { $0.point.x }, sorted { -$0.point.x }, sorted { $0.point.y }, sorted { -$0.point.y }]
        let layouts = orders.flatMap { order in
            // Then again, the items that got no name first.
            var layouts = [Layout(choices, order: order)]
            while let last = layouts.last, !last.unnamed.isEmpty, layouts.count <= Self.corrections {
                let order = last.unnamed + last.order.filter { !last.unnamed.contains($0) }
                layouts.append(Layout(choices, order: order))
            }
            return layouts
        }
        return layouts.min { ($0.missing, $0.cost) < ($1.missing, $1.cost) }?.labels ?? []
    }
}

extension LabelPlacement {
    /// A label that covers no point.
    private struct Choice {
        let label: Label
        let cost: Double
    }

    /// What an item's label can be, the best first.
    private struct Choices {
        let names: [Choice]
        let numbers: [Choice]
    }

    /// Labels placed in one order, each at the best place that is left then.
    private struct Layout {
        let order: [Int]
        var labels: [Label?]
        var unnamed: [Int] = []
        /// Items without a name, and those without a number twice.
        var missing = 0
        var cost = 0.0

        init(_ choices: [Choices], order: [Int]) {
            self.order = order
            labels = Array(repeating: nil, count: choices.count)
            for index in order where !place(index, choices[index].names) { unnamed.append(index) }
            missing = unnamed.count
            for index in unnamed where !place(index, choices[index].numbers) { missing += 1 }
        }

        private mutating func place(_ index: Int, _ choices: [Choice]) -> Bool {
            let placed = labels.compactMap { $0 }
            guard let choice = choices.first(where: { choice in !placed.contains { $0.collides(with: choice.label) } })
            else { return false }
            labels[index] = choice.label
            cost += choice.cost
            return true
        }
    }

    private func choices(_ index: Int) -> Choices {
        func choices(width: Double, isNumber: Bool) -> [Choice] {
            let all = Self.distances.indices.flatMap { nearness in
                Self.directions.indices.compactMap { turn in
                    choice(index, width: width, isNumber: isNumber, nearness: nearness, turn: turn)
                }
            }
            let sorted = all.enumerated().sorted { ($0.element.cost, $0.offset) < ($1.element.cost, $1.offset) }
            return sorted.map(\.element)
        }
        return Choices(
            names: choices(width: items[index].nameWidth, isNumber: false),
            numbers: choices(width: items[index].numberWidth, isNumber: true)
        )
    }

    /// The label at one place, nil if it would cover a point or leave the bounds.
    private func choice(_ index: Int, width: Double, isNumber: Bool, nearness: Int, turn: Int) -> Choice? {
        let (point, distance, direction) = (items[index].point, Self.distances[nearness], Self.directions[turn])
        // The side of the box that faces the point is at the distance.
        func start(_ place: Double, _ direction: Double, _ size: Double) -> Double {
            place + distance * direction + (direction == 0 ? -size / 2 : direction < 0 ? -size : 0)
        }
        let box = Box(
            x: start(point.x, direction.x, width),
            y: start(point.y, direction.y, lineHeight),
            width: width,
            height: lineHeight
        )
        guard bounds.contains(box) else { return nil }
        let leader = nearness == 0 ? nil : Segment(from: point, to: box.nearest(to: point))
        for (other, item) in items.enumerated() {
            let room = Box(around: item.point, radius: Self.pointRadius)
            if room.overlaps(box) { return nil }
            // Points that touch this one can't be kept free of its line.
            let isApart = other != index && !room.contains(point)
            if isApart && leader?.crosses(room) == true { return nil }
        }
        let crossings = lines.count { $0.crosses(box) }
        let cost = distance + Double(turn) + Self.crossingCost * Double(crossings)
        return Choice(label: Label(box: box, leader: leader, isNumber: isNumber), cost: cost)
    }
}

extension LabelPlacement.Label {
    fileprivate func collides(with other: Self) -> Bool {
        box.overlaps(other.box) || leader?.crosses(other.box) == true || other.leader?.crosses(box) == true
    }
}
