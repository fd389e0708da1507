"""Caches to make files of, from names as seeds, and their dumps."""

import struct
from typing import NamedTuple

from .. import safetensors
from ..checksum import crc32c
from ..elements import BF16, F16, F32, f32
from ..geometry import ALL, LAST, LISTED
from ..safetensors import Tensor
from ..writer import Cache, Layer


class Generator:
    """SplitMix64: its numbers depend on the seed and on nothing else."""

    def __init__(self, name: str):
        self.state = crc32c(name.encode())

    def integer(self, below: int) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) % (1 << 64)
        x = self.state
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % (1 << 64)
        x = (x ^ x >> 27) * 0x94D049BB133111EB % (1 << 64)
        return (x ^ x >> 31) % below

    def choice(self, items):
        return items[self.integer(len(items))]

    def number(self) -> float:
        """Bell-shaped, of variance 1/3 and magnitude below 2; exact in binary64, without libm."""
        return sum(self.integer(1 << 20) for _ in range(4)) / (1 << 20) - 2


def like_a_model(generator: Generator, element_type, rows: int, d: int) -> list:
    """Bit patterns [row][channel]; channels differ in scale and offset, as those of keys do."""
    scale = [generator.choice((0.25, 0.5, 1, 1, 2, 8)) for _ in range(d)]
    offset = [generator.choice((0, 0, 0, 1, -3)) for _ in range(d)]
    return [[element_type.bits(f32(generator.number() * s + o)) for s, o in zip(scale, offset)] for _ in range(rows)]


METADATA_PAIRS = {
    "model.id": "example/tiny",
    "model.architecture": "llama",
    "model.fingerprint": "0123456789abcdef",
    "rope.theta": "10000",
    "rope.type": "default",
    "producer": "make-vectors",
}


class Shape(NamedTuple):
    """What one layer of a cache has."""

    heads: int = 1
    keys: int = 4  # dimension
    values: int = 4
    rows: int = 0  # 0: all tokens
    listed: bool = False  # else rows of the last tokens
    sinks: int = 0
    state: dict = {}
    query_heads: int = 0


NO_CACHE = Shape(0, 0, 0)


def make_cache(
    name, element_type, tokens, shapes, queries=0, token_ids=True, positions=None, metadata=METADATA_PAIRS,
    numbers=like_a_model,
):
    """A cache of layers of the shapes given; `queries` is the rows of each query head."""
    generator = Generator(name)

    def layer(shape: Shape) -> Layer:
        rows = shape.rows or tokens

        def part(heads, rows, d):
            return [numbers(generator, element_type, rows, d) for _ in range(heads)]

        parts = (
            part(shape.heads, rows, shape.keys),
            part(shape.heads, rows, shape.values),
            part(shape.query_heads, queries, shape.keys),
        )
        held = LISTED if shape.listed else LAST if rows < tokens else ALL
        lists = [sample(generator, tokens, rows, shape.sinks) for _ in range(shape.heads)] if shape.listed else ()
        return Layer(*parts, held, lists, shape.sinks, shape.state)

    content = [layer(shape) for shape in shapes]
    ids = [generator.integer(32000) for _ in range(tokens)] if token_ids else None
    return Cache(element_type, tokens, content, ids, positions, metadata)


def sample(generator: Generator, tokens: int, count: int, first: int) -> list:
    """Ascending token numbers, the `first` ones among them."""
    rest = list(range(first, tokens))
    return sorted([*range(first), *(rest.pop(generator.integer(len(rest))) for _ in range(count - first))])


def write_dump(path: str, cache: Cache) -> None:
    """The cache before compression, as a tool gets it (dump.md)."""
    tensors, pieces = [], []

    def add(name, dtype, shape, data):
        tensors.append(Tensor(name, dtype, shape, len(data)))
        pieces.append(data)

    def rows(name, heads, count, d):
        data = b"".join(cache.type.pack(row) for rows in heads for row in rows)
        add(name, cache.type.name.upper(), [1, len(heads), count, d], data)

    for number, layer in enumerate(cache.layers):
        start = f"layers.{number}."
        rows(start + "keys", layer.keys, layer.rows, layer.key_dimension)
        if layer.queries:
            rows(start + "queries", layer.queries, len(layer.queries[0]), layer.key_dimension)
        rows(start + "values", layer.values, layer.rows, layer.value_dimension)
        if layer.held == LISTED:
            data = b"".join(struct.pack(f"<{layer.rows}I", *tokens) for tokens in layer.listed)
            add(start + "held_tokens", "I32", [len(layer.keys), layer.rows], data)
        for name, data in layer.state.items():
            add(start + "state." + name, "U8", [len(data)], data)
    for name, numbers in (("positions", cache.positions), ("tokens", cache.tokens)):
        if numbers is not None:
            add(name, "I32", [len(numbers)], struct.pack(f"<{len(numbers)}i", *numbers))
    safetensors.write(path, tensors, cache.metadata, pieces)


def any_bits(generator: Generator, element_type, rows: int, d: int) -> list:
    """Bit patterns of all kinds: NaN payloads, infinities, zeros of both signs, subnormals."""
    mantissa = {F16: 10, BF16: 7, F32: 23}[element_type]
    sign = 1 << element_type.width - 1
    infinity = sign - (1 << mantissa)
    special = [infinity - 1, infinity, infinity + 1, infinity + (1 << mantissa - 1), sign - 1, 0, 1, (1 << mantissa) - 1]

    def bits() -> int:
        if generator.integer(4):
            return generator.integer(2 * sign)
        return generator.choice(special) | sign * generator.integer(2)

    return [[bits() for _ in range(d)] for _ in range(rows)]


def hard_groups(generator: Generator, element_type, rows: int, d: int) -> list:
    """Channels and tokens that are hard to quantize: constant, zeros of both signs, subnormals,
    ranges that vanish in f16, the largest magnitudes, ties between codes. As constant rows
    and as constant columns, since the groups of keys run along tokens, those of values along
    channels."""
    kinds = [
        lambda: 1.5,
        lambda: -65504.0,
        lambda: generator.choice((65504.0, -65504.0)),
        lambda: generator.choice((0.0, -0.0)),
        lambda: -0.0,
        lambda: generator.integer(7) * 2.0**-24,  # f16 subnormals
        lambda: -generator.integer(3) * 2.0**-24,
        lambda: 100 + generator.integer(3) * 2.0**-4,  # range near the spacing of f16
        lambda: float(generator.integer(4)),  # codes without error
        lambda: generator.integer(7) / 2,  # ties at 2 bits
        lambda: generator.number() * 65000 / 2,
        lambda: -generator.integer(9) * 2.0**-30,  # f32 only: below f16's subnormals
        lambda: 2049 + generator.integer(2) / 4,  # f32 only: minimum between f16 numbers
        lambda: generator.integer(5) * 2.0**-149,  # f32 subnormals
        lambda: 1 + generator.integer(3) * 2.0**-20,  # scale rounds to 0
        lambda: 0.1,
    ]
    if generator.integer(2) == 0:
        table = [[kinds[c % len(kinds)]() for c in range(d)] for _ in range(rows)]
    else:
        table = [[kinds[t % len(kinds)]() for _ in range(d)] for t in range(rows)]
    # 65504 is no bf16 number and would round up to one that cannot be quantized.
    largest = 65280.0 if element_type is BF16 else 65504.0
    return [[element_type.bits(f32(min(max(x, -largest), largest))) for x in row] for row in table]


def equal_channels(generator: Generator, element_type, rows: int, d: int) -> list:
    """Four kinds of channels, each several times: scores of channels c and c + 4 are equal."""
    kinds = [[element_type.bits(generator.number() * (k + 1)) for k in range(4)] for _ in range(rows)]
    return [[kinds[t][c % 4] for c in range(d)] for t in range(rows)]


def full_mantissas(generator: Generator, element_type, rows: int, d: int) -> list:
    """Numbers whose sums round at each step, so that their order shows."""
    return [[element_type.bits(f32((generator.number() + c) / 3)) for c in range(d)] for _ in range(rows)]


def large_first_rows(generator: Generator, element_type, rows: int, d: int) -> list:
    """What sinks are for: the first four rows are far larger than the others."""
    numbers = like_a_model(generator, element_type, rows, d)
    large = [[element_type.bits(500 * element_type.value(x)) for x in row] for row in numbers[:4]]
    return large + numbers[4:]


def far_from_means(generator: Generator, element_type, rows: int, d: int) -> list:
    """Numbers further from their channel's mean than can be quantized; and rows that lie there
    together, so that rotation makes them larger yet."""
    def number(row: int) -> float:
        return 60000 + 4000 * generator.number() / 2 if row % 8 == 5 else 1000 * generator.number() - 60000

    signs = [generator.choice((1, 1, -1)) for _ in range(d)]
    return [[element_type.bits(f32(sign * number(row))) for sign in signs] for row in range(rows)]


def few_values(generator: Generator, element_type, rows: int, d: int) -> list:
    """Data that zstd makes shorter."""
    period = [element_type.bits(generator.number()) for _ in range(7)]
    return [[period[(t // 16 + c) % 7] for c in range(d)] for t in range(rows)]
