"""Which tokens streaming, snapkv, h2o and keydiff keep (selection.md)."""

from fractions import Fraction
from math import factorial, sqrt

from .writer import ALL, LISTED, Cache, Layer

NAMES = ("streaming", "snapkv", "h2o", "keydiff")


def selected(cache: Cache, name: str, parameters: dict) -> Cache:
    """The cache of what a stage keeps, the layers' sinks among it."""
    return cache._replace(layers=[_selected(cache, layer, name, parameters) for layer in cache.layers])


def _selected(cache: Cache, layer: Layer, name: str, parameters: dict) -> Layer:
    if not layer.keys:
        return layer
    n, first = layer.rows, layer.sinks
    if name == "streaming":
        sinks, recent = max(int(parameters.get("sinks", 4)), first), int(parameters.get("recent", 1024))
        k = min(sinks + recent, n)
        kept = [[*range(sinks), *range(n - recent, n)]] * len(layer.keys)
    else:
        newest = int(parameters.get(*{"snapkv": ("observe", 32), "h2o": ("recent", 1), "keydiff": ("recent", 32)}[name]))
        wish = int(parameters["tokens"]) if "tokens" in parameters else int(n * Fraction(parameters["keep"]))
        k = min(max(wish, first + newest, 1), n)
        if name == "h2o" and "recent" not in parameters:
            newest = min((k + 1) // 2, k - first)
        older, kept = n - min(newest, n), []
        for head in range(len(layer.keys) if k < n else 0):
            keys = [[cache.type.value(x) for x in row] for row in layer.keys[head]]
            if name == "keydiff":
                scores = [-similarity for similarity in _similarities(keys)[:older]]
            else:
                observe = newest if name == "snapkv" else cache.length
                scores = _votes(cache, layer, head, keys, observe)[:older]
            if name != "h2o":
                scores = _pooled(scores, int(parameters.get("kernel", 7)))
            highest = sorted(range(first, older), key=lambda row: (-scores[row], row))[: k - first - newest]
            kept.append([*range(first), *sorted(highest), *range(older, n)])
    if k == n:
        return layer
    return layer._replace(
        keys=[[rows[row] for row in places] for rows, places in zip(layer.keys, kept)],
        values=[[rows[row] for row in places] for rows, places in zip(layer.values, kept)],
        held=LISTED,
        listed=[[_token(cache, layer, head, row) for row in places] for head, places in enumerate(kept)],
    )


def _token(cache: Cache, layer: Layer, head: int, row: int) -> int:
    return layer.listed[head][row] if layer.held == LISTED else cache.length - layer.rows + row


def _votes(cache, layer, head, keys, observe) -> list:
    votes = [0.0] * layer.rows
    group = len(layer.queries) // len(layer.keys)
    for rows in layer.queries[head * group : (head + 1) * group]:
        rows = rows[-observe:]
        for j, row in enumerate(rows):
            query = [cache.type.value(x) for x in row]
            own = cache.length - len(rows) + j
            seen = [key for place, key in enumerate(keys) if _token(cache, layer, head, place) <= own]
            scores = [_product(query, key) / sqrt(layer.key_dimension) for key in seen]
            highest = max(scores, default=0.0)
            exponentials = [_exponential(score - highest) for score in scores]
            total = _sum(exponentials)
            for place, x in enumerate(exponentials):
                votes[place] += x / total
    return votes


def _pooled(votes: list, kernel: int) -> list:
    reach = kernel // 2
    return [_sum(votes[max(row - reach, 0) : row + reach + 1]) for row in range(len(votes))]


def _similarities(keys: list) -> list:
    lengths = [sqrt(_product(key, key)) or float("inf") for key in keys]
    total = [_sum([key[c] / length for key, length in zip(keys, lengths)]) for c in range(len(keys[0]))]
    return [_product(key, total) / length for key, length in zip(keys, lengths)]


def _sum(numbers: list) -> float:
    """In order, each sum rounded; the built-in `sum` makes up for what rounding loses."""
    total = 0.0
    for x in numbers:
        total += x
    return total


def _product(left: list, right: list) -> float:
    return _sum([x * y for x, y in zip(left, right)])


def _exponential(x: float) -> float:
    if x < -700:
        return 0.0
    power = round(x * float.fromhex("0x1.71547652b82fep0"))
    rest = (x - power * float.fromhex("0x1.62e42feep-1")) - power * float.fromhex("0x1.a39ef35793c76p-33")
    total = 0.0
    for n in range(13, -1, -1):
        total = total * rest + 1 / factorial(n)
    return total * 2.0**power
