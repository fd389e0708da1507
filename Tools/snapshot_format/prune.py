"""Which key channels think keeps (think.md, Decision)."""

from .elements import f32


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


def key_means(rows: list) -> list:
    """Mean of each channel, for `restore=mean`: summed like the squares."""
    return [_sum(column) / len(rows) for column in zip(*rows)]


def query_profile(heads: list, observe: int) -> list:
    """q2 of one KV head from the queries [head of the group][row][channel]."""
    windows = [rows[-observe:] for rows in heads]
    totals = [sum(column) for column in zip(*map(_square_sums, windows))]
    count = sum(map(len, windows))
    return [total / count for total in totals]


def kept_channels(rows: list, ratio, q2) -> list:
    """The channels kept, ascending; q2 is None with `score=keys`."""
    scores = [total / len(rows) for total in _square_sums(rows)]
    if q2 is not None:
        scores = [q * k for q, k in zip(q2, scores)]
    # Of equal scores the lower channel is kept, so the higher one goes first.
    order = sorted(range(len(scores)), key=lambda channel: (scores[channel], -channel))
    return sorted(order[len(scores) * ratio.numerator // ratio.denominator :])
