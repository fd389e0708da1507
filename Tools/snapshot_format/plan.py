"""Plans, and the layout of blocks that follows from them (snapshot.md, PLAN)."""

import struct
from typing import NamedTuple

from .sections import align64


class Coding(NamedTuple):
    width: int
    scales: int
    ranges: int
    rotation: int


FULL = Coding(0, 0, 0, 0)


def quantized(width: int, ranges: int = 0) -> Coding:
    return Coding(width, 1, ranges, 0)


class Run(NamedTuple):
    coding: Coding
    channels: tuple

    def lines(self) -> int:
        """Lines of codes per sub-block of 32 tokens (kivi.md, Key codes)."""
        return -(-2 * self.quads() // (8 // self.coding.width))

    def quads(self) -> int:
        return -(-len(self.channels) // 4)


class HeadPlan(NamedTuple):
    runs: tuple
    values: Coding
    means: tuple  # of the pruned channels, ascending; empty if they are 0

    def kept(self) -> list:
        return [channel for run in self.runs for channel in run.channels]

    def encoded(self) -> bytes:
        kept = self.kept()
        data = struct.pack("<2H4B", len(self.runs), len(self.means), *self.values)
        for run in self.runs:
            data += struct.pack("<4BI", *run.coding, len(run.channels))
        data += struct.pack(f"<{len(kept)}H", *kept) + bytes(2 * (len(kept) % 2))
        return data + struct.pack(f"<{len(self.means)}f", *self.means)


class BlockLayout:
    """Where the parts of a block lie (snapshot.md, PLAN: 'A block of the head is')."""

    def __init__(self, plan: HeadPlan, value_dimension: int, block_length: int, element_type):
        at = 0
        self.keys = []  # per run: start of its codes or elements
        for run in plan.runs:
            self.keys.append(at)
            if run.coding.width:
                at += block_length // 32 * run.lines() * 64
            else:
                at += len(run.channels) * block_length * element_type.size
        self.scales, self.minima = {}, {}  # by number of the run
        for starts in (self.scales, self.minima):
            for number, run in enumerate(plan.runs):
                if run.coding.width:
                    starts[number] = at
                    at += 4 * run.quads() * 2
        self.values = at = align64(at)
        self.groups = -(-value_dimension // block_length)
        if plan.values.width:
            codes = block_length // 4 * -(-value_dimension // 16)
            at += -(-codes // (8 // plan.values.width)) * 64
            self.value_scales = at
            at += block_length * self.groups * 2
            self.value_minima = at
            at += block_length * self.groups * 2
        else:
            at += block_length * value_dimension * element_type.size
        self.length = align64(at)
