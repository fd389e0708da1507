"""Plans and the layout that follows from them (snapshot.md, PLAN and How a cache is cut)."""

import struct
from typing import NamedTuple

PAGE_TOKENS = 256


def align64(x: int) -> int:
    return x + 63 & ~63


class Run(NamedTuple):
    width: int
    channels: tuple

    def lines(self) -> int:
        """Lines of codes per sub-block of 32 tokens (kivi.md, Key codes)."""
        return -(-2 * self.quads() // (8 // self.width))

    def quads(self) -> int:
        return -(-len(self.channels) // 4)


class HeadPlan(NamedTuple):
    runs: tuple
    value_width: int
    means: tuple  # of the pruned channels, ascending; empty if they are 0

    def kept(self) -> list:
        return [channel for run in self.runs for channel in run.channels]

    def encoded(self) -> bytes:
        kept = self.kept()
        data = struct.pack("<4H", len(self.runs), self.value_width, len(self.means), 0)
        for run in self.runs:
            data += struct.pack("<2H", run.width, len(run.channels))
        data += struct.pack(f"<{len(kept)}H", *kept) + bytes(2 * (len(kept) % 2))
        return data + struct.pack(f"<{len(self.means)}f", *self.means)


class BlockLayout:
    """Where the parts of a block lie (snapshot.md, PLAN: 'A block of the head is')."""

    def __init__(self, plan: HeadPlan, head_dimension: int, block_length: int, element_type):
        at = 0
        self.keys = []  # per run: start of its codes or elements
        for run in plan.runs:
            self.keys.append(at)
            if run.width < element_type.width:
                at += block_length // 32 * run.lines() * 64
            else:
                at += len(run.channels) * block_length * element_type.size
        self.scales, self.minima = {}, {}  # by number of the run
        for starts in (self.scales, self.minima):
            for number, run in enumerate(plan.runs):
                if run.width < element_type.width:
                    starts[number] = at
                    at += 4 * run.quads() * 2
        self.values = at = align64(at)
        self.groups = -(-head_dimension // block_length)
        if plan.value_width < element_type.width:
            codes = block_length // 4 * -(-head_dimension // 16)
            at += -(-codes // (8 // plan.value_width)) * 64
            self.value_scales = at
            at += block_length * self.groups * 2
            self.value_minima = at
            at += block_length * self.groups * 2
        else:
            at += block_length * head_dimension * element_type.size
        self.length = align64(at)


class Slabs:
    """Offsets of slabs, pages and blocks, relative to the first page, when pages are raw."""

    def __init__(self, header, block_lengths: list):
        self.block_lengths = block_lengths  # [layer][head]
        self.layer_lengths = [sum(heads) for heads in block_lengths]  # S[l]
        self.all = sum(self.layer_lengths)  # S
        self.full = PAGE_TOKENS // header.blockLength
        self.blocks = header.blockTokens // header.blockLength
        self.chunks = -(-self.blocks // self.full)

    def page_blocks(self, chunk: int) -> int:
        return min(self.full, self.blocks - chunk * self.full)

    def slab_length(self, chunk: int, layer: int) -> int:
        return self.page_blocks(chunk) * self.layer_lengths[layer]

    def in_slab(self, chunk: int, layer: int, head: int, block: int) -> int:
        """The offset of a block in its slab."""
        heads = self.block_lengths[layer]
        return self.page_blocks(chunk) * sum(heads[:head]) + block * heads[head]
