"""Which channels think keeps, and of keys in how many bits (think.md, Decision and Soft pruning)."""

from itertools import accumulate

from .blocks import centered, quantize, restore, scale_and_minimum, uncentered
from .elements import f32
from .plan import Run, compact


def _sum(numbers: list) -> float:
    """Runs of 32 rows in f32, in order; over runs in f64."""
    total = 0.0
    for start in range(0, len(numbers), 32):
        run = 0.0
        for x in numbers[start : start + 32]:
            run = f32(run + x)
        total += run
    return total


def _square_sums(rows: list) -> list:
    return [_sum([f32(x * x) for x in column]) for column in zip(*rows)]


def channel_means(rows: list, d: int) -> list:
    """Mean of each of d channels as f32, summed like the squares; 0 without rows."""
    return [f32(_sum(column) / len(rows)) for column in zip(*rows)] if rows else [0.0] * d


def query_profile(heads: list, observe: int) -> list:
    """q2 of one KV head from the queries [head of the group][row][channel]."""
    windows = [rows[-observe:] for rows in heads]
    totals = [sum(column) for column in zip(*map(_square_sums, windows))]
    count = sum(map(len, windows))
    return [total / count for total in totals]


def kept_channels(rows: list, ratio, weights) -> list:
    """The channels of keys or values kept, ascending; weights are q2 of keys, None with
    `score=keys`, and o2 of values, None where no model is at hand."""
    scores = [total / len(rows) for total in _square_sums(rows)]
    if weights is not None:
        scores = [weight * square for weight, square in zip(weights, scores)]
    # Of equal scores the lower channel is kept, so the higher one goes first.
    order = sorted(range(len(scores)), key=lambda channel: (scores[channel], -channel))
    return sorted(order[len(scores) * ratio.numerator // ratio.denominator :])


STEPS = {1: 16, 2: 8, 3: 16, 4: 4, 5: 16, 8: 4}  # channels whose codes fill whole lines, by width


def soft_runs(heads: list, weights: list, widths: list, sinks: int, g: int, bits) -> list:
    """The runs of each head of a layer; heads are keys [row][channel], weights [head][channel]."""
    d = len(heads[0][0])
    orders, choices = [], []
    for rows, q2 in zip(heads, weights):
        losses = {width: [e * q for e, q in zip(_losses(rows, width, sinks, g), q2)] for width in {0, *widths}}
        order = sorted(range(d), key=lambda channel: (-losses[0][channel], channel))
        orders.append(order)
        choices.append(_choices({width: [losses[width][c] for c in order] for width in widths}, d, g))
    available = len(heads) * d * g * bits.numerator // (8 * 64 * bits.denominator)
    return [
        tuple(
            Run(compact(width, 1), tuple(sorted(c for c, chosen in zip(order, taken) if chosen == width)))
            for width in sorted({*taken}, reverse=True)
        )
        for order, taken in zip(orders, _best(choices, available))
    ]


def value_width(dimension: int, bits, g: int) -> int:
    """The widest width whose values keep to the bits, where no sensitivities are known."""
    available = dimension * g * bits.numerator // (8 * bits.denominator)
    return max(b for b in range(1, 6) if g * (2 * b * -(-dimension // 16) + 2 * -(-dimension // 64)) <= available)


def _losses(rows: list, width: int, sinks: int, g: int) -> list:
    """E[c][width] of each channel c."""
    d = len(rows[0])
    coding, means = compact(width, 1), channel_means(rows[sinks:], d)
    start = -(-sinks // g) * g
    losses = [0.0] * d
    for first in range(start, len(rows) - g + 1, g):
        for channel, mean in enumerate(means):
            column = [row[channel] for row in rows[first : first + g]]
            restored = [mean] * g
            if width:
                codes, *stored = quantize([centered(x, mean) for x in column], coding)
                stored = scale_and_minimum(*stored, coding)
                restored = [uncentered(restore(code, *stored), mean) for code in codes]
            for x, y in zip(column, restored):
                error = f32(x - y)
                losses[channel] += error * error
    return losses


def _units(count: int, width: int, g: int) -> int:
    """What a step of so many channels takes, in units of 8 bytes."""
    run = Run(compact(width, 1), (0,) * count)
    return -(-(run.code_bytes(g) + 2 * run.scale_bytes()) // 8)


def _choices(losses: dict, d: int, g: int) -> dict:
    """By the lines that it takes: the least loss of a head, and the widths kept of it, in the
    order of the channels; `losses` are in this order, by width."""
    least = {(0, 0): (0.0, ())}  # by number of channels and units
    for width in sorted(losses.keys() - {0}, reverse=True):
        sums = list(accumulate(losses[width], initial=0.0))
        for start in range(d):
            end = min(start + STEPS[width], d)
            for (count, units), (loss, taken) in list(least.items()):
                if count == start:
                    key = end, units + _units(end - start, width, g)
                    _keep_least(least, key, loss + (sums[end] - sums[start]), taken + (width,) * (end - start))
    pruned = [0.0]  # what is lost with the last channels, by their number
    for loss in reversed(losses.get(0, [])):
        pruned.append(pruned[-1] + loss)
    by_units, choices = {}, {}
    for (count, units), (loss, taken) in least.items():
        if count and d - count < len(pruned):
            _keep_least(by_units, units, loss + pruned[d - count], taken)
    for units, (loss, taken) in sorted(by_units.items()):
        _keep_least(choices, -(-units // 8), loss, taken)
    return choices


def _keep_least(table: dict, key, loss: float, choice) -> None:
    if key not in table or loss < table[key][0]:
        table[key] = loss, choice


def _best(choices: list, available: int) -> list:
    """What each head of a layer takes of its choices."""
    totals = {0: (0.0, [])}
    for head in choices:
        sums = {}
        for lines, (loss, taken) in totals.items():
            for more, (added, widths) in head.items():
                if lines + more <= available:
                    _keep_least(sums, lines + more, loss + added, taken + [widths])
        totals = sums
    if not totals:
        raise ValueError("the bits are too few")
    return min((loss, lines, taken) for lines, (loss, taken) in totals.items())[2]
