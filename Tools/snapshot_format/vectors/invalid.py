"""The invalid files, each with one fault (Formats/Vectors/README.md)."""

import struct
from typing import NamedTuple

from ..checksum import crc32c
from ..elements import F16
from ..geometry import LISTED, LayerGeometry
from ..reader import Snapshot
from ..plan import ComponentHead, compact
from ..recipe import decide
from ..sections import (
    BASES, CHAIN, GEOMETRY, HELD_TOKENS, METADATA, PAGE_TABLE, PAGES, PLAN, POSITIONS, PROFILE, QUALITY, RECIPE, SINKS,
    STATE, TOKENS, WINDOW, align64,
)
from ..writer import Plan, StoredSection, assemble, encode, encoded_metadata, encoded_recipe, encoded_state, raw, seal
from .caches import NO_CACHE, Generator, Shape, make_cache
from .invalid_archives import invalid_archives
from .valid import components


class Base:
    """A small valid file to damage."""

    def __init__(self, header, sections: dict):
        self.header, self.sections = header, sections
        self.data = assemble(header, sections)
        Snapshot(self.data).verify()

    def entry(self, kind: int) -> int:
        return 128 + 40 * sorted(self.sections).index(kind)

    def offset(self, kind: int) -> int:
        return struct.unpack_from("<Q", self.data, self.entry(kind) + 8)[0]

    def with_fields(self, *fields) -> bytes:
        """Other fields of header or table, with the right header checksum."""
        data = bytearray(self.data)
        for offset, code, number in fields:
            struct.pack_into("<" + code, data, offset, number)
        seal(data)
        return bytes(data)

    def flipped(self, offset: int) -> bytes:
        data = bytearray(self.data)
        data[offset] ^= 1
        return bytes(data)

    def with_section(self, kind: int, section) -> bytes:
        """Another content of a section, all checksums right; None leaves the section out."""
        sections = {**self.sections, kind: raw(section) if isinstance(section, bytes) else section}
        return assemble(self.header, {kind: section for kind, section in sections.items() if section})

    def with_extra(self, kind: int, content: bytes):
        """The file with a section that it has not, and the offset of that section's entry."""
        sections = {**self.sections, kind: raw(content)}
        return assemble(self.header, sections), 128 + 40 * sorted(sections).index(kind)

    def with_content(self, kind: int, *fields) -> bytes:
        """Other fields in a section."""
        content = bytearray(self.sections[kind].stored)
        for offset, code, number in fields:
            struct.pack_into("<" + code, content, offset, number)
        return self.with_section(kind, bytes(content))


def base(name, recipe, tokens, shapes, extra={}, **more) -> Base:
    cache = make_cache(name, F16, tokens, shapes, **more)
    header, sections = encode(cache, decide(cache, recipe))
    return Base(header, {**sections, **{kind: raw(data) for kind, data in extra.items()}})


class Bases(NamedTuple):
    """The files to damage. More tokens or wider heads would only make them larger."""

    window: Base  # 3 tokens, all in the window; every section that this allows
    small: Base  # the same cache with fewer sections
    pages: Base  # blocks, two layers, a section of unknown kind
    chain: Base
    zeros: Base  # as a frame
    held: Base  # layers that hold all tokens, the last, listed ones and none; all in the window; state
    sinks: Base  # a block with sinks
    empty: Base  # the second layer has no block
    no_values: Base
    no_cache: Base  # GEOMETRY and STATE alone
    components: Base  # one head, whose keys and values are components; all in the window

    @staticmethod
    def made() -> "Bases":
        pairs = {"model.id": "a"}
        few = {"token_ids": False, "metadata": {}}
        tail = "kivi(bits=2,residual=0)"
        item = {"s": b"state"}
        held = [
            Shape(1, 1, 1, sinks=2, state={"a": b"1", "b": b"22"}), Shape(1, 1, 1, rows=3),
            Shape(2, 1, 1, rows=4, listed=True, sinks=2), NO_CACHE._replace(state={"a": b"333"}),
        ]
        return Bases(
            base(
                "window", "think(keys=0.5,restore=mean)+kivi(bits=2)", 3, [Shape(query_heads=2)], queries=4,
                positions=[0, 1, 2], metadata={**pairs, "rope.theta": "10000"},
                extra={QUALITY: struct.pack("<8f", *[0.25, 0, -1, 0.5] * 2)},
            ),
            base("window", "kivi(bits=2)", 3, [Shape()], token_ids=False, metadata=pairs),
            base("pages", tail, 33, [Shape()] * 2, metadata=pairs, extra={65536: b"unknown"}),
            base("chain", "kivi(bits=2,residual=512)", 512, [Shape(1, 1, 1, rows=1)], metadata=pairs),
            zeros_base(16),
            base("held", "kivi(bits=2,residual=32)", 40, held, **few),
            base("sinks", tail, 33, [Shape(1, 1, 1, sinks=2)], **few),
            base("empty", tail, 33, [Shape(1, 1, 1), Shape(1, 1, 1, rows=1)], **few),
            base("no-values", "kivi(bits=2)", 1, [Shape(1, 2, 0)], **few),
            Base(*encode(make_cache("none", F16, 1, [NO_CACHE._replace(state=item)], **few), Plan([[]]))),
            components_base(**few),
        )


def components_base(**more) -> Base:
    cache = make_cache("components", F16, 1, [Shape(1, 4, 2)], **more)
    keys, values = components("k", 4, ((compact(4, 1), 2), (compact(1), 1))), components("v", 2, ((compact(2), 1),))
    return Base(*encode(cache, Plan([[ComponentHead(keys, values)]])))


def rle_block(byte: int, count: int, kind: int = 1) -> bytes:
    return (1 | kind << 1 | count << 3).to_bytes(3, "little") + bytes([byte])


def zeros_frame(length: int, descriptor: int = 0x60, before: bytes = b"", kind: int = 1) -> bytes:
    """A zstd frame of zeros, written by hand so that it is the same with every zstd.
    0x60: one segment, and two bytes of content size, which hold 256 less."""
    start = b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + before
    return start + struct.pack("<H", length - 256) + rle_block(0, length, kind)


def zeros_rows(generator: Generator, element_type, rows: int, d: int) -> list:
    return [[0] * d] * rows


def zeros_base(d: int) -> Base:
    """32 tokens of zeros in the window, as a frame: 11 bytes for 128 * d."""
    header, sections = zeros_sections(d, "kivi(bits=2)")
    length = sections[WINDOW].length
    sections[WINDOW] = StoredSection(zeros_frame(length), length, 1)
    return Base(header, sections)


def zeros_sections(d: int, recipe: str, layers: int = 1):
    cache = make_cache("zeros", F16, 32, [Shape(1, d, d)] * layers, metadata={}, numbers=zeros_rows)
    return encode(cache, decide(cache, recipe))


def invalid_files():
    """Name, bytes, error, offset. The offsets follow from how each file was damaged."""
    bases = Bases.made()
    window = bases.window
    yield from damaged_headers(window)
    yield from damaged_tables(bases)
    yield from damaged_checksums(bases)
    yield from damaged_metadata(bases.small)
    yield from damaged_recipes(bases.small)
    yield from damaged_geometries(bases)
    yield from damaged_plans(bases)
    yield from damaged_components(bases.components, bases.small)
    yield from damaged_frames(bases.zeros, bases.pages)
    at = window.offset(PROFILE)
    yield "profile-negative", window.with_content(PROFILE, (8, "f", -1.0)), "invalidProfile", at + 8
    yield "profile-not-finite", window.with_content(PROFILE, (0, "f", float("inf"))), "invalidProfile", at
    at = window.offset(QUALITY)
    yield "quality-negative", window.with_content(QUALITY, (20, "f", -0.5)), "invalidQuality", at + 20
    yield "quality-keys-unmeasured", window.with_content(QUALITY, (0, "f", -1.0)), "invalidQuality", at
    yield "quality-not-a-number", window.with_content(QUALITY, (12, "f", float("nan"))), "invalidQuality", at + 12
    pages = bases.pages
    at = pages.offset(PAGE_TABLE)
    length = struct.unpack_from("<I", pages.data, at)[0]
    for slab in range(2):
        for name, change in (("short", -64), ("long", 64), ("zero", -length)):
            data = pages.with_content(PAGE_TABLE, (8 * slab, "I", length + change))
            yield f"page-table-{slab}-{name}", data, "invalidPageTable", at + 8 * slab
    empty = bases.empty
    at = empty.offset(PAGE_TABLE) + 8
    yield "page-table-no-slab-length", empty.with_content(PAGE_TABLE, (8, "I", 64)), "invalidPageTable", at
    yield "page-table-no-slab-checksum", empty.with_content(PAGE_TABLE, (12, "I", 1)), "invalidPageTable", at
    yield from damaged_held_tokens(bases.held)
    yield from damaged_states(bases.held)
    chain = bases.chain
    at = chain.offset(CHAIN)
    for j in range(2):
        digest = bytearray(chain.sections[CHAIN].stored)
        digest[32 * j + 31] ^= 1
        yield f"chain-digest-{j}", chain.with_section(CHAIN, bytes(digest)), "invalidChain", at + 32 * j
    tokens = struct.pack("<512i", *range(512))
    yield "chain-other-tokens", chain.with_section(TOKENS, tokens), "invalidChain", at
    data = chain.with_section(METADATA, encoded_metadata({"model.id": "b"}))
    yield "chain-other-model", data, "invalidChain", at
    yield from invalid_archives(Base, window)
    # With two faults, of which the first in the order of checks counts.
    yield from first_of_two(bases)


def damaged_headers(window):
    size = len(window.data)
    table_end = 128 + 40 * len(window.sections)
    for name, length in (
        ("empty", 0), ("magic", 8), ("header", 127), ("table", table_end - 1), ("after-table", table_end + 1),
        ("middle", size // 2), ("last-byte", size - 1),
    ):
        yield f"truncated-{name}", window.data[:length], "truncated", length
    yield "truncated-file-length", window.with_fields((16, "Q", size + 1)), "truncated", size
    yield "truncated-file-length-huge", window.with_fields((16, "Q", 2**64 - 1)), "truncated", size
    yield "magic-first", window.flipped(0), "notASnapshot", 0
    yield "magic-last", window.flipped(7), "notASnapshot", 0
    yield "magic-line-end", window.data[:4] + b"\n" + window.data[6:] + b"\0", "notASnapshot", 0
    yield "version-0", window.with_fields((8, "I", 0)), "unsupportedVersion", 8
    yield "version-1", window.with_fields((8, "I", 1)), "unsupportedVersion", 8
    yield "version-4", window.with_fields((8, "I", 4)), "unsupportedVersion", 8
    yield "header-checksum", window.flipped(12), "headerChecksumMismatch", 12
    yield "header-checksum-field", window.flipped(48), "headerChecksumMismatch", 12
    yield "header-checksum-reserved", window.flipped(127), "headerChecksumMismatch", 12
    yield "header-checksum-table", window.flipped(table_end - 1), "headerChecksumMismatch", 12
    yield "header-longer-file", window.data + b"\0", "invalidHeader", 16
    yield "header-file-length", window.with_fields((16, "Q", size - 1)), "invalidHeader", 16
    # Written without a new checksum: the count is checked before it, and says what it covers.
    for count in (0, 1, 65):
        data = bytearray(window.data)
        struct.pack_into("<I", data, 24, count)
        yield f"header-section-count-{count}", bytes(data), "invalidHeader", 24
    data = bytearray(window.data)
    struct.pack_into("<I", data, 24, 64)
    yield "truncated-section-count", bytes(data), "truncated", size
    for name, at, code, number in (
        ("element-type-0", 28, "I", 0),
        ("element-type-4", 28, "I", 4),
        ("layers-0", 32, "I", 0),
        ("layers-4097", 32, "I", 4097),
        ("block-length-0", 36, "I", 0),
        ("block-length-16", 36, "I", 16),
        ("block-length-256", 36, "I", 256),
        ("residual-window-65537", 40, "I", 65537),
        ("residual-window-huge", 40, "I", 2**32 - 1),
        ("reserved-44", 44, "I", 1 << 31),
        ("tokens-0", 48, "Q", 0),
        ("tokens-2147483648", 48, "Q", 1 << 31),
        ("tokens-huge", 48, "Q", 2**64 - 1),
        ("reserved-first", 56, "B", 1),
        ("reserved-last", 127, "B", 1),
    ):
        yield f"header-{name}", window.with_fields((at, code, number)), "invalidHeader", 56 if at > 56 else at


def raw_frame(data: bytes) -> StoredSection:
    """A zstd frame with the bytes as they are: one segment, and two bytes of content size."""
    blocks = (1 | len(data) << 3).to_bytes(3, "little") + data
    frame = b"\x28\xb5\x2f\xfd\x60" + struct.pack("<H", len(data) - 256) + blocks
    return StoredSection(frame, len(data), 1)


def damaged_tables(bases):
    window, pages, chain, held = bases.window, bases.pages, bases.chain, bases.held

    def case(name, base, kind, field, code, number):
        entry = base.entry(kind)
        return f"table-{name}", base.with_fields((entry + field, code, number)), "invalidSectionTable", entry

    size, at = len(window.data), window.offset(PLAN)
    yield case("kind-0", window, METADATA, 0, "I", 0)
    yield case("kind-unknown", window, POSITIONS, 0, "I", 21)
    yield case("kind-65535", pages, 65536, 0, "I", 65535)
    yield case("kind-twice", window, PLAN, 0, "I", GEOMETRY)
    yield case("kind-descending", window, TOKENS, 0, "I", PLAN)
    yield case("coding-2", window, WINDOW, 4, "I", 2)
    yield case("coding-unknown-kind", pages, 65536, 4, "I", 2)
    yield case("offset-first", window, METADATA, 8, "Q", window.offset(METADATA) + 64)
    yield case("offset-early", window, PLAN, 8, "Q", at - 64)
    yield case("offset-unaligned", window, PLAN, 8, "Q", at + 1)
    yield case("offset-huge", window, PLAN, 8, "Q", 2**64 - 64)
    yield case("stored-length-0", window, RECIPE, 16, "Q", 0)
    yield case("stored-length-beyond", window, POSITIONS, 16, "Q", 13)
    yield case("stored-length-huge", window, POSITIONS, 16, "Q", 2**64 - 1)
    yield case("length-raw", window, PLAN, 24, "Q", window.sections[PLAN].length + 1)
    entry = bases.zeros.entry(WINDOW)
    data = bases.zeros.with_fields((entry + 24, "Q", 1 << 63))
    yield "table-length-9223372036854775808", data, "invalidSectionTable", entry
    yield case("pages-checksum", pages, PAGES, 32, "I", 1)
    yield case("reserved", window, PROFILE, 36, "I", 1)
    for kind, name in ((GEOMETRY, "geometry"), (PLAN, "plan")):
        data = window.with_section(kind, raw_frame(window.sections[kind].stored.ljust(256, b"\0")))
        yield f"table-{name}-coded", data, "invalidSectionTable", window.entry(kind)
    for base, kind, name in (
        (window, GEOMETRY, "geometry"), (window, PROFILE, "profile"), (window, QUALITY, "quality"),
        (window, WINDOW, "window"), (window, TOKENS, "tokens"), (window, POSITIONS, "positions"),
        (pages, PAGES, "pages"), (pages, PAGE_TABLE, "page-table"), (bases.sinks, SINKS, "sinks"),
        (held, HELD_TOKENS, "held-tokens"), (chain, CHAIN, "chain"),
    ):
        for change, longer in (("short", -2), ("long", 2)):
            content = base.sections[kind].stored
            content = content[:longer] if longer < 0 else content + bytes(longer)
            yield f"table-length-{name}-{change}", base.with_section(kind, content), "invalidSectionTable", base.entry(kind)
    for base, kind, name in (
        (window, GEOMETRY, "geometry"), (window, PLAN, "plan"), (pages, PAGES, "pages"),
        (pages, PAGE_TABLE, "page-table"), (bases.sinks, SINKS, "sinks"), (window, WINDOW, "window"),
        (pages, WINDOW, "pages-window"), (held, HELD_TOKENS, "held-tokens"), (chain, CHAIN, "chain"),
    ):
        yield f"table-missing-{name}", base.with_section(kind, None), "invalidSectionTable", 24
    for base, kind, name, content in (
        (bases.no_cache, PLAN, "plan-without-heads", window.sections[PLAN].stored),
        (bases.no_cache, PROFILE, "profile-without-heads", bytes(4)),
        (window, PAGES, "pages-without-blocks", pages.sections[PAGES].stored),
        (window, PAGE_TABLE, "page-table-without-blocks", bytes(8)),
        (pages, SINKS, "sinks-without-sinks", bytes(16)),
        (held, SINKS, "sinks-in-window", bytes(4)),
        (bases.no_cache, WINDOW, "window-without-rows", bytes(4)),
        (window, HELD_TOKENS, "held-tokens-without-lists", bytes(12)),
        (window, CHAIN, "chain-of-few-tokens", bytes(32)),
    ):
        data, entry = base.with_extra(kind, content)
        yield f"table-{name}", data, "invalidSectionTable", entry
    yield "table-chain-without-tokens", chain.with_section(TOKENS, None), "invalidSectionTable", chain.entry(CHAIN) - 40
    data = bytearray(window.data + bytes(64))
    struct.pack_into("<Q", data, 16, size + 64)
    seal(data)
    yield "table-file-goes-on", bytes(data), "invalidSectionTable", window.entry(POSITIONS)


def damaged_checksums(bases):
    window, pages, chain, held = bases.window, bases.pages, bases.chain, bases.held
    for base, kind, name in (
        (window, METADATA, "metadata"), (window, RECIPE, "recipe"), (window, GEOMETRY, "geometry"),
        (window, PLAN, "plan"), (window, PROFILE, "profile"), (window, QUALITY, "quality"),
        (pages, PAGE_TABLE, "page-table"), (bases.sinks, SINKS, "sinks"), (window, WINDOW, "window"),
        (held, HELD_TOKENS, "held-tokens"), (held, STATE, "state"), (window, TOKENS, "tokens"),
        (window, POSITIONS, "positions"), (chain, CHAIN, "chain"), (pages, 65536, "unknown"),
    ):
        at = base.offset(kind)
        yield f"checksum-{name}", base.flipped(at + base.sections[kind].length - 1), "checksumMismatch", at
    at, slab = pages.offset(PAGES), pages.sections[PAGES].length // 2
    yield "checksum-slab-0", pages.flipped(at + slab - 1), "checksumMismatch", at
    yield "checksum-slab-1", pages.flipped(at + slab + 1), "checksumMismatch", at + slab
    for name, base, at in (
        ("table-first", chain, 128 + 40 * len(chain.sections)),
        ("table-last", chain, chain.offset(METADATA) - 1),
        ("recipe", chain, chain.offset(GEOMETRY) - 1),
        ("geometry", chain, chain.offset(GEOMETRY) + chain.sections[GEOMETRY].length),
        ("plan", chain, chain.offset(PLAN) + chain.sections[PLAN].length),
        ("page-table", pages, pages.offset(WINDOW) - 1),
        ("tokens", pages, pages.offset(65536) - 1),
        ("held-tokens", held, held.offset(STATE) - 1),
    ):
        yield f"padding-after-{name}", base.flipped(at), "invalidPadding", at


def damaged_metadata(small):
    at = small.offset(METADATA)

    def case(name, content, offset):
        return f"metadata-{name}", small.with_section(METADATA, content), "invalidMetadata", at + offset

    def pairs(*texts, count=None):
        parts = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        return struct.pack("<I", len(texts) // 2 if count is None else count) + parts

    # A pair of one-byte texts has 10 bytes: length, key, length, value.
    yield case("count-0", pairs(), 0)
    yield case("count-1025", pairs(*(part for n in range(1025) for part in (b"%04d" % n, b""))), 0)
    yield case("ends-early", pairs(b"a", b"1", count=2), 14)
    yield case("empty", b"\0", 0)
    yield case("key-empty", pairs(b"", b"1"), 4)
    yield case("key-long", pairs(b"k" * 257, b"1"), 4)
    yield case("key-beyond", struct.pack("<2I", 1, 200) + b"k" * 100, 4)
    yield case("value-beyond", struct.pack("<2I", 1, 1) + b"a" + struct.pack("<I", 2**32 - 1), 9)
    yield case("descending", pairs(b"b", b"1", b"a", b"2"), 18)
    yield case("twice", pairs(b"a", b"1", b"a", b"2"), 18)
    yield case("key-utf8", pairs(b"\xffk", b"1"), 8)
    yield case("value-utf8", pairs(b"a", b"v\xc3"), 13)
    yield case("value-surrogate", pairs(b"a", b"\xed\xa0\x80"), 13)
    yield case("value-overlong", pairs(b"a", b"\xc0\x80"), 13)
    yield case("trailing", pairs(b"a", b"1") + b"\0", 14)


def damaged_recipes(small):
    at = small.offset(RECIPE)

    def case(name, content, offset):
        return f"recipe-{name}", small.with_section(RECIPE, content), "invalidRecipe", at + offset

    def stage(name, text, offset=12):
        return case(name, struct.pack("<3I", 1, 4, len(text)) + text, offset)

    good = encoded_recipe([(4, "kivi")])
    yield case("count-0", encoded_recipe([]), 0)
    yield case("count-9", encoded_recipe([(1, "f16")] * 9), 0)
    yield case("ends-early", struct.pack("<I", 2) + good[4:], len(good))
    yield case("ends-in-number", struct.pack("<I", 2) + good[4:] + b"\4\0", len(good))
    yield case("trailing", good + b"\0", len(good))
    yield stage("text-empty", b"", 8)
    yield stage("text-long", b"kivi(" + b"x" * 1020, 8)
    yield case("text-beyond", struct.pack("<3I", 1, 4, 100) + b"kivi(bits=2)", 8)
    yield case("text-huge", struct.pack("<3I", 1, 4, 2**32 - 1) + b"kivi(bits=2)", 8)
    yield stage("not-ascii", "kivi(bits=２)".encode())
    yield stage("not-printable", b"kivi\n")
    yield stage("delete", b"kivi\x7f")


def damaged_geometries(bases):
    small, pages, held, sinks = bases.small, bases.pages, bases.held, bases.sinks

    def case(name, base, layer, wrong, **fields):
        """A layer with other fields; wrong is the one that must be named."""
        index = LayerGeometry._fields.index
        changes = [
            (40 * layer + LayerGeometry.OFFSETS[index(field)], LayerGeometry.FORMAT[-1] if index(field) > 5 else "I", x)
            for field, x in fields.items()
        ]
        offset = base.offset(GEOMETRY) + 40 * layer + LayerGeometry.OFFSETS[index(wrong)]
        return f"geometry-{name}", base.with_content(GEOMETRY, *changes), "invalidGeometry", offset

    # `small`: 1 KV head, unknown query heads, dimensions of 4, 3 tokens, a residual window of 128.
    yield case("kv-heads-0", small, 0, "held", kvHeads=0)
    yield case("kv-heads-1025", small, 0, "kvHeads", kvHeads=1025)
    yield case("kv-heads-huge", small, 0, "kvHeads", kvHeads=2**32 - 1)
    yield case("query-heads-65537", small, 0, "queryHeads", queryHeads=65537)
    yield case("query-heads-multiple", small, 0, "queryHeads", kvHeads=2, queryHeads=3)
    yield case("query-heads-without-kv-heads", small, 0, "queryHeads", kvHeads=0, queryHeads=2)
    yield case("key-dimension-0", small, 0, "held", keyDimension=0)
    yield case("key-dimension-1025", small, 0, "keyDimension", keyDimension=1025)
    yield case("value-dimension-1025", small, 0, "valueDimension", valueDimension=1025)
    yield case("held-4", small, 0, "held", held=4)
    yield case("held-huge", small, 0, "held", held=2**32 - 1)
    yield case("sinks-65", small, 0, "sinks", sinks=65)
    yield case("all-too-few", small, 0, "heldTokens", heldTokens=2)
    yield case("all-too-many", small, 0, "heldTokens", heldTokens=4)
    # `held`: 40 tokens, of which the layers hold all, the last 3, 4 of a list, and none.
    yield case("last-0", held, 1, "heldTokens", heldTokens=0)
    yield case("last-all", held, 1, "heldTokens", heldTokens=40)
    yield case("last-huge", held, 1, "heldTokens", heldTokens=2**64 - 1)
    yield case("last-sinks", held, 1, "sinks", sinks=1)
    yield case("listed-0", held, 2, "heldTokens", heldTokens=0, sinks=0)
    yield case("listed-beyond", held, 2, "heldTokens", heldTokens=41)
    yield case("listed-fewer-than-sinks", held, 2, "heldTokens", sinks=5)
    yield case("listed-fewer-than-64-sinks", held, 2, "heldTokens", heldTokens=40, sinks=64)
    yield case("none-kv-heads", held, 3, "held", kvHeads=1)
    yield case("none-key-dimension", held, 3, "held", keyDimension=1)
    yield case("none-value-dimension", held, 3, "held", valueDimension=1)
    yield case("none-sinks", held, 3, "sinks", sinks=1)
    yield case("none-held-tokens", held, 3, "heldTokens", heldTokens=1)
    yield case("none-block-tokens", held, 3, "blockTokens", blockTokens=32)
    # `pages`: 33 tokens, a residual window of 0, so exactly 32 must be in blocks.
    yield case("block-tokens-multiple", pages, 0, "blockTokens", blockTokens=31)
    yield case("block-tokens-beyond", pages, 0, "blockTokens", blockTokens=64)
    yield case("block-tokens-huge", pages, 1, "blockTokens", blockTokens=2**64 - 32)
    yield case("window-too-long", pages, 1, "blockTokens", blockTokens=0)
    yield case("block-tokens-differ", held, 1, "blockTokens", blockTokens=32)
    yield case("block-tokens-beyond-list", held, 2, "blockTokens", blockTokens=32)
    listed = {"held": LISTED, "sinks": 0, "heldTokens": 32, "blockTokens": 0}
    yield case("window-of-list-too-long", sinks, 0, "blockTokens", **listed)


def damaged_plans(bases):
    """Key dimension 4, one head: its plan is the whole section."""
    none, two, four, eight = (0, 0, 0, 0), (2, 1, 0, 0), (4, 1, 0, 0), (8, 1, 0, 0)
    compact, rotated = (2, 2, 0, 0), (2, 2, 0, 1)

    def content(runs, channels, values=two, run_count=None, mean_count=0, means=()):
        """Offsets: runs from 8 on, 8 bytes each, count at 4; then channels."""
        data = struct.pack("<2H4B", len(runs) if run_count is None else run_count, mean_count, *values)
        data += b"".join(struct.pack("<4BI", *coding, count) for coding, count in runs)
        return data + struct.pack(f"<{len(channels)}H{len(means)}f", *channels, *means)

    def case(name, data, offset, base=bases.small):
        return f"plan-{name}", base.with_section(PLAN, data), "invalidPlan", base.offset(PLAN) + offset

    def coding(name, coding, byte):
        yield case(f"value-{name}", content([(two, 2)], [0, 1], values=coding), 4 + byte)
        yield case(name, content([(two, 1), (coding, 1)], [0, 1]), 16 + byte)

    yield case("run-count-0", content([], []), 0)
    runs = [(two, 1), (four, 1), (eight, 1), (none, 1), ((2, 1, 1, 0), 1)]
    yield case("run-count-5", content(runs, [0, 1, 2, 3, 3, 0]), 0)
    yield case("mean-count-1", content([(two, 2)], [0, 1], mean_count=1, means=[0.5]), 2)
    yield case("mean-count-of-none", content([(two, 4)], [0, 1, 2, 3], mean_count=1, means=[0.5]), 2)
    yield case("mean-count-0-of-compact", content([(compact, 4)], [0, 1, 2, 3]), 2)
    data = content([(compact, 1), (two, 1)], [0, 1], mean_count=2, means=[0.5, 0.5])
    yield case("mean-count-of-pruned-alone", data, 2)
    data = content([(compact, 1), (two, 1)], [0, 1], mean_count=1, means=[0.5])
    yield case("mean-count-of-compact-alone", data, 2)
    data = content([(compact, 1), (two, 1)], [0, 1], mean_count=4, means=[0.5] * 4)
    yield case("mean-count-of-all", data, 2)
    data = content([(two, 4)], [0, 1, 2, 3], values=compact, mean_count=4, means=[0.5] * 8)
    yield case("mean-count-of-values", data, 2)
    yield from coding("width-6", (6, 1, 0, 0), 0)
    yield from coding("width-7", (7, 2, 0, 0), 0)
    yield from coding("width-16", (16, 1, 0, 0), 0)
    yield from coding("scales-0", (4, 0, 0, 0), 1)
    yield from coding("scales-3", (4, 3, 0, 0), 1)
    yield from coding("rotation-1", (4, 1, 0, 1), 3)
    yield from coding("rotation-2", (4, 2, 0, 2), 3)
    yield case("rotation-of-keys", content([(rotated, 4)], [0, 1, 2, 3], mean_count=4, means=[0.5] * 4), 11)
    yield from coding("full-scales", (0, 1, 0, 0), 1)
    yield from coding("full-scales-2", (0, 2, 0, 0), 1)
    yield from coding("full-ranges", (0, 0, 1, 0), 2)
    yield from coding("full-rotation", (0, 0, 0, 1), 3)
    yield case("value-width-of-no-values", content([(two, 2)], [0, 1]), 4, bases.no_values)
    yield case("coding-twice", content([(two, 1), (two, 1)], [0, 1]), 16)
    yield case("coding-twice-apart", content([(none, 1), (two, 1), (none, 1)], [0, 1, 2, 0]), 24)
    yield case("count-0", content([(two, 0)], []), 12)
    yield case("count-second-0", content([(two, 2), (four, 0)], [0, 1]), 20)
    yield case("count-5", content([(two, 5)], [0, 1, 2, 3, 4, 0]), 12)
    yield case("count-sum", content([(two, 2), (four, 3)], [0, 1, 2, 3, 0, 0]), 20)
    yield case("count-huge", content([(two, 2**32 - 1)], [0, 1]), 12)
    yield case("count-sum-huge", content([(two, 2), (four, 2**32 - 1)], [0, 1]), 20)
    yield case("channel-beyond", content([(two, 2)], [0, 4]), 18)
    yield case("channel-twice", content([(two, 2)], [1, 1]), 18)
    yield case("channel-in-two-runs", content([(two, 2), (four, 2)], [0, 2, 1, 2]), 30)
    yield case("channel-descending", content([(two, 2)], [3, 1]), 18)
    yield case("padding", content([(two, 3)], [0, 1, 2, 1]), 22)
    yield case("mean-nan", content([(two, 2)], [0, 1], mean_count=2, means=[0.5, float("nan")]), 24)
    yield case("mean-infinite", content([(two, 2)], [0, 1], mean_count=2, means=[float("-inf"), 0.5]), 20)
    data = content([(compact, 4)], [0, 1, 2, 3], mean_count=4, means=[0.5, 0.5, 0.5, float("inf")])
    yield case("compact-mean-infinite", data, 36)
    data = content([(compact, 4)], [0, 1, 2, 3], mean_count=4, means=[0.5, 0.5, -65536.0, 0.5])
    yield case("compact-mean-too-large", data, 32)
    values = ("nan", compact, float("nan")), ("infinite", rotated, float("inf")), ("too-large", rotated, 65536.0)
    for name, coding, x in values:
        data = content([(two, 2)], [0, 1], values=coding, means=[0.5, 0.5, x, 0.5])
        yield case(f"value-mean-{name}", data, 28)
    whole = content([(two, 2)], [0, 1], values=rotated, mean_count=2, means=[0.5] * 6)
    yield case("trailing-value-means", whole + b"\0", 44)
    yield case("ends-before-value-means", whole[:28], 28)
    yield case("ends-in-value-means", whole[:38], 36)
    yield from damaged_value_channels(case, bases)
    whole = content([(two, 2)], [0, 1], mean_count=2, means=[0.5, 0.5])
    yield case("trailing", whole + b"\0", 28)
    for name, length, offset in (
        ("head", 3, 2), ("value-coding", 6, 6), ("coding", 9, 9), ("count", 14, 12), ("channels", 19, 18),
        ("means", 26, 24),
    ):
        yield case(f"ends-in-{name}", whole[:length], offset)


def damaged_held_tokens(held):
    """Two heads of 4 tokens of 40, 2 of them sinks."""
    at = held.offset(HELD_TOKENS)

    def case(name, index, *tokens):
        content = struct.pack("<8I", *tokens)
        return f"held-tokens-{name}", held.with_section(HELD_TOKENS, content), "invalidHeldTokens", at + 4 * index

    yield case("twice", 3, 0, 1, 9, 9, 0, 1, 2, 3)
    yield case("descending", 7, 0, 1, 8, 9, 0, 1, 3, 2)
    yield case("beyond", 7, 0, 1, 8, 9, 0, 1, 2, 40)
    yield case("huge", 2, 0, 1, 2**32 - 1, 9, 0, 1, 2, 3)
    yield case("without-sinks", 0, 1, 2, 8, 9, 0, 1, 2, 3)
    yield case("without-second-sink", 1, 0, 2, 8, 9, 0, 1, 2, 3)
    yield case("second-head-without-sinks", 4, 0, 1, 8, 9, 5, 6, 7, 8)
    yield case("sinks-descending", 5, 0, 1, 8, 9, 0, 0, 1, 2)


def damaged_states(held):
    """Four layers."""
    at = held.offset(STATE)

    def case(name, content, offset):
        return f"state-{name}", held.with_section(STATE, content), "invalidState", at + offset

    def listed(*items, count=None, reserved=0):
        """The list alone, of layer, name and length. An item of a one-byte name has 17 bytes: its
        layer at 0, the name's length at 4, the name at 8, its length at 9."""
        data = struct.pack("<2I", len(items) if count is None else count, reserved)
        for layer, name, length in items:
            data += struct.pack("<2I", layer, len(name)) + name + struct.pack("<Q", length)
        return data

    good = encoded_state([(0, "a", b"1"), (3, "b", b"22")])
    yield case("count-0", listed(), 0)
    yield case("count-65537", listed((0, b"a", 0), count=65537), 0)
    yield case("reserved", listed((0, b"a", 0), reserved=1).ljust(64, b"\0"), 4)
    yield case("ends-early", listed((0, b"a", 0), count=2), 25)
    yield case("ends-in-length", listed((0, b"a", 0))[:-1], 17)
    yield case("empty", b"\0", 0)
    yield case("layer-beyond", listed((4, b"a", 0)).ljust(64, b"\0"), 8)
    yield case("layer-descending", listed((1, b"a", 0), (0, b"b", 0)).ljust(64, b"\0"), 25)
    yield case("name-empty", listed((0, b"", 0)).ljust(64, b"\0"), 12)
    yield case("name-long", listed((0, b"n" * 257, 0)).ljust(320, b"\0"), 12)
    yield case("name-beyond", struct.pack("<4I", 1, 0, 0, 100) + b"n" * 50, 12)
    yield case("name-utf8", listed((0, b"\xff", 0)).ljust(64, b"\0"), 16)
    yield case("name-descending", listed((1, b"b", 0), (1, b"a", 0)).ljust(64, b"\0"), 33)
    yield case("name-twice", listed((1, b"a", 0), (1, b"a", 0)).ljust(64, b"\0"), 33)
    yield case("name-shorter", listed((1, b"ab", 0), (1, b"a", 0)).ljust(64, b"\0"), 34)
    pair = [(0, "e\u0301", b""), (0, "\u00e9", b"")]
    yield case("names-equivalent", encoded_state(pair), 0)
    yield case("length-beyond", good[:-1], 25 + 9)
    yield case("length-huge", listed((0, b"a", 2**64 - 1)).ljust(128, b"\0"), 17)
    yield case("length-of-nothing", listed((0, b"a", 0)), 17)
    yield case("padding-first", good[:45] + b"\1" + good[46:], 45)
    yield case("padding-between", good[:127] + b"\1" + good[128:], 127)
    yield case("trailing", good + b"\0", len(good))


def value_list(pruning, *numbers, values=(2, 1, 0, 0), means=()):
    """A head's plan of key channels 0 and 1 whose list of value channels, from 20 on, is the numbers."""
    data = struct.pack("<2BH4B", 1, pruning, 0, *values) + struct.pack("<4BI2H", 2, 1, 0, 0, 2, 0, 1)
    return data + struct.pack(f"<{len(numbers)}H{len(means)}f", *numbers, *means)


def damaged_value_channels(case, bases):
    """Value dimension 4, but for one base, which has none."""
    compact = (2, 2, 0, 0)
    yield case("value-channels-3", value_list(3, 3, 0, 1, 2), 1)
    yield case("value-channels-of-no-values", value_list(1, 3, 0, 1, 2, values=(0, 0, 0, 0)), 1, bases.no_values)
    yield case("value-channel-count-0", value_list(1, 0, 0), 20)
    yield case("value-channel-count-of-all", value_list(2, 4, 0, 1, 2, 3, 0), 20)
    yield case("value-channel-count-huge", value_list(1, 65535, 0, 1, 2), 20)
    yield case("value-channel-beyond", value_list(1, 3, 0, 1, 4), 26)
    yield case("value-channel-twice", value_list(1, 3, 0, 2, 2), 26)
    yield case("value-channel-descending", value_list(1, 3, 1, 0, 2), 24)
    yield case("value-channel-padding", value_list(1, 2, 0, 1, 1), 26)
    yield case("ends-before-value-channels", value_list(1), 20)
    yield case("ends-in-value-channel-count", value_list(1, 3)[:21], 20)
    yield case("ends-in-value-channels", value_list(1, 3, 0, 1)[:25], 24)
    yield case("ends-before-value-channel-padding", value_list(1, 2, 0, 1), 26)
    yield case("ends-before-pruned-value-means", value_list(2, 3, 0, 1, 2), 28)
    yield case("pruned-value-mean-nan", value_list(2, 1, 2, means=[0.5, 0.5, float("nan")]), 32)
    data = value_list(2, 1, 2, values=compact, means=[0.5, 0.5, 0.5, 65536.0])
    yield case("pruned-value-mean-too-large", data, 36)
    yield case("value-means-of-zeros", value_list(1, 3, 0, 1, 2, means=[0.5]), 28)
    yield case("value-means-of-kept-alone", value_list(2, 3, 0, 1, 2, values=compact, means=[0.5] * 3), 40)


def damaged_components(base, without):
    """Keys of dimension 4 in runs of 2 and 1 components, values of dimension 2 in one of 1."""
    at, length = base.offset(BASES), base.sections[BASES].length
    numbers = 4 + 2 * 8
    values = numbers + 4 * (4 + 4 + 3) + 12

    def case(name, offset, *fields):
        return f"bases-{name}", base.with_content(BASES, *fields), "invalidBases", at + offset

    yield case("run-count-0", 0, (0, "B", 0))
    yield case("run-count-5", 0, (0, "B", 5))
    yield case("padding", 3, (3, "B", 1))
    yield case("width-6", 4, (4, "B", 6))
    yield case("full-precision", 4, (4, "I", 0))
    yield case("scales-0", 5, (5, "B", 0))
    yield case("rotated", 7, (7, "B", 1))
    yield case("count-0", 8, (8, "I", 0))
    yield case("count-5", 8, (8, "I", 5))
    yield case("twice", 12, (12, "I", compact(4, 1).width | 2 << 8 | 1 << 16))
    yield case("count-passes", 16, (16, "I", 3))
    yield case("mean-nan", numbers + 4, (numbers + 4, "f", float("nan")))
    yield case("mean-too-large", numbers + 12, (numbers + 12, "f", -65536.0))
    yield case("weight-0", numbers + 16, (numbers + 16, "f", 0.0))
    yield case("weight-infinite", numbers + 28, (numbers + 28, "f", float("inf")))
    yield case("scale-negative", numbers + 40, (numbers + 40, "f", -1.0))
    yield case("values-run-count-0", values, (values, "B", 0))
    yield case("end-padding", length - 1, (length - 1, "B", 1))
    content = base.sections[BASES].stored
    for name, cut, offset in (
        ("runs", 10, 8), ("means", numbers + 6, numbers + 4), ("weights", numbers + 16, numbers + 16),
        ("scales", numbers + 34, numbers + 32), ("matrix", values - 1, values - 1), ("values", values, values),
    ):
        yield f"bases-ends-in-{name}", base.with_section(BASES, content[:cut]), "invalidBases", at + offset
    yield "bases-trailing", base.with_section(BASES, content + bytes(4)), "invalidBases", at + length
    start = base.offset(PLAN)
    yield "plan-of-bases-not-zero", base.with_content(PLAN, (6, "B", 1)), "invalidPlan", start + 6
    alone = {kind: section for kind, section in base.sections.items() if kind != BASES}
    data = assemble(base.header, alone)
    entry = 128 + 40 * sorted(alone).index(PLAN)
    yield "bases-missing", data, "invalidPlan", struct.unpack_from("<Q", data, entry + 8)[0]
    yield "table-bases-in-version-2", base.with_fields((8, "I", 2)), "invalidSectionTable", base.entry(BASES)
    data, entry = without.with_extra(BASES, bytes(4))
    at = struct.unpack_from("<Q", data, entry + 8)[0]
    yield "bases-of-no-head", data, "invalidBases", at


def first_of_two(bases):
    """Files with two faults each: readers must check fields in the order of the text."""
    two, wrong = (2, 1, 0, 0), (6, 1, 0, 0)
    nan = float("nan")

    def plan(name, offset, runs, *rest, values=two, means=0, pruning=0, base=bases.small):
        """A head of key dimension 4; runs, of coding and count, from 8 on, then what is packed as `rest` says."""
        data = struct.pack("<2BH4B", len(runs), pruning, means, *values)
        data += b"".join(struct.pack("<4BI", *coding, count) for coding, count in runs)
        data += b"".join(struct.pack("<" + code, *numbers) for code, *numbers in rest)
        return f"order-plan-{name}", base.with_section(PLAN, data), "invalidPlan", base.offset(PLAN) + offset

    yield plan("values-then-run", 4, [(wrong, 2)], ("2H", 0, 1), base=bases.no_values)
    yield plan("values-byte-then-dimension", 5, [(two, 2)], ("2H", 0, 1), values=(2, 3, 0, 0), base=bases.no_values)
    yield plan("values-rotation-then-dimension", 7, [(two, 2)], ("2H", 0, 1), values=(2, 1, 0, 1), base=bases.no_values)
    yield plan("rotation-then-count", 11, [((2, 2, 0, 1), 0)], ("2H", 0, 1))
    yield plan("mean-then-value-mean", 20, [(two, 2)], ("2H6f", 0, 1, nan, 0, nan, 0, 0, 0), values=(2, 2, 0, 0), means=2)
    yield plan("means-then-value-mean", 2, [(two, 2)], ("2H4f", 0, 1, nan, 0, 0, 0), values=(2, 2, 0, 0), means=1)
    yield plan("count-then-coding", 12, [(two, 0), (wrong, 2)], ("2H", 0, 1))
    yield plan("coding-byte-then-twice", 19, [(two, 1), (two[:3] + (1,), 1)], ("2H", 0, 1))
    yield plan("twice-then-count", 16, [(two, 1), (two, 9)], ("2H", 0, 1))
    yield plan("count-then-means", 12, [(two, 5)], ("2H", 0, 1), means=3)
    yield plan("means-then-channel", 2, [(two, 2)], ("2H", 9, 9), means=3)
    yield plan("padding-then-mean", 22, [(two, 3)], ("4H", 0, 1, 2, 1), ("f", nan), means=1)
    yield plan("channel-then-padding", 16, [(two, 3)], ("4H", 9, 1, 2, 1))
    yield plan("padding-then-value-channels", 22, [(two, 3)], ("6H", 0, 1, 2, 1, 0, 0), pruning=1)
    yield plan("value-channels-then-means", 1, [(two, 2)], ("2H", 0, 1), pruning=3, means=3)
    yield plan("means-then-value-channel-count", 2, [(two, 2)], ("4H", 0, 1, 0, 0), pruning=1, means=3)
    yield plan("value-channel-count-then-mean", 20, [(two, 2)], ("4H2f", 0, 1, 0, 0, nan, nan), pruning=1, means=2)
    yield plan("value-channel-then-padding", 24, [(two, 2)], ("6H", 0, 1, 2, 1, 1, 1), pruning=1)
    # The second fault is that the section ends.
    small = bases.small

    def cut(name, length, *arguments, **more):
        name, data, error, at = plan(name, *arguments, **more)
        start = small.offset(PLAN)
        return name, small.with_section(PLAN, data[start : start + length]), error, at

    yield cut("values-then-end", 5, 4, [(two, 2)], values=wrong)
    yield cut("coding-then-end", 10, 9, [((2, 3, 0, 0), 2)])
    yield cut("count-then-end", 16, 12, [(two, 9), (two, 1)])
    yield cut("twice-then-end", 20, 16, [(two, 1), (two, 1)])
    yield cut("means-then-end", 16, 2, [(two, 2)], means=3)
    yield cut("channel-then-end", 18, 16, [(two, 2)], ("2H", 9, 1))
    yield cut("padding-then-end", 24, 22, [(two, 3)], ("4H", 0, 1, 2, 1), means=1)
    yield cut("mean-then-end", 24, 20, [(two, 2)], ("2H2f", 0, 1, nan, 0), means=2)
    yield cut("value-mean-then-end", 28, 24, [(two, 2)], ("2H2f", 0, 1, 0, nan), values=(2, 2, 0, 0))

    held = bases.held
    at = held.offset(STATE)

    def state(name, offset, *items, end=b""):
        data = struct.pack("<2I", len(items), 0) + b"".join(
            struct.pack("<2I", layer, size) + text + struct.pack("<Q", length) for layer, size, text, length in items
        )
        return f"order-state-{name}", held.with_section(STATE, data + end), "invalidState", at + offset

    yield state("layer-then-name", 25, (1, 1, b"a", 0), (0, 9999, b"b", 0))
    yield state("name-then-end", 33, (1, 1, b"b", 0), (1, 1, b"a", 0))
    yield state("layer-then-length", 25, (1, 1, b"a", 2**63), (0, 1, b"b", 0))
    yield state("length-then-length", 17, (0, 1, b"a", 2**64 - 1), (1, 1, b"b", 2**63))
    # Zeros up to 64, and one more byte for an item of 2.
    yield state("padding-then-length", 63, (0, 1, b"a", 1), (1, 1, b"b", 2**63), end=bytes(21) + b"\1" + b"a")

    pages = bases.pages
    data = bytearray(pages.flipped(pages.offset(PAGES)))
    data[pages.offset(65536) - 1] = 1
    yield "order-slab-then-padding", bytes(data), "checksumMismatch", pages.offset(PAGES)
    data[pages.offset(PAGES) - 1] = 1
    yield "order-padding-then-slab", bytes(data), "invalidPadding", pages.offset(PAGES) - 1


def damaged_frames(zeros, pages):
    at, length = zeros.offset(WINDOW), zeros.sections[WINDOW].length
    good = zeros_frame(length)
    empty = b"\x28\xb5\x2f\xfd\x20\0\x01\0\0"
    for name, frame in (
        ("magic", b"\x27" + good[1:]),
        ("block-type", zeros_frame(length, kind=3)),
        ("cut-off", good[:-1]),
        ("content-checksum", zeros_frame(length, 0x64) + b"\0\0\0\0"),
        ("content-short", zeros_frame(length - 1)),
        ("content-long", zeros_frame(length + 1)),
        ("dictionary", zeros_frame(length, 0x61, b"\x01")),
        ("two-frames", good + empty),
        ("skippable-frame", struct.pack("<2I", 0x184D2A50, 0) + good),
        ("trailing", good + b"\0"),
    ):
        yield f"frame-{name}", zeros.with_section(WINDOW, StoredSection(frame, length, 1)), "invalidFrame", at
    # Whatever is in the frame: the lengths alone are wrong.
    header, sections = zeros_sections(32, "kivi(bits=2)")
    sections[WINDOW] = StoredSection(zeros_frame(2 * length), 2 * length, 1)
    yield "table-length-372-times", assemble(header, sections), "invalidSectionTable", zeros.entry(WINDOW)
    entry, stored = pages.entry(65536), pages.sections[65536].length
    data = pages.with_fields((entry + 4, "I", 1), (entry + 24, "Q", 256 * stored + 1))
    yield "table-length-unknown-257-times", data, "invalidSectionTable", entry

    # Two slabs of zeros, the second as a frame.
    header, sections = zeros_sections(128, "kivi(bits=2,residual=0)", 2)
    slab = sections[PAGES].stored[: sections[PAGES].length // 2]
    frame = zeros_frame(len(slab))
    sections[PAGES] = StoredSection(slab + frame, 2 * len(slab), 1)
    sections[PAGE_TABLE] = raw(struct.pack("<4I", len(slab), crc32c(slab), len(frame), crc32c(frame)))
    data = assemble(header, sections)
    at = struct.unpack_from("<Q", data, 128 + 40 * sorted(sections).index(PAGE_TABLE) + 8)[0]
    yield "page-table-slab-279-times", data, "invalidPageTable", at + 8

    # The second of two slabs as a frame; then, in an encoded section, a wrong field.
    length = pages.sections[PAGES].length // 2
    for name, kind in (("slab", 3), ("slab-good", 1)):
        frame = zeros_frame(length, kind=kind)
        first = pages.sections[PAGES].stored[:length]
        table = struct.pack("<4I", length, crc32c(first), len(frame), crc32c(frame))
        sections = {**pages.sections, PAGES: StoredSection(first + frame, 2 * length, 1), PAGE_TABLE: raw(table)}
        data = assemble(pages.header, sections)
        if name == "slab-good":
            Snapshot(data).verify()  # the damaged one differs in nothing but the block's kind
        else:
            yield "frame-slab", data, "invalidFrame", pages.offset(PAGES) + length
    for name, key, count in (("key-utf8", b"\xff", 400), ("value-long", b"a", 65537)):
        start = struct.pack("<2I", 1, 1) + key + struct.pack("<I", count) + b"v" * 300
        blocks = (len(start) << 3).to_bytes(3, "little") + start + rle_block(ord("v"), count - 300)
        length = len(start) + count - 300
        frame = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", length) + blocks
        data = zeros.with_section(METADATA, StoredSection(frame, length, 1))
        # METADATA comes first, after a table with one entry more.
        at = align64(128 + 40 * (len(zeros.sections) + 1))
        yield f"metadata-encoded-{name}", data, "invalidMetadata", at
