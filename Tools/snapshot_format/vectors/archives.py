"""The archives (Formats/Vectors/README.md): of numbers at random, so that readers alone are tested."""

import struct
from math import sqrt
from typing import NamedTuple

from .. import safetensors
from ..archive import ArchivePlan, Profile, Unit
from ..archive_encoder import encode_by_step
from ..archive_writer import Coded, encode_archive
from ..elements import BF16, F16, F32, f16_bits, f16_value, f32
from ..safetensors import Tensor
from ..writer import Plan, assemble
from .caches import METADATA_PAIRS, NO_CACHE, Generator, Shape, full_mantissas, large_first_rows, make_cache

RECIPE = [(13, "archive(step=0.03)")]
LARGEST_TABLE = 128


class Draft(NamedTuple):
    """A unit without its numbers: layer, layers, head, heads, parts."""

    layer: int
    layers: int
    head: int
    heads: int
    parts: int

    def channels(self, shapes: list) -> int:
        return sum(
            self.heads * ((shape.keys if self.parts & 1 else 0) + (shape.values if self.parts & 2 else 0))
            for shape in shapes[self.layer : self.layer + self.layers]
        )


def units_of_heads(shapes: list) -> list:
    """Keys, and values, of each KV head apart."""
    return [
        Draft(layer, 1, head, 1, part)
        for layer, shape in enumerate(shapes)
        for part in (1, 2)
        for head in range(shape.heads if (shape.keys, shape.values)[part - 1] else 0)
    ]


class ProfileFile:
    """A profile whose bases are random bytes: of no meaning, but of all that a reader checks."""

    def __init__(self, name: str, shapes: list, drafts: list, shares: list, pairs: list, orthogonal: bool = False):
        """`shares` are the components of each unit by its channels; `pairs` the rotary pairs of each layer.
        `orthogonal` bases of units are ones that code, too."""
        generator = Generator(f"profile {name}")
        self.orthogonal = orthogonal
        self.name, self.tensors, self.pieces = name, [], []
        self.components, self.frequencies = [], []
        for layer, shape in enumerate(shapes):
            if not shape.heads:
                self.frequencies.append([])
                continue
            queries = self._numbers(generator, shape.heads * shape.keys)
            self._add(f"layers.{layer}.q2", "F32", [shape.heads, shape.keys], queries)
            self.frequencies.append([f32(2.0 ** (-2 * i) + generator.integer(1000) / 1e4) for i in range(pairs[layer])])
            if pairs[layer]:
                self._add(f"layers.{layer}.rotary_frequencies", "F32", [pairs[layer]], self.frequencies[-1])
            for part, d in (("key", shape.keys), ("value", shape.values)):
                if d:
                    self._add_basis(generator, f"layers.{layer}.{part}_basis", [shape.heads], d, d, "_")
        for index, (draft, share) in enumerate(zip(drafts, shares)):
            channels = draft.channels(shapes)
            self.components.append(max(int(channels * share), 1))
            self._add(f"archive.{index}.channels", "I32", [5], draft)
            self._add_basis(generator, f"archive.{index}.basis", [], self.components[-1], channels, ".")

    def _numbers(self, generator: Generator, count: int) -> list:
        return [f32(0.01 + generator.integer(1 << 20) / (1 << 20)) for _ in range(count)]

    def _add(self, name: str, dtype: str, shape: list, numbers) -> None:
        data = struct.pack(f"<{len(numbers)}{ {'F32': 'f', 'I32': 'i', 'I8': 'b'}[dtype] }", *numbers)
        self.tensors.append(Tensor(name, dtype, shape, len(data)))
        self.pieces.append(data)

    def _add_basis(self, generator, name: str, heads: list, components: int, channels: int, mark: str) -> None:
        count = heads[0] if heads else 1
        if self.orthogonal and not heads:
            matrix, scales = orthogonal_rows(generator, components, channels)
        else:
            matrix = [generator.integer(255) - 127 for _ in range(count * components * channels)]
            scales = [x / 64 for x in self._numbers(generator, count * components)]
        self._add(name, "I8", [*heads, components, channels], matrix)
        start = name + "_" if mark == "_" else name[: -len("basis")]
        self._add(start + "scale", "F32", [*heads, components], scales)
        falling = [x for _ in range(count) for x in sorted(self._numbers(generator, components), reverse=True)]
        self._add(start + "variance", "F32", [*heads, components], falling)
        self._add(start + "weight", "F32", [*heads, channels], self._numbers(generator, count * channels))

    def write(self, path: str) -> None:
        metadata = {key: METADATA_PAIRS[key] for key in ("model.id", "model.fingerprint", "producer")}
        safetensors.write(path, self.tensors, metadata, self.pieces)

    def read(self, folder: str) -> Profile:
        with open(f"{folder}/{self.name}.safetensors", "rb") as file:
            return Profile(file.read())


def orthogonal_rows(generator: Generator, count: int, channels: int):
    """Rows that are orthogonal and of length 1 but for their rounding to bytes, and their scales."""
    rows = []
    while len(rows) < count:
        row = [generator.number() for _ in range(channels)]
        for other in rows:
            product = 0.0
            for a, b in zip(row, other):
                product += a * b
            row = [a - product * b for a, b in zip(row, other)]
        length = 0.0
        for a in row:
            length += a * a
        rows.append([a / sqrt(length) for a in row])
    scales = [f32(max(abs(a) for a in row) / 127) for row in rows]
    return [round(a / scale) for row, scale in zip(rows, scales) for a in row], scales


class Encoded:
    """An archive that a writer makes again, of the cache that lies beside it."""

    def __init__(self, name, recipe, element_type, tokens, shapes, profile=None, profile_data=None, **more):
        self.name, self.bases = name, profile_data
        pairs = METADATA_PAIRS if profile else {**METADATA_PAIRS, "recipe.rationale": WITHOUT_BASES}
        self.cache = make_cache(name, element_type, tokens, shapes, metadata=pairs, **more)
        self.data = assemble(*encode_by_step(self.cache, recipe, profile_data))
        self.manifest = {"name": name, "profile": profile.name if profile else None, "recipe": recipe}


def random_numbers(generator: Generator, byte: int, counts: list) -> list:
    """Numbers of a component that its table is for, and some that are escapes."""
    deviation = 2.0 ** (((byte - 1) % 64) / 4 - 5)
    numbers = []
    for shift, count in enumerate(counts):
        for _ in range(count):
            number = round(generator.number() * 1.75 * deviation * 2**shift)
            if not generator.integer(40):
                number = generator.choice((number * 9, -number * 20, 32767, -32768, 32, -32, 31, -31))
            numbers.append(min(max(number, -32768), 32767))
    return numbers


def some_weight(generator: Generator) -> float:
    return f32(0.1 + generator.integer(4000) / 1e3)


def some_mean(generator: Generator) -> float:
    return f16_value(f16_bits(generator.number()))


class Archived:
    """An archive of random numbers. `profile` makes its units' bases; without one, `drafts` are coded as channels."""

    def __init__(
        self, name, element_type, tokens, shapes, drafts=None, pairs=None, profile=None, profile_data=None, residual=0,
        step=0.03125, tables=None, weights=None, means=None, **more,
    ):
        self.name = name
        self.profile = profile.name if profile else None
        self.bases = profile_data
        generator = Generator(f"archive {name}")
        self.cache = make_cache(name, element_type, tokens, shapes, **more)
        drafts = units_of_heads(shapes) if drafts is None else drafts
        frequencies = profile.frequencies if profile else []
        for layer in range(0 if profile else len(shapes)):
            count = pairs[layer] if pairs else 0
            same = layer and count == pairs[layer - 1] if pairs else False
            numbers = [f32(2.0 ** (-3 * i) + generator.integer(100) / 1e3) for i in range(count)]
            frequencies.append(frequencies[-1] if same else numbers)
        units = []
        for index, draft in enumerate(drafts):
            channels = draft.channels(shapes)
            own = [(weights or some_weight)(generator) for _ in range(0 if profile else channels)]
            numbers = [(means or some_mean)(generator) for _ in range(channels)]
            components = profile.components[index] if profile else channels
            units.append(Unit(*draft, int(profile is not None), components, tuple(own), tuple(numbers)))
        self.plan = ArchivePlan(step, profile_data.digest if profile else bytes(32), frequencies, units)
        shifts = [generator.choice((0, 0, 0, 1, 2, 3)) for _ in range(tokens)]

        def code(number: int, counts: list) -> Coded:
            components = units[number].components
            choices = tables or [0, *range(1, LARGEST_TABLE + 1)]
            bytes_ = [generator.choice(choices) if generator.integer(8) else 0 for _ in range(components)]
            return Coded(bytes_, [random_numbers(generator, byte, counts) for byte in bytes_ if byte])

        settings = Plan([], 32, residual, RECIPE)
        self.header, self.sections = encode_archive(self.cache, settings, self.plan, shifts, code)
        self.data = assemble(self.header, self.sections)
        self.manifest = {"name": name, "profile": self.profile}


WITHOUT_BASES = (
    "there is no profile with bases, so that channels are coded as they are; think-compress profile makes one, by which "
    "an archive takes about half the bytes"
)
CODED_SHAPES = [Shape(2, 10, 6, query_heads=4), Shape(1, 8, 8, query_heads=2)]
PROFILE_SHAPES = [Shape(2, 6, 5)] * 2 + [NO_CACHE, Shape(1, 8, 4), Shape(1, 8, 4)]


def profiles() -> list:
    """Units of heads, of layers, and of layers together; fewer components than channels, and as many."""
    heads = [
        Draft(layer, 1, head, 1, 3) for layer, shape in enumerate(PROFILE_SHAPES) for head in range(shape.heads)
    ]
    layers = [Draft(layer, 1, 0, shape.heads, 3) for layer, shape in enumerate(PROFILE_SHAPES) if shape.heads]
    joined = [
        Draft(0, 2, 0, 2, 1), Draft(3, 1, 0, 1, 3), Draft(0, 2, 0, 1, 2), Draft(0, 2, 1, 1, 2), Draft(4, 1, 0, 1, 3),
    ]
    return [
        ProfileFile("heads", PROFILE_SHAPES, heads, [1, 0.5, 0.75, 1, 0.3, 0.5], [3, 3, 0, 4, 2]),
        ProfileFile("layer", PROFILE_SHAPES, layers, [0.5, 1, 0.1, 0.6], [0, 2, 0, 4, 4]),
        ProfileFile("layers", PROFILE_SHAPES, joined, [0.4, 1, 0.5, 0.8, 0.7], [3, 3, 0, 0, 4]),
        ProfileFile("orthogonal", CODED_SHAPES, [Draft(0, 1, 0, 2, 3), Draft(1, 1, 0, 1, 3)], [0.75, 1], [5, 3], True),
    ]


def extreme_weights(generator: Generator) -> float:
    return generator.choice((2.0**-60, 2.0**60, 1.0, f32(0.1), 2.0**-20))


def extreme_means(generator: Generator) -> float:
    return generator.choice((65504.0, -65504.0, 0.0, -0.0, 2.0**-24, -(2.0**-24)))


def valid_archives(files: list, folder: str):
    """`files` are the profiles, which lie in a folder."""
    data = {file.name: file.read(folder) for file in files}
    some = [Shape(2, 6, 5, sinks=3)] * 2
    yield Archived("channels", F16, 100, some, residual=32)
    shapes, positions = [Shape(1, 5, 0), Shape(1, 7, 2)], [3 * t - 90 for t in range(75)]
    yield Archived("channels-f32", F32, 75, shapes, pairs=[2, 3], positions=positions)
    state = {"s": bytes(range(70))}
    shapes = [Shape(1, 6, 4, sinks=2), NO_CACHE._replace(state=state), Shape(1, 4, 4, rows=50), Shape(2, 4, 6, sinks=2)]
    yield Archived("channels-bf16", BF16, 140, shapes, pairs=[3, 0, 2, 2], residual=64, token_ids=False, metadata={})
    joined = [Draft(0, 2, 0, 2, 1), Draft(0, 1, 0, 2, 2), Draft(1, 1, 1, 1, 2), Draft(1, 1, 0, 1, 2)]
    yield Archived("joined-channels", F16, 96, [Shape(2, 4, 3)] * 2, joined, pairs=[2, 2])
    yield Archived("no-low-bits", F16, 64, [Shape(1, 8, 8)], tables=[*range(1, 29), *range(65, 93)])
    yield Archived("low-bits", F16, 64, [Shape(1, 8, 8)], tables=[*range(29, 65), *range(93, 129)])
    yield Archived("zeros", F16, 40, [Shape(1, 5, 4)], tables=[0])
    positions = [0, -1, 2**31 - 1, -(2**31), 2**29, 12345678, *range(100, 134)]
    yield Archived("positions", F32, 40, [Shape(1, 8, 2)], pairs=[4], positions=positions)
    extreme = {"weights": extreme_weights, "means": extreme_means}
    yield Archived("large-step", F16, 64, [Shape(2, 4, 4)], step=2.0**40, **extreme)
    yield Archived("small-step", F32, 64, [Shape(2, 4, 4)], pairs=[1], step=2.0**-40, **extreme)
    shapes = [Shape(1, 3, 2, sinks=4), Shape(1, 2, 1, rows=70), Shape(1, 2, 1, rows=80)]
    yield Archived("two-chunks", F16, 1100, shapes, pairs=[1, 0, 1])
    yield Archived("window-alone", F16, 31, [Shape(2, 40, 33, sinks=4)], residual=128, numbers=full_mantissas)
    yield Archived("window-f32", F32, 50, [Shape(1, 32, 12, sinks=1)], residual=32, numbers=large_first_rows)
    yield Archived("sinks-alone", BF16, 40, [Shape(1, 4, 3, sinks=40)])
    yield Archived("sliding-window-alone", F16, 300, [Shape(1, 4, 3, rows=20)], residual=64)
    yield Archived("no-layers", F16, 3, [NO_CACHE._replace(state=state)], drafts=[])
    shapes = [shape._replace(sinks=2 if shape.heads else 0) for shape in PROFILE_SHAPES]
    sliding = [shape._replace(rows=70 if shape.heads == 1 else 0) for shape in PROFILE_SHAPES]
    heads, layer, layers, orthogonal = files

    def with_profile(name: str, file: ProfileFile, element_type, tokens: int, shapes: list) -> Archived:
        drafts = [Draft(*numbers) for numbers in data[file.name].bases]
        return Archived(
            name, element_type, tokens, shapes, drafts, profile=file, profile_data=data[file.name], residual=32
        )

    yield with_profile("profile-heads", heads, F16, 150, shapes)
    yield with_profile("profile-layer", layer, F32, 150, shapes)
    yield with_profile("profile-layers", layers, F16, 150, shapes)
    yield with_profile("profile-sliding-window", layers, BF16, 128, sliding)
    recipe = "archive(step=0.07,recent=32,sinks=2)"
    yield Encoded("encoded-channels", recipe, F16, 150, [*CODED_SHAPES, NO_CACHE], queries=32)
    sliding = [CODED_SHAPES[0], CODED_SHAPES[1]._replace(rows=90)]
    recipe = "archive(step=1.5,observe=20,recent=0)"
    yield Encoded("encoded-sliding-window", recipe, BF16, 130, sliding, queries=40)
    bases = {"profile": orthogonal, "profile_data": data["orthogonal"]}
    yield Encoded("encoded-bases", "archive(step=0.2,recent=32)", F32, 150, CODED_SHAPES, queries=40, **bases)
    recipe, positions = "archive(step=0.01,recent=9,sinks=1)", [5 * t + 1000 for t in range(100)]
    yield Encoded("encoded-positions", recipe, F16, 100, CODED_SHAPES, queries=5, positions=positions, **bases)
    # Numbers of some tokens would be too large with the steps that their shifts ask for.
    recipe = "archive(step=0.0008,recent=0,sinks=2)"
    yield Encoded("encoded-fine-step", recipe, F16, 100, CODED_SHAPES, queries=30)
