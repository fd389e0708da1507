"""Writing a cache as a snapshot by a plan (snapshot.md; at once, no appending)."""

import hashlib
import struct
from typing import NamedTuple

from . import blocks, zstd
from .checksum import crc32c
from .elements import ElementType
from .geometry import ALL, LISTED, NONE, PAGE_TOKENS, Header, LayerGeometry, Pages
from .plan import BlockLayout, ComponentHead, ComponentLayout
from .reader import chain_start, encoded_pair, encoded_text
from .sections import (
    ARCHIVE_CHUNKS, ARCHIVE_PLAN, BASES, CHAIN, ENTRY_LENGTH, GEOMETRY, HEADER_LENGTH, HELD_TOKENS, MAGIC, METADATA,
    PAGE_TABLE, PAGES, PLAN, POSITIONS, PROFILE, RECIPE, SINKS, STATE, TOKENS, VERSION, VERSION_3, WINDOW, align64,
)


class Layer(NamedTuple):
    keys: list  # bit patterns [KV head][row][channel], rows by place; empty if there is no cache
    values: list  # alike; rows of no channels if there are none
    queries: list = ()  # bit patterns [query head][row][channel], or empty
    held: int = ALL
    listed: list = ()  # token numbers [KV head][row], where `held` is LISTED
    sinks: int = 0
    state: dict = {}  # bytes by name

    @property
    def rows(self) -> int:
        return len(self.keys[0]) if self.keys else 0

    @property
    def key_dimension(self) -> int:
        return len(self.keys[0][0]) if self.keys else 0

    @property
    def value_dimension(self) -> int:
        return len(self.values[0][0]) if self.keys else 0


class Cache(NamedTuple):
    type: ElementType
    length: int  # tokens
    layers: list
    tokens: list  # or None
    positions: list  # or None
    metadata: dict


class Plan(NamedTuple):
    """How a cache is packed, and what is said of it."""

    heads: list  # HeadPlan [layer][KV head]; None for an archive, which has no blocks
    block_length: int = 32
    residual_window: int = 0
    recipe: list = ()  # pairs of codec number and text
    profile: list = ()  # numbers of all layers, or none


class StoredSection(NamedTuple):
    stored: bytes
    length: int  # decoded
    coding: int


def raw(data: bytes) -> StoredSection:
    return StoredSection(data, len(data), 0)


def packed(data: bytes) -> StoredSection:
    """One zstd frame where that is allowed and shorter, else raw."""
    frame = zstd.compress(data)
    if len(frame) < len(data) and zstd.may_expand(len(frame), len(data)):
        return StoredSection(frame, len(data), 1)
    return raw(data)


def encode(cache: Cache, plan: Plan, zstd_coded: bool = False):
    """Header and sections {kind: StoredSection} of the snapshot of a cache."""
    header = Header(0, 0, cache.type.number, len(cache.layers), plan.block_length, plan.residual_window, cache.length)
    geometry = geometry_of(cache, header)
    store = packed if zstd_coded else raw
    sections = {}

    def add(kind: int, data: bytes, store=store) -> None:
        if data:
            sections[kind] = store(data)

    if cache.metadata:
        add(METADATA, encoded_metadata(cache.metadata))
    if plan.recipe:
        add(RECIPE, encoded_recipe(plan.recipe))
    add(GEOMETRY, b"".join(layer.encoded() for layer in geometry), raw)
    if plan.heads is not None:
        add(PLAN, b"".join(head.encoded() for heads in plan.heads for head in heads), raw)
    add(PROFILE, struct.pack(f"<{len(plan.profile)}f", *plan.profile))
    pages = Pages(header, geometry)
    if pages.chunks and plan.heads is not None:
        sections[PAGES], table = _encode_pages(cache, plan.heads, header, geometry, pages, store)
        add(PAGE_TABLE, table)
    add(SINKS, _rows(cache, [range(layer.sink_rows) for layer in geometry]))
    # Places become indices of the layer's rows.
    firsts = [layer.first(header.tokens) for layer in geometry]
    windows = [layer.window(header.tokens) for layer in geometry]
    if plan.heads is not None:
        add(WINDOW, _rows(cache, [range(w.start - first, w.stop - first) for w, first in zip(windows, firsts)]))
    listed = [token for layer in cache.layers if layer.held == LISTED for tokens in layer.listed for token in tokens]
    add(HELD_TOKENS, struct.pack(f"<{len(listed)}I", *listed))
    items = [(number, name, data) for number, layer in enumerate(cache.layers) for name, data in layer.state.items()]
    if items:
        add(STATE, encoded_state(sorted(items, key=lambda item: (item[0], item[1].encode()))))
    for kind, numbers in ((TOKENS, cache.tokens), (POSITIONS, cache.positions)):
        if numbers is not None:
            add(kind, struct.pack(f"<{len(numbers)}i", *numbers))
    if cache.tokens is not None:
        digest, chain = chain_start(header, geometry, cache.metadata), b""
        for start in range(0, cache.length - PAGE_TOKENS + 1, PAGE_TOKENS):
            whole = cache.tokens[start : start + PAGE_TOKENS]
            digest = hashlib.sha256(digest + struct.pack(f"<{PAGE_TOKENS}i", *whole)).digest()
            chain += digest
        add(CHAIN, chain, raw)
    bases = [head for heads in plan.heads or () for head in heads if isinstance(head, ComponentHead)]
    add(BASES, b"".join(head.encoded_bases() for head in bases), raw)
    return header, sections


def geometry_of(cache: Cache, header: Header) -> list:
    return [_geometry(layer, header) for layer in cache.layers]


def _geometry(layer: Layer, header: Header) -> LayerGeometry:
    if not layer.keys:
        return LayerGeometry(0, 0, 0, 0, NONE, 0, 0, 0)
    end = layer.rows if layer.held == LISTED else header.tokens
    g = header.blockLength
    block_tokens = max(end - header.residualWindow, 0) // g * g
    dimensions = layer.key_dimension, layer.value_dimension
    return LayerGeometry(
        len(layer.keys), len(layer.queries), *dimensions, layer.held, layer.sinks, layer.rows, block_tokens
    )


def _rows(cache: Cache, ranges: list) -> bytes:
    """Keys, then values, of a range of each layer's rows."""
    return b"".join(
        cache.type.pack(row)
        for layer, rows in zip(cache.layers, ranges)
        for part in (layer.keys, layer.values)
        for head in part
        for row in head[rows.start : rows.stop]
    )


def encoded_metadata(pairs: dict) -> bytes:
    keys = sorted(pairs, key=str.encode)
    return struct.pack("<I", len(keys)) + b"".join(encoded_pair(key, pairs[key]) for key in keys)


def encoded_recipe(stages: list) -> bytes:
    """`stages` are pairs of codec number and text."""
    return struct.pack("<I", len(stages)) + b"".join(struct.pack("<I", n) + encoded_text(text) for n, text in stages)


def encoded_state(items: list) -> bytes:
    """`items` are layer, name and bytes, in the order in which they are stored."""
    data = struct.pack("<2I", len(items), 0)
    for layer, name, content in items:
        data += struct.pack("<I", layer) + encoded_text(name) + struct.pack("<Q", len(content))
    for _, _, content in items:
        data += bytes(align64(len(data)) - len(data)) + content
    return data


def _block_rows(rows: list, first: int, low: int, block: int, g: int) -> list:
    """The rows of a block, with stand-ins at places below `low`; rows[0] is at the place `first`."""
    places = range(block * g, block * g + g)
    readable = [rows[place - first] for place in places if place >= low]
    return readable[:1] * (g - len(readable)) + readable


def _encode_pages(cache: Cache, plans: list, header: Header, geometry: list, pages: Pages, store):
    g = header.blockLength
    stored_pages, table, length = b"", b"", 0
    for chunk in range(pages.chunks):
        for number, layer in enumerate(cache.layers):
            first = geometry[number].first(header.tokens)
            low = max(first, geometry[number].sink_rows)
            slab = b""
            for plan, keys, values in zip(plans[number], layer.keys, layer.values):
                if isinstance(plan, ComponentHead):
                    layout = ComponentLayout(plan, g)
                else:
                    layout = BlockLayout(plan, layer.value_dimension, g, cache.type)
                for block in pages.blocks(chunk, number):
                    rows = [_block_rows(part, first, low, block, g) for part in (keys, values)]
                    if not rows[0]:
                        slab += bytes(layout.length)
                        continue
                    slab += blocks.encode_block(*rows, plan, layout, cache.type)
            stored = store(slab).stored if slab else b""
            table += struct.pack("<2I", len(stored), crc32c(stored))
            stored_pages += stored
            length += len(slab)
    return StoredSection(stored_pages, length, int(store is packed)), table


def assemble(header: Header, sections: dict, version=None) -> bytes:
    """The file; `sections` may have kinds that are not known. The version is theirs, or another one."""
    version = version or (VERSION_3 if ARCHIVE_PLAN in sections or BASES in sections else VERSION)
    table_end = HEADER_LENGTH + ENTRY_LENGTH * len(sections)
    table, body, at = b"", b"", table_end
    for kind in sorted(sections):
        stored, length, coding = sections[kind]
        offset = align64(at)
        checksum = 0 if kind in (PAGES, ARCHIVE_CHUNKS) else crc32c(stored)
        table += struct.pack("<2I3Q2I", kind, coding, offset, len(stored), length, checksum, 0)
        body += bytes(offset - at) + stored
        at = offset + len(stored)
    *fields, tokens = header._replace(fileLength=at, sectionCount=len(sections))
    start = MAGIC + struct.pack("<2I", version, 0) + struct.pack("<Q6IQ", *fields, 0, tokens)
    data = bytearray(start + bytes(HEADER_LENGTH - len(start)) + table + body)
    seal(data)
    return bytes(data)


def seal(data: bytearray) -> None:
    """Sets the header's checksum."""
    count = struct.unpack_from("<I", data, 24)[0]
    data[12:16] = bytes(4)
    struct.pack_into("<I", data, 12, crc32c(data[: HEADER_LENGTH + ENTRY_LENGTH * count]))
