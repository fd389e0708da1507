"""Coding a cache as an archive by a step (archive.md, Writing)."""

import math
import re

from . import prune, selection
from .archive import ArchivePlan, Unit, coded_places, symbols_table
from .archive_writer import Coded, encode_archive
from .elements import f16_bits, f16_value, f32
from .geometry import ALL, Header
from .symbols import ESCAPE, LIMIT, PLACES, TABLES, rotary_angle
from .writer import Plan, geometry_of

COSTS = [
    {s: round(-256 * math.log2(f / PLACES)) + 4096 * (s == ESCAPE) for s, f in table.frequencies.items() if f}
    for table in TABLES
]


def encode_by_step(cache, recipe: str, profile=None):
    """Header and sections. The cache's `recipe.rationale` is its own."""
    parameters = dict(part.split("=") for part in re.fullmatch(r"archive\((.+)\)", recipe).group(1).split(","))
    step, recent = f32(float(parameters["step"])), int(parameters.get("recent", 128))
    sinks, observe = int(parameters.get("sinks", 4)), int(parameters.get("observe", 128))
    residual = -(-recent // 32) * 32
    layers = [layer._replace(sinks=sinks if layer.keys and layer.held == ALL else 0) for layer in cache.layers]
    cache = cache._replace(layers=layers)
    geometry = geometry_of(cache, Header(0, 0, 0, 0, 32, residual, cache.length))
    shifts = attention_shifts(cache, observe, sinks, cache.length - residual)
    query_profile = [_query_profile(cache, layer) for layer in cache.layers]
    if profile:
        frequencies = [list(numbers) for numbers in profile.frequencies]
        units = [
            Unit(*numbers, 1, len(basis.scales), (), ()) for numbers, basis in sorted(profile.bases.items())
        ]
        matrices = [_coding_matrix(profile.bases[unit[:5]]) for unit in units]
    else:
        frequencies = [[] for _ in cache.layers]
        units, matrices = _channel_units(cache, query_profile), None
    positions = cache.positions or range(cache.length)
    tables = [
        [[rotary_angle(positions[t], frequency) for frequency in numbers] for t in range(cache.length)]
        for numbers in frequencies
    ]
    rows, done = [], []
    for unit in units:
        places = coded_places(geometry[unit.layer], cache.length)
        own = {place: _vector(cache, geometry, unit, tables, place) for place in places}
        means = []
        for c in range(unit.channels(geometry)):
            total = 0.0
            for place in places:
                total += own[place][c]
            means.append(f16_value(f16_bits(f32(total / len(places)))))
        done.append(unit._replace(means=tuple(means)))
        rows.append({place: [f32(x - mean) for x, mean in zip(row, means)] for place, row in own.items()})

    components = [
        {
            place: [_dot(matrix, row) for matrix in matrices[number]]
            if matrices
            else [f32(x * weight) for x, weight in zip(row, done[number].weights)]
            for place, row in rows[number].items()
        }
        for number in range(len(units))
    ]
    shifts = _possible_shifts(shifts, components, step)
    taken = [0] * len(units)

    def code(number: int, counts: list) -> Coded:
        unit, own = done[number], components[number]
        by_shift = [[place for place in sorted(own) if shifts[place] == shift] for shift in range(4)]
        assert [len(some) for some in by_shift] == counts and not taken[number], "one chunk"
        taken[number] = 1
        numbers = [[] for _ in range(unit.components)]
        for shift, places in enumerate(by_shift):
            inverse = f32(2**shift / step)
            for place in places:
                for column, y in zip(numbers, own[place]):
                    column.append(round(f32(y * inverse)))
        bytes_ = [best_table(column, counts) for column in numbers]
        return Coded(bytes_, [column for byte, column in zip(bytes_, numbers) if byte])

    profile_numbers = [] if profile else [x for layer in query_profile for head in layer for x in head]
    settings = Plan(None, 32, residual, [(13, recipe)], [f32(x) for x in profile_numbers])
    digest = profile.digest if profile else bytes(32)
    return encode_archive(cache, settings, ArchivePlan(step, digest, frequencies, done), shifts, code)


def _possible_shifts(shifts: list, components: list, step: float) -> list:
    """Shifts by which no number is too large."""
    scaled = (
        abs(f32(y * f32(2 ** shifts[place] / step)))
        for rows in components
        for place, row in rows.items()
        for y in row
    )
    if max(scaled, default=0) < 32767.5:
        return shifts
    largest = [max((abs(y) for rows in components for y in rows.get(place, ())), default=0) for place in range(len(shifts))]
    limit = f32(32767 * step)
    return [max(s for s in range(shift + 1) if s == 0 or x * 2**s <= limit) for shift, x in zip(shifts, largest)]


def _dot(left: list, right: list) -> float:
    total = 0.0
    for a, b in zip(left, right):
        total = f32(total + f32(a * b))
    return total


def _values(cache, rows: list) -> list:
    return [[cache.type.value(x) for x in row] for row in rows]


def _query_profile(cache, layer) -> list:
    group = len(layer.queries) // len(layer.keys) if layer.keys else 0
    return [
        prune.query_profile([_values(cache, rows) for rows in layer.queries[head * group : (head + 1) * group]], 32)
        for head in range(len(layer.keys))
    ]


def _channel_units(cache, query_profile: list) -> list:
    """Units of each KV head's keys, and values, with weights by queries and variances."""
    costs = []
    for layer, profile in zip(cache.layers, query_profile):
        keys = [[x / layer.key_dimension for x in head] for head in profile]
        variance = 0.0
        for head in layer.values:
            rows = _values(cache, head)
            of_head = 0.0
            for square, column in zip(prune._square_sums(rows), zip(*rows)):
                of_head += square / len(rows) - (prune._sum(column) / len(rows)) ** 2
            variance += of_head
        variance /= max(len(layer.values) * layer.value_dimension, 1)
        value = 1 / variance if variance > 0 else 1.0
        costs.append((keys, [[value] * layer.value_dimension for _ in layer.values]))
    everything = [x for parts in costs for heads in parts for head in heads for x in head]
    mean = selection._sum(everything) / len(everything)
    units = []
    for number, parts in enumerate(costs):
        for part, heads in enumerate(parts):
            for head, numbers in enumerate(heads):
                weights = tuple(f32(math.sqrt(max(x / mean, 2.0**-20))) for x in numbers)
                if weights:
                    units.append(Unit(number, 1, head, 1, part + 1, 0, len(weights), weights, ()))
    return units


def _vector(cache, geometry: list, unit: Unit, tables: list, place: int) -> list:
    row = []
    for run in unit.runs(geometry):
        layer = cache.layers[run.layer]
        rows = (layer.keys, layer.values)[run.part][run.head]
        numbers = [cache.type.value(x) for x in rows[place - cache.length + len(rows)]]
        if run.part == 0:
            angles = tables[run.layer][place]
            for i, (cosine, sine) in enumerate(angles):
                a, b = numbers[i], numbers[i + len(angles)]
                numbers[i] = f32(f32(a * cosine) + f32(b * sine))
                numbers[i + len(angles)] = f32(f32(b * cosine) - f32(a * sine))
        row += numbers
    return row


def _coding_matrix(basis) -> list:
    """The inverse of what restores, by two of Newton's steps: `b[k][c]`."""
    v = [[f32(entry * scale) for entry in row] for row, scale in zip(basis.matrix, basis.scales)]
    x = v
    for _ in range(2):
        columns = list(zip(*x))
        product = [[_dot(row, other) for other in v] for row in x]
        correction = [[_dot(row, column) for column in columns] for row in product]
        x = [[f32(2 * a - b) for a, b in zip(row, other)] for row, other in zip(x, correction)]
    return [[f32(entry * weight) for entry, weight in zip(row, basis.weights)] for row in x]


def attention_shifts(cache, observe: int, sinks: int, end: int) -> list:
    sums = [0.0] * cache.length
    for layer in cache.layers:
        for head in range(len(layer.keys)):
            keys = _values(cache, layer.keys[head])
            for row, vote in enumerate(selection._votes(cache, layer, head, keys, observe)):
                sums[cache.length - layer.rows + row] += vote
    body = sorted(sums[min(sinks, max(end, 0)) : max(end, 0)])
    median = body[(len(body) - 1) // 2] if body else 0
    return [sum(p >= multiple * median for multiple in (4, 16, 64)) if median > 0 else 0 for p in sums]


def best_table(numbers: list, counts: list) -> int:
    """The table byte of a component, 0 if all is 0."""
    if not any(numbers):
        return 0
    variance, start = 0.0, 0
    for shift, count in enumerate(counts):
        variance += sum(x * x for x in numbers[start : start + count]) / 4**shift
        start += count
    variance /= len(numbers)
    middle = next((q for q in range(64) if variance < 2 ** (q / 2 - 9.75)), 63)
    choices = []
    for q in range(max(middle - 4, 0), min(middle + 3, 63) + 1):
        for family in range(2):
            byte = 1 + 64 * family + q
            choices.append((cost(numbers, counts, byte), q, family, byte))
    return min(choices)[3]


def cost(numbers: list, counts: list, byte: int) -> int:
    total, start = 0, 0
    for shift, count in enumerate(counts):
        table, low_bits = symbols_table(byte, shift)
        costs, half = COSTS[table], 1 << low_bits >> 1
        for x in numbers[start : start + count]:
            symbol = (x + half) >> low_bits
            total += 256 * low_bits + costs.get(symbol if abs(symbol) <= LIMIT else ESCAPE, costs[ESCAPE])
        start += count
    return total
