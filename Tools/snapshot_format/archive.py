"""Archives: their plan, their records, and restoring (archive.md)."""

import hashlib
import json
import math
import struct
from typing import NamedTuple

from .blocks import LARGEST, rotated
from .elements import F16, f32
from .geometry import LISTED
from .symbols import ESCAPE, LANES, CodingError, Decoder, rotary_angle, rotate

CHUNK_PLACES = 1024
SHIFTS = 4
GROUP = 32
SAME_FREQUENCIES = 65535
UNIT_BYTES = 18  # at the least
KEYS, VALUES = 1, 2


class Run(NamedTuple):
    """The channels of one layer, part and KV head in a unit's row."""

    layer: int
    part: int  # 0 keys, 1 values
    head: int
    first: int
    dimension: int


class Unit(NamedTuple):
    """A unit, as ARCHIVE PLAN has it."""

    layer: int
    layers: int
    head: int
    heads: int
    parts: int
    basis: int
    components: int
    weights: tuple
    means: tuple

    @property
    def layer_range(self) -> range:
        return range(self.layer, self.layer + self.layers)

    def runs(self, geometry: list) -> list:
        runs, first = [], 0
        for layer in self.layer_range:
            dimensions = geometry[layer].keyDimension, geometry[layer].valueDimension
            for part, dimension in enumerate(dimensions):
                if not self.parts & 1 << part or not dimension:
                    continue
                for head in range(self.head, self.head + self.heads):
                    runs.append(Run(layer, part, head, first, dimension))
                    first += dimension
        return runs

    def channels(self, geometry: list) -> int:
        return sum(run.dimension for run in self.runs(geometry))


class ArchivePlan(NamedTuple):
    step: float
    digest: bytes
    frequencies: list  # of each layer
    units: list

    @property
    def needs_profile(self) -> bool:
        return any(unit.basis for unit in self.units)


def coded_places(layer, tokens: int) -> range:
    """The places of a layer's rows that lie in chunks."""
    first = max(layer.first(tokens), layer.sink_rows)
    return range(first, max(layer.blockTokens, first))


def chunk_places(geometry: list) -> list:
    """The places of each chunk."""
    end = max(layer.blockTokens for layer in geometry)
    return [range(start, min(start + CHUNK_PLACES, end)) for start in range(0, end, CHUNK_PLACES)]


def window_row_bytes(dimension: int) -> int:
    return dimension + 2 * -(-dimension // GROUP)


def read_plan(content, geometry: list, tokens: int) -> ArchivePlan:
    step = content.field("f")
    if not 2.0**-40 <= step <= 2.0**40:
        content.fail(0, f"step {step}")
    count_at = content.at
    count = content.field("I")
    digest_at = content.at
    digest = content.take(32)
    frequencies = []
    for number, layer in enumerate(geometry):
        at = content.at
        pairs = content.field("H")
        if pairs == SAME_FREQUENCIES and number:
            frequencies.append(frequencies[-1])
        else:
            if 2 * pairs > layer.keyDimension:
                content.fail(at, f"{pairs} pairs of layer {number}")
            frequencies.append([])
            for _ in range(pairs):
                frequencies[-1].append(content.field("f"))
                if not abs(frequencies[-1][-1]) <= 4:
                    content.fail(content.at - 4, f"frequency {frequencies[-1][-1]}")
        if 2 * len(frequencies[-1]) > layer.keyDimension:
            content.fail(at, f"{len(frequencies[-1])} pairs of layer {number}")
    if count > (len(content.data) - content.at) // UNIT_BYTES:
        content.fail(count_at, f"{count} units")
    units = [_read_unit(content, geometry) for _ in range(count)]
    content.finish()
    plan = ArchivePlan(step, digest, frequencies, units)
    if not plan.needs_profile and any(digest):
        content.fail(digest_at, "a digest that no unit needs")
    _check_coverage(content, plan, geometry)
    if any(layer.held == LISTED for layer in geometry):
        content.fail(0, "a layer lists its tokens")
    for unit in units:
        if len({coded_places(geometry[layer], tokens) for layer in unit.layer_range}) > 1:
            content.fail(0, "layers of a unit have other places")
    return plan


def _read_unit(content, geometry: list) -> Unit:
    start = content.at
    layer, layers, head, heads = (content.field("H") for _ in range(4))
    parts = content.field("B", (1, 2, 3), "parts")
    basis = content.field("B", (0, 1), "basis")
    content.field("H", (0,), "reserved field")
    if not layers or not heads or layer + layers > len(geometry):
        content.fail(start, f"{layers} layers from {layer} on, {heads} KV heads")
    if any(head + heads > geometry[index].kvHeads for index in range(layer, layer + layers)):
        content.fail(start, f"{heads} KV heads from {head} on")
    unit = Unit(layer, layers, head, heads, parts, basis, 0, (), ())
    channels = unit.channels(geometry)
    if not 1 <= channels <= 16384:
        content.fail(start, f"{channels} channels")
    components = content.field("I", range(1, channels + 1) if basis else (channels,), "components")
    weights, means = [], []
    for _ in range(0 if basis else channels):
        weights.append(content.field("f"))
        if not 2.0**-60 <= weights[-1] <= 2.0**60:
            content.fail(content.at - 4, f"weight {weights[-1]}")
    for _ in range(channels):
        means.append(content.field("e"))
        if not math.isfinite(means[-1]):
            content.fail(content.at - 2, f"mean {means[-1]}")
    return unit._replace(components=components, weights=tuple(weights), means=tuple(means))


def _check_coverage(content, plan: ArchivePlan, geometry: list) -> None:
    seen = set()
    for unit in plan.units:
        for run in unit.runs(geometry):
            if run[:3] in seen:
                content.fail(0, f"two units have {run}")
            seen.add(run[:3])
    for number, layer in enumerate(geometry):
        for part, dimension in enumerate((layer.keyDimension, layer.valueDimension)):
            for head in range(layer.kvHeads if dimension else 0):
                if (number, part, head) not in seen:
                    content.fail(0, f"no unit has part {part} of layer {number}, KV head {head}")


def read_shifts(data: bytes, places: range) -> dict:
    """The shift of each place."""
    return {place: data[i // 4] >> i % 4 * 2 & 3 for i, place in enumerate(places)}


def rows_in_order(shifts: dict, places) -> list:
    """For each shift the places, in the order of coding."""
    return [[place for place in places if shifts[place] == shift] for shift in range(SHIFTS)]


def symbols_table(byte: int, shift: int):
    """The table of a component's rows of a shift, and the number of low bits."""
    family, q = divmod(byte - 1, 64)
    q = min(q + 4 * shift, 63)
    return (28 * family + q, 0) if q < 28 else (28 * family + 24 + q % 4, (q - 24) // 4)


class Bits:
    """Fields of bits, from the lowest of the first byte on."""

    def __init__(self, data: bytes):
        self.value, self.size, self.at = int.from_bytes(data, "little"), 8 * len(data), 0

    def take(self, count: int) -> int:
        field = self.value >> self.at & (1 << count) - 1
        self.at += count
        return field

    @property
    def is_used_up(self) -> bool:
        return self.size - 7 <= self.at <= self.size and not self.value >> self.at if self.size else self.at == 0


def decode_record(data: bytes, components: int, counts: list) -> list:
    """The numbers of each component, in order of coding; none for one that is 0. `counts` are rows by shift."""
    if not any(counts):
        return [None] * components
    head = -(-components // 4) * 4
    if len(data) < head or any(data[components:head]):
        raise CodingError("tables are cut off or not padded with zeros")
    tables = data[:components]
    if max(tables) > 128:
        raise CodingError(f"table byte {max(tables)}")
    if not any(tables):
        if len(data) > head:
            raise CodingError("bytes after tables that are all 0")
        return [None] * components
    start = head + 12 + 4 * LANES
    if len(data) < start:
        raise CodingError("the head is cut off")
    escape_count, word_count, low_count = struct.unpack_from("<3I", data, head)
    if len(data) != start + 2 * (escape_count + word_count) + low_count:
        raise CodingError("the record has another length than its parts")
    words_at = start + 2 * escape_count
    low_at = words_at + 2 * word_count
    escapes = iter(struct.unpack(f"<{escape_count}h", data[start:words_at]))
    decoder, bits = Decoder(data[head + 12 : start], data[words_at:low_at]), Bits(data[low_at:])
    result = []
    for table in tables:
        result.append([] if table else None)
        for shift, count in enumerate(counts if table else []):
            number, low_bits = symbols_table(table, shift)
            half = 1 << low_bits - 1 if low_bits else 0
            for symbol in decoder.call(number, count):
                low = bits.take(low_bits)
                if symbol != ESCAPE:
                    result[-1].append((symbol << low_bits) + low - half)
                    continue
                escape = next(escapes, None)
                if escape is None or low:
                    raise CodingError("an escape is missing, or has low bits")
                result[-1].append(escape)
    decoder.finish()
    if next(escapes, None) is not None or not bits.is_used_up:
        raise CodingError("escapes or low bits are left, or are too few")
    return result


class ProfileError(Exception):
    """A profile that is not the one that an archive needs."""


class Basis(NamedTuple):
    """A unit's basis, of a profile."""

    matrix: list  # [component][channel]
    scales: tuple
    weights: tuple


def read_safetensors(data: bytes) -> dict:
    """Type, shape and bytes of each tensor."""
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    result = {}
    for name, tensor in header.items():
        start, end = (8 + length + offset for offset in tensor["data_offsets"])
        result[name] = tensor["dtype"], tensor["shape"], data[start:end]
    return result


class Profile:
    """The bases of a model's profile, by their units' numbers (profile.md, Bases)."""

    def __init__(self, data: bytes):
        tensors = read_safetensors(data)
        self.bases = {}
        by_layer = {}
        for index in range(len(tensors)):
            start = f"archive.{index}."
            if start + "channels" not in tensors:
                break
            numbers = struct.unpack("<5i", tensors[start + "channels"][2])
            matrix, scale, weight = (tensors[start + name] for name in ("basis", "scale", "weight"))
            components, channels = matrix[1]
            entries = struct.unpack(f"<{components * channels}b", matrix[2])
            self.bases[numbers] = Basis(
                [entries[k * channels : (k + 1) * channels] for k in range(components)],
                struct.unpack(f"<{components}f", scale[2]),
                struct.unpack(f"<{channels}f", weight[2]),
            )
            data = struct.pack("<7I", *numbers, components, channels) + matrix[2] + scale[2] + weight[2]
            by_layer.setdefault(numbers[0], []).append(data)
        layers = {int(name.split(".")[1]) for name in tensors if name.startswith("layers.")} | set(by_layer)
        digest = hashlib.sha256()
        for layer in sorted(layers):
            digest.update(tensors.get(f"layers.{layer}.rotary_frequencies", (None, None, b""))[2])
            for data in by_layer.get(layer, []):
                digest.update(data)
        self.digest = digest.digest()
        self.frequencies = []
        for layer in range(max(layers) + 1):
            data = tensors.get(f"layers.{layer}.rotary_frequencies", (None, None, b""))[2]
            self.frequencies.append(struct.unpack(f"<{len(data) // 4}f", data))


def restoring_matrices(plan: ArchivePlan, profile) -> list:
    """For each unit `a[k][c]`, or what the channels are multiplied by."""
    if plan.needs_profile and (profile is None or profile.digest != plan.digest):
        raise ProfileError("the archive needs the profile that it was made by")
    result = []
    for unit in plan.units:
        if not unit.basis:
            result.append([f32(1 / weight) for weight in unit.weights])
            continue
        basis = profile.bases.get(unit[:5])
        if basis is None or (len(basis.scales), len(basis.weights)) != (unit.components, len(unit.means)):
            raise ProfileError("the profile has no basis of a unit")
        result.append(
            [
                [f32(f32(entry * scale) / weight) for entry, weight in zip(row, basis.weights)]
                for row, scale in zip(basis.matrix, basis.scales)
            ]
        )
    return result


def restore_row(unit: Unit, matrix: list, numbers: list, step: float) -> list:
    """A unit's channels from its numbers (archive.md, Restoring)."""
    row = []
    for c, mean in enumerate(unit.means):
        if unit.basis:
            total = 0.0
            for k, number in enumerate(numbers):
                total = f32(total + f32(number * matrix[k][c]))
        else:
            total = f32(numbers[c] * matrix[c])
        row.append(f32(f32(total * step) + mean))
    return row


def restored_rows(snapshot, profile):
    """For each layer and part `{(head, place): bit patterns}` of all coded places."""
    plan, geometry, tokens = snapshot.archive, snapshot.geometry, snapshot.header.tokens
    matrices = restoring_matrices(plan, profile)
    positions = snapshot.positions()
    rows = [({}, {}) for _ in geometry]
    records = iter(snapshot.archive_records())
    angles = {}

    def angles_of(layer: int, place: int) -> list:
        frequencies = plan.frequencies[layer]
        key = tuple(frequencies), place
        if key not in angles:
            angles[key] = [rotary_angle(positions[place], frequency) for frequency in frequencies]
        return angles[key]

    for places in chunk_places(geometry):
        shifts = read_shifts(next(records)[1], places)
        for unit, matrix in zip(plan.units, matrices):
            own = coded_places(geometry[unit.layer], tokens)
            by_shift = rows_in_order(shifts, [place for place in places if place in own])
            numbers = decode_record(next(records)[1], unit.components, [len(some) for some in by_shift])
            for index, place in enumerate(place for some in by_shift for place in some):
                step = plan.step / 2 ** shifts[place]
                row = restore_row(unit, matrix, [column[index] if column else 0 for column in numbers], step)
                for run in unit.runs(geometry):
                    if run.part == 0:
                        rotate(row, run.first, angles_of(run.layer, place))
                    channels = row[run.first : run.first + run.dimension]
                    rows[run.layer][run.part][run.head, place] = rounded(channels, snapshot.type)
    return rows


def rounded(numbers: list, element_type) -> list:
    """Bit patterns of restored numbers."""
    # In this order what is not a number gives 65504, too; -0 + 0 is 0.
    clamped = [x if x < LARGEST else LARGEST for x in numbers]
    clamped = [x if x > -LARGEST else -LARGEST for x in clamped]
    return [element_type.bits(x + 0.0) for x in clamped]


def window_rows(data: bytes, geometry: list, tokens: int, element_type) -> list:
    """For each layer and part, bit patterns [head][row] of the window's rows."""
    at, result = 0, []
    for layer in geometry:
        n = len(layer.window(tokens))
        parts = []
        for dimension in (layer.keyDimension, layer.valueDimension):
            groups = -(-dimension // GROUP)
            heads = []
            for _ in range(layer.kvHeads):
                scales = struct.unpack_from(f"<{n * groups}e", data, at)
                at += 2 * n * groups
                codes = struct.unpack_from(f"<{n * dimension}b", data, at)
                at += n * dimension
                rows = []
                for row in range(n if dimension else 0):
                    numbers = [
                        f32(codes[row * dimension + c] * scales[row * groups + c // GROUP]) for c in range(dimension)
                    ]
                    rows.append(rounded(rotated(numbers), element_type))
                heads.append(rows)
            parts.append(heads)
        result.append(parts)
    return result


def encoded_window(rows: list) -> bytes:
    """A head's rows of numbers as ARCHIVE WINDOW has them."""
    scales, codes = [], []
    for row in rows:
        row = rotated(row)
        for start in range(0, len(row), GROUP):
            group = row[start : start + GROUP]
            scale = F16.value(F16.bits(f32(max(abs(x) for x in group) / 127)))
            inverse = f32(1 / scale) if scale else 0.0
            scales.append(scale)
            codes += [min(max(round(f32(x * inverse)), -127), 127) for x in group]
    return struct.pack(f"<{len(scales)}e", *scales) + struct.pack(f"<{len(codes)}b", *codes)
