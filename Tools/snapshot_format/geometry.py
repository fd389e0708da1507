"""The shape of a cache, and how its layers' rows are cut (snapshot.md, How a cache is cut)."""

import struct
from typing import NamedTuple

ALL, LAST, LISTED, NONE = range(4)
HELD_NAMES = ("all", "last", "listed", "none")
PAGE_TOKENS = 256


class Header(NamedTuple):
    fileLength: int
    sectionCount: int
    elementType: int
    layers: int
    blockLength: int
    residualWindow: int
    tokens: int


class LayerGeometry(NamedTuple):
    """An entry of GEOMETRY."""

    kvHeads: int
    queryHeads: int
    keyDimension: int
    valueDimension: int
    held: int
    sinks: int
    heldTokens: int
    blockTokens: int

    FORMAT = "<6I2Q"
    OFFSETS = (0, 4, 8, 12, 16, 20, 24, 32)  # of the fields

    def encoded(self) -> bytes:
        return struct.pack(self.FORMAT, *self)

    def end(self, tokens: int) -> int:
        """The place after the last row, in a cache of so many tokens."""
        return tokens if self.held == LAST else self.heldTokens

    def first(self, tokens: int) -> int:
        """The place of the first row."""
        return self.end(tokens) - self.heldTokens

    def window(self, tokens: int) -> range:
        """The places of the rows in the residual window."""
        return range(max(self.first(tokens), self.blockTokens), self.end(tokens))

    @property
    def sink_rows(self) -> int:
        """Sinks that lie in SINKS: those in the window are rows like others."""
        return min(self.sinks, self.blockTokens)

    def row_numbers(self, rows: int) -> int:
        """How many numbers so many rows of all KV heads have, keys and values together."""
        return self.kvHeads * rows * (self.keyDimension + self.valueDimension)

    def blocks(self, header: Header) -> range:
        """The blocks that the layer has."""
        first = self.first(header.tokens)
        if self.blockTokens <= first:
            return range(0)
        return range(first // header.blockLength, self.blockTokens // header.blockLength)


class Pages:
    """Which blocks lie in which chunk."""

    def __init__(self, header: Header, geometry: list):
        self.full = PAGE_TOKENS // header.blockLength
        self.layers = [layer.blocks(header) for layer in geometry]
        self.chunks = max((-(-blocks.stop // self.full) for blocks in self.layers), default=0)

    def blocks(self, chunk: int, layer: int) -> range:
        """The blocks of a chunk that a layer has: n(k, l) of them."""
        blocks = self.layers[layer]
        start = max(chunk * self.full, blocks.start)
        return range(start, max(start, min((chunk + 1) * self.full, blocks.stop)))
