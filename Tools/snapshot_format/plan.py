"""Plans, and the layout of blocks that follows from them (snapshot.md, PLAN)."""

import struct
from typing import NamedTuple

from .sections import align64


class Coding(NamedTuple):
    width: int
    scales: int
    ranges: int
    rotation: int

    @property
    def compact(self) -> bool:
        return self.scales == 2

    @property
    def scale_size(self) -> int:
        """Bytes of a scale, and of a minimum."""
        return 1 if self.compact else 2


FULL = Coding(0, 0, 0, 0)


def quantized(width: int, ranges: int = 0) -> Coding:
    return Coding(width, 1, ranges, 0)


def compact(width: int, ranges: int = 0, rotation: int = 0) -> Coding:
    return Coding(width, 2, ranges, rotation)


def planes(width: int) -> tuple:
    """Widths of the planes that codes lie in, low bits first (kivi.md, Lines)."""
    return (width - 1, 1) if width in (3, 5) else (width,)


def plane_lines(units: int, plane: int) -> int:
    return -(-units // (8 // plane))


def lines(units: int, width: int) -> int:
    """Lines of codes in a sub-block of 32 tokens that has so many units."""
    return sum(plane_lines(units, plane) for plane in planes(width))


class Run(NamedTuple):
    coding: Coding
    channels: tuple

    def quads(self) -> int:
        return -(-len(self.channels) // 4)

    def units(self) -> int:
        """Units of a sub-block (kivi.md, Key codes)."""
        return 2 * self.quads()

    def code_bytes(self, block_length: int) -> int:
        return block_length // 32 * lines(self.units(), self.coding.width) * 64

    def scale_bytes(self) -> int:
        """Of the scales, and as many of the minima."""
        return 4 * self.quads() * self.coding.scale_size


def value_units(value_dimension: int) -> int:
    """Units of a sub-block (kivi.md, Value codes)."""
    return 8 * -(-value_dimension // 16)


class HeadPlan(NamedTuple):
    runs: tuple
    values: Coding
    means: tuple  # of the key channels that are pruned or compact, ascending; empty if the pruned ones are 0
    # Of the value channels that are pruned and those that are kept and compact, ascending; without
    # the former if these are 0.
    value_means: tuple = ()
    value_channels: tuple = ()  # those that are kept; empty if all are

    def kept(self) -> list:
        return [channel for run in self.runs for channel in run.channels]

    def compact_keys(self) -> list:
        """The key channels that have compact scales."""
        return [channel for run in self.runs if run.coding.compact for channel in run.channels]

    def channels_of_means(self, key_dimension: int) -> list:
        """The channels that `means` are of, if there are any."""
        return sorted({*range(key_dimension)} - {*self.kept()} | {*self.compact_keys()})

    def kept_values(self, value_dimension: int) -> list:
        return list(self.value_channels or range(value_dimension))

    def value_pruning(self) -> int:
        if not self.value_channels:
            return 0
        return 2 if len(self.value_means) > (len(self.value_channels) if self.values.compact else 0) else 1

    def channels_of_value_means(self, value_dimension: int) -> list:
        kept = {*self.kept_values(value_dimension)}
        pruned = {*range(value_dimension)} - kept if self.value_pruning() == 2 else set()
        return sorted(pruned | (kept if self.values.compact else set()))

    def encoded(self) -> bytes:
        kept = self.kept()
        counts = len(self.runs), self.value_pruning(), len(self.means)
        data = struct.pack("<2BH4B", *counts, *self.values)
        for run in self.runs:
            data += struct.pack("<4BI", *run.coding, len(run.channels))
        data += struct.pack(f"<{len(kept)}H", *kept) + bytes(2 * (len(kept) % 2))
        if self.value_channels:
            count = len(self.value_channels)
            data += struct.pack(f"<{1 + count}H", count, *self.value_channels) + bytes(2 * (1 - count % 2))
        means = self.means + self.value_means
        return data + struct.pack(f"<{len(means)}f", *means)


class BlockLayout:
    """Where the parts of a block lie (snapshot.md, PLAN: 'A block of the head is')."""

    def __init__(self, plan: HeadPlan, value_dimension: int, block_length: int, element_type):
        at = 0
        self.keys = []  # per run: start of its codes or elements
        for run in plan.runs:
            self.keys.append(at)
            if run.coding.width:
                at += run.code_bytes(block_length)
            else:
                at += len(run.channels) * block_length * element_type.size
        self.scales, self.minima = {}, {}  # by number of the run
        for starts in (self.scales, self.minima):
            for number, run in enumerate(plan.runs):
                if run.coding.width:
                    starts[number] = at
                    at += run.scale_bytes()
        self.values = at = align64(at)
        value_dimension = len(plan.kept_values(value_dimension))
        self.group = 64 if plan.values.compact else block_length  # channels of values
        self.groups = -(-value_dimension // self.group)
        if plan.values.width:
            at += block_length // 32 * lines(value_units(value_dimension), plan.values.width) * 64
            self.value_scales = at
            at += block_length * self.groups * plan.values.scale_size
            self.value_minima = at
            at += block_length * self.groups * plan.values.scale_size
        else:
            at += block_length * value_dimension * element_type.size
        self.length = align64(at)


class Components(NamedTuple):
    """How keys or values are turned into components (calibrated.md)."""

    runs: tuple  # pairs of a coding and a number of components
    matrix: tuple  # a row of signed bytes for each component, one for each channel
    scales: tuple
    weights: tuple
    means: tuple

    def encoded(self) -> bytes:
        data = struct.pack("<B3x", len(self.runs))
        data += b"".join(struct.pack("<4BI", *coding, count) for coding, count in self.runs)
        for numbers in (self.means, self.weights, self.scales):
            data += struct.pack(f"<{len(numbers)}f", *numbers)
        for row in self.matrix:
            data += struct.pack(f"<{len(row)}b", *row)
        return data + bytes(-len(data) % 4)

    def block_runs(self) -> list:
        """The runs of components as those of channels are."""
        result, first = [], 0
        for coding, count in self.runs:
            result.append(Run(coding, tuple(range(first, first + count))))
            first += count
        return result


class ComponentHead(NamedTuple):
    keys: Components
    values: Components  # None if there are no values

    def encoded(self) -> bytes:
        """What PLAN has of it."""
        return bytes(8)

    def encoded_bases(self) -> bytes:
        return b"".join(part.encoded() for part in self if part is not None)


class ComponentLayout:
    """Where the parts of a block of components lie (calibrated.md, Blocks)."""

    def __init__(self, plan: ComponentHead, block_length: int):
        parts = [part.block_runs() if part else [] for part in plan]
        self.runs = []  # for keys and for values the runs, and where codes, scales and minima of each begin
        at, codes, scales, minima = 0, [], [], []
        for runs in parts:
            for run in runs:
                codes.append(at)
                at += run.code_bytes(block_length)
        for runs in parts:
            for starts in (scales, minima):
                for run in runs:
                    starts.append(at)
                    at += run.scale_bytes()
        self.length = align64(at)
        places = list(zip(codes, scales, minima))
        for runs in parts:
            self.runs.append(list(zip(runs, places)))
            places = places[len(runs) :]
