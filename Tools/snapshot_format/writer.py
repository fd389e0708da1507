"""Compressing a cache and writing it as a snapshot (snapshot.md; one shot, no appending)."""

import hashlib
import struct
from typing import NamedTuple

from . import blocks, prune, zstd
from .checksum import crc32c
from .elements import ElementType, f32
from .plan import PAGE_TOKENS, BlockLayout, HeadPlan, Run, Slabs, align64
from .reader import (
    CHAIN, ENTRY_LENGTH, HEADER_LENGTH, MAGIC, METADATA, PAGE_TABLE, PAGES, PLAN, POSITIONS, PROFILE,
    RECIPE, TOKENS, WINDOW, Header, chain_start, encoded_pair,
)
from .recipe import NUMBERS, parse


class Layer(NamedTuple):
    keys: list  # bit patterns [KV head][token][channel]
    values: list  # alike
    queries: list  # bit patterns [query head][row][channel], or empty


class Cache(NamedTuple):
    type: ElementType
    layers: list
    tokens: list  # or None
    positions: list  # or None
    metadata: dict

    @property
    def length(self) -> int:
        return len(self.layers[0].keys[0])


class StoredSection(NamedTuple):
    stored: bytes
    length: int  # decoded
    encoding: int


def raw(data: bytes) -> StoredSection:
    return StoredSection(data, len(data), 0)


def packed(data: bytes) -> StoredSection:
    """One zstd frame where that is allowed and shorter, else raw."""
    frame = zstd.compress(data)
    if len(frame) < len(data) <= zstd.LARGEST_EXPANSION * len(frame):
        return StoredSection(frame, len(data), 1)
    return raw(data)


def _floats(rows: list, element_type) -> list:
    return [[element_type.value(x) for x in row] for row in rows]


def decide(cache: Cache, stages: list):
    """The plans [layer][KV head] and profiles, or None, of a cache compressed with a recipe."""
    parameters = {stage.codec: stage.values for stage in stages}
    kivi, think = parameters.get("kivi"), parameters.get("think")
    key_width = kivi["keys"] if kivi else cache.type.width
    value_width = kivi["values"] if kivi else cache.type.width
    plans, profiles = [], []
    for layer in cache.layers:
        plans.append([])
        for head, key_rows in enumerate(layer.keys):
            channels, means = range(len(key_rows[0])), ()
            q2 = None
            if layer.queries:
                per_head = len(layer.queries) // len(layer.keys)
                group = layer.queries[head * per_head : (head + 1) * per_head]
                q2 = prune.query_profile([_floats(rows, cache.type) for rows in group], think["observe"] if think else 32)
                profiles += q2
            if think:
                rows = _floats(key_rows, cache.type)
                channels = prune.kept_channels(rows, think["keys"], q2 if think["score"] == "queries" else None)
                if think["restore"] == "mean":
                    mean = prune.key_means(rows)
                    means = tuple(f32(mean[c]) for c in range(len(mean)) if c not in channels)
            plans[-1].append(HeadPlan((Run(key_width, tuple(channels)),), value_width, means))
    return plans, profiles or None


def encode(cache: Cache, recipe: str, plans: list = None, zstd_encoded: bool = False):
    """Header and sections {kind: StoredSection} of the snapshot of a cache."""
    stages = parse(recipe)
    parameters = {stage.codec: stage.values for stage in stages}
    block_length = parameters.get("kivi", {}).get("group", 32)
    longest = max(parameters.get("kivi", {}).get("residual", 0), parameters.get("think", {}).get("recent", 0))
    residual = -(-longest // block_length) * block_length
    profiles = None
    if plans is None:
        plans, profiles = decide(cache, stages)
    first = cache.layers[0]
    d = len(first.keys[0][0])
    block_tokens = max(cache.length - residual, 0) // block_length * block_length
    header = Header(
        0, 0, cache.type.number, len(cache.layers), len(first.keys), d, len(first.queries),
        cache.length, block_tokens, block_length, residual,
    )
    store = packed if zstd_encoded else raw
    sections = {}
    if cache.metadata:
        sections[METADATA] = store(encoded_metadata(cache.metadata))
    sections[RECIPE] = store(encoded_recipe([(NUMBERS[stage.codec], stage.text.encode()) for stage in stages]))
    sections[PLAN] = raw(b"".join(plan.encoded() for heads in plans for plan in heads))
    if profiles:
        sections[PROFILE] = store(struct.pack(f"<{len(profiles)}f", *profiles))
    if block_tokens:
        sections[PAGES], table = _encode_pages(cache, header, plans, store)
        sections[PAGE_TABLE] = store(table)
    if header.window:
        data = b"".join(
            cache.type.pack(row)
            for layer in cache.layers
            for part in (layer.keys, layer.values)
            for rows in part
            for row in rows[block_tokens:]
        )
        sections[WINDOW] = store(data)
    for kind, numbers in ((TOKENS, cache.tokens), (POSITIONS, cache.positions)):
        if numbers is not None:
            sections[kind] = store(struct.pack(f"<{len(numbers)}i", *numbers))
    if cache.tokens is not None and cache.length >= PAGE_TOKENS:
        digest, chain = chain_start(header, cache.metadata), b""
        for start in range(0, cache.length - PAGE_TOKENS + 1, PAGE_TOKENS):
            whole = cache.tokens[start : start + PAGE_TOKENS]
            digest = hashlib.sha256(digest + struct.pack(f"<{PAGE_TOKENS}i", *whole)).digest()
            chain += digest
        sections[CHAIN] = raw(chain)
    return header, sections


def encoded_metadata(pairs: dict) -> bytes:
    keys = sorted(pairs, key=str.encode)
    return struct.pack("<I", len(keys)) + b"".join(encoded_pair(key, pairs[key]) for key in keys)


def encoded_recipe(stages: list) -> bytes:
    """`stages` are pairs of codec number and parameter bytes."""
    return struct.pack("<I", len(stages)) + b"".join(struct.pack("<2I", n, len(text)) + text for n, text in stages)


def _encode_pages(cache: Cache, header: Header, plans: list, store):
    g, d = header.blockLength, header.headDimension
    layouts = [[BlockLayout(plan, d, g, cache.type) for plan in heads] for heads in plans]
    slabs = Slabs(header, [[layout.length for layout in heads] for heads in layouts])
    pages, table, length = b"", b"", 0
    for chunk in range(slabs.chunks):
        for number, layer in enumerate(cache.layers):
            slab = b""
            for head in range(header.kvHeads):
                plan, layout = plans[number][head], layouts[number][head]
                for block in range(slabs.page_blocks(chunk)):
                    start = chunk * PAGE_TOKENS + block * g
                    keys, values = layer.keys[head][start : start + g], layer.values[head][start : start + g]
                    slab += blocks.encode_block(keys, values, plan, layout, cache.type)
            stored = store(slab).stored
            table += struct.pack("<2I", len(stored), crc32c(stored))
            pages += stored
            length += len(slab)
    return StoredSection(pages, length, int(store is packed)), table


def assemble(header: Header, sections: dict) -> bytes:
    """The file; `sections` may have kinds that are not known."""
    table_end = HEADER_LENGTH + ENTRY_LENGTH * len(sections)
    table, body, at = b"", b"", table_end
    for kind in sorted(sections):
        stored, length, encoding = sections[kind]
        offset = align64(at)
        checksum = 0 if kind == PAGES else crc32c(stored)
        table += struct.pack("<2I3Q2I", kind, encoding, offset, len(stored), length, checksum, 0)
        body += bytes(offset - at) + stored
        at = offset + len(stored)
    header = header._replace(fileLength=at, sectionCount=len(sections))
    data = bytearray(MAGIC + struct.pack("<2I", 1, 0) + struct.pack("<Q6I2Q2I", *header) + bytes(56) + table + body)
    seal(data)
    return bytes(data)


def seal(data: bytearray) -> None:
    """Sets the header's checksum."""
    count = struct.unpack_from("<I", data, 24)[0]
    data[12:16] = bytes(4)
    struct.pack_into("<I", data, 12, crc32c(data[: HEADER_LENGTH + ENTRY_LENGTH * count]))
