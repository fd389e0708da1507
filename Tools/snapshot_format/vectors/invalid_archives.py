"""The invalid archives, each with one fault, but those called `order-...`."""

import struct

from ..archive import ArchivePlan, Unit
from ..archive_writer import Coded, encode_archive, encoded_plan, joined_record, record_parts, with_records
from ..elements import F16
from ..geometry import LayerGeometry
from ..sections import (
    ARCHIVE_CHUNKS, ARCHIVE_PLAN, ARCHIVE_TABLE, ARCHIVE_WINDOW, GEOMETRY, HELD_TOKENS, PAGE_TABLE, PAGES, PLAN, WINDOW,
)
from ..writer import Plan, assemble, raw
from .archives import RECIPE
from .caches import Generator, Shape, make_cache

NAN, INFINITY = float("nan"), float("inf")


class Archive:
    """A small valid archive to damage: 40 tokens, 32 of them coded, three layers. The first has keys and values of
    dimension 3 and 2, the second keys of dimension 3 alone, the last a sliding window without coded places."""

    SHAPES = (Shape(1, 3, 2, sinks=1), Shape(1, 3, 0, sinks=1), Shape(1, 1, 1, rows=4))
    UNITS = (
        Unit(0, 1, 0, 1, 1, 0, 3, (1.0, 0.5, 2.0), (0.0, 1.0, -1.0)),
        Unit(0, 1, 0, 1, 2, 1, 1, (), (0.25, 0.5)),
        Unit(1, 1, 0, 1, 3, 0, 3, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
        Unit(2, 1, 0, 1, 3, 0, 2, (1.0, 1.0), (0.0, 0.0)),
    )
    # Of the first unit: numbers without low bits, all zeros, and with low bits, where escapes have some, too.
    TABLES = (30, 0, 64 + 50)

    def __init__(self, make_base):
        cache = make_cache("archive to damage", F16, 40, self.SHAPES, token_ids=False, metadata={"model.id": "a"})
        self.plan = ArchivePlan(0.25, bytes(range(32)), [[1.0], [1.0], []], list(self.UNITS))
        generator = Generator("numbers to damage")
        self.counts, self.first = None, None

        def code(number: int, counts: list) -> Coded:
            tables = self.TABLES if number == 0 else [30] * self.UNITS[number].components
            columns = [self._numbers(generator, sum(counts)) for table in tables if table]
            coded = Coded(list(tables), columns)
            if number == 0:
                self.counts, self.first = counts, coded
            return coded

        shifts = [t % 4 for t in range(40)]
        self.base = make_base(*encode_archive(cache, Plan([], 32, 0, RECIPE), self.plan, shifts, code))
        self.records, content, at = [], self.base.sections[ARCHIVE_CHUNKS].stored, 0
        for length, _ in struct.iter_unpack("<2I", self.base.sections[ARCHIVE_TABLE].stored):
            self.records.append(content[at : at + length])
            at += length
        self.parts = record_parts(self.first, self.counts)
        assert self.records[1] == joined_record(*self.parts), "the first record is that of the first unit"

    def _numbers(self, generator: Generator, count: int) -> list:
        return [round(2 * generator.number()) if i % 7 else 32767 for i in range(count)]

    def record_offset(self, index: int) -> int:
        return self.base.offset(ARCHIVE_CHUNKS) + sum(len(record) for record in self.records[:index])

    def with_record(self, index: int, record: bytes) -> bytes:
        records = [*self.records]
        records[index] = record
        return assemble(self.base.header, with_records(self.base.sections, records))

    def with_plan(self, **fields) -> bytes:
        return self.base.with_section(ARCHIVE_PLAN, encoded_plan(self.plan._replace(**fields)))


def invalid_archives(make_base, window):
    """`make_base` is Base, `window` a snapshot that is no archive."""
    archive = Archive(make_base)
    yield from _sections(archive, window)
    yield from _plans(archive)
    yield from _tables(archive)
    yield from _records(archive)
    yield from _first_of_two(archive)


def _sections(archive: Archive, window):
    base = archive.base
    error = "invalidSectionTable"
    for kind, name in (
        (ARCHIVE_CHUNKS, "chunks"), (ARCHIVE_TABLE, "table"), (ARCHIVE_WINDOW, "window"),
    ):
        yield f"archive-without-{name}", base.with_section(kind, None), error, 24
    sections = {kind: section for kind, section in base.sections.items() if kind != ARCHIVE_PLAN}
    data = assemble(base.header, sections, 3)
    yield "archive-without-plan", data, error, 24
    yield "version-3-without-archive-plan", window.with_fields((8, "I", 3)), error, 24
    yield "version-2-with-archive-plan", base.with_fields((8, "I", 2)), error, base.entry(ARCHIVE_PLAN)
    for kind, name, content in (
        (PLAN, "plan", bytes(20)), (PAGES, "pages", bytes(64)), (PAGE_TABLE, "page-table", bytes(24)),
        (WINDOW, "window", bytes(2 * (8 * 5 + 8 * 3 + 4 * 2))),
    ):
        data, entry = base.with_extra(kind, content)
        yield f"archive-with-{name}", data, error, entry
    for kind, name, content in (
        (ARCHIVE_CHUNKS, "chunks", bytes(9)), (ARCHIVE_TABLE, "table", bytes(8)), (ARCHIVE_WINDOW, "window", bytes(36)),
    ):
        data, entry = window.with_extra(kind, content)
        yield f"archive-{name}-without-archive", data, error, entry
    for kind, name in ((ARCHIVE_TABLE, "table"), (ARCHIVE_WINDOW, "window")):
        content = base.sections[kind].stored
        for change, other in (("short", content[:-2]), ("long", content + b"\0\0")):
            yield f"archive-{name}-{change}", base.with_section(kind, other), error, base.entry(kind)
    for kind, name in (
        (ARCHIVE_PLAN, "plan"), (ARCHIVE_CHUNKS, "chunks"), (ARCHIVE_TABLE, "table"), (ARCHIVE_WINDOW, "window"),
    ):
        entry = base.entry(kind)
        yield f"archive-{name}-coded", base.with_fields((entry + 4, "I", 1)), error, entry
    entry = base.entry(ARCHIVE_CHUNKS)
    yield "archive-chunks-checksum", base.with_fields((entry + 32, "I", 1)), error, entry
    for kind, name in ((ARCHIVE_PLAN, "plan"), (ARCHIVE_TABLE, "table"), (ARCHIVE_WINDOW, "window")):
        at = base.offset(kind)
        yield f"checksum-archive-{name}", base.flipped(at + base.sections[kind].length - 1), "checksumMismatch", at
    for index, name in ((0, "shifts"), (1, "record"), (3, "last-record")):
        at = archive.record_offset(index)
        data = base.flipped(at + len(archive.records[index]) - 1)
        yield f"checksum-archive-{name}", data, "checksumMismatch", at
    at = base.offset(ARCHIVE_WINDOW) - 1
    yield "padding-before-archive-window", base.flipped(at), "invalidPadding", at


def _plans(archive: Archive):
    base, plan = archive.base, archive.plan
    at = base.offset(ARCHIVE_PLAN)
    # Offsets: step 0, number of units 4, digest 8, the layers' pairs and frequencies 40, 46 and 48, then units of 16
    # bytes and their weights and means.
    starts = [50, 50 + 16 + 3 * 6, 50 + 16 + 18 + 16 + 4]
    starts.append(starts[-1] + 16 + 3 * 6)

    def case(name, data, offset):
        return f"archive-plan-{name}", data, "invalidArchivePlan", at + offset

    def fields(name, offset, *changes):
        return case(name, base.with_content(ARCHIVE_PLAN, *changes), offset)

    def units(name, offset, *changed):
        """Units of other fields; a pair of a unit's number and the fields each."""
        all_units = [*plan.units]
        for index, change in changed:
            all_units[index] = all_units[index]._replace(**change)
        return case(name, archive.with_plan(units=all_units), offset)

    assert struct.unpack_from("<4H", base.sections[ARCHIVE_PLAN].stored, starts[3]) == (2, 1, 0, 1), "where units are"
    for name, step in (
        ("0", 0.0), ("negative", -1.0), ("too-small", 2.0**-41), ("too-large", 2.0**41), ("nan", NAN),
        ("infinite", INFINITY),
    ):
        yield fields(f"step-{name}", 0, (0, "f", step))
    yield fields("unit-count-huge", 4, (4, "I", 2**32 - 1))
    yield case("no-units", archive.with_plan(units=[], digest=bytes(32)), 0)
    yield units("digest-of-no-unit", 8, (1, {"basis": 0, "components": 2, "weights": (1.0, 1.0)}))
    yield fields("pairs-too-many", 40, (40, "H", 2))
    yield fields("pairs-of-none-before", 40, (40, "H", 65535))
    yield case("pairs-too-many-as-before", archive.with_plan(frequencies=[[1.0], [1.0], [1.0]]), 48)
    for name, frequency in (("too-high", 4.5), ("too-low", -4.5), ("nan", NAN), ("infinite", INFINITY)):
        yield fields(f"frequency-{name}", 42, (42, "f", frequency))
    start = starts[0]
    for name, offset, code, number, wrong in (
        ("layer-beyond", 0, "H", 3, 0), ("layers-0", 2, "H", 0, 0), ("layers-beyond", 2, "H", 4, 0),
        ("head-beyond", 4, "H", 1, 0), ("heads-0", 6, "H", 0, 0), ("heads-beyond", 6, "H", 2, 0),
        ("parts-0", 8, "B", 0, 8), ("parts-4", 8, "B", 4, 8), ("basis-2", 9, "B", 2, 9), ("reserved", 10, "H", 1, 10),
        ("components-0", 12, "I", 0, 12), ("components-fewer", 12, "I", 2, 12), ("components-more", 12, "I", 4, 12),
        ("components-huge", 12, "I", 2**32 - 1, 12),
        ("weight-0", 16, "f", 0.0, 16), ("weight-negative", 20, "f", -1.0, 20), ("weight-nan", 24, "f", NAN, 24),
        ("weight-too-small", 16, "f", 2.0**-61, 16), ("weight-too-large", 20, "f", 2.0**61, 20),
        ("mean-infinite", 28, "e", -INFINITY, 28), ("mean-nan", 32, "e", NAN, 32),
    ):
        yield fields(name, start + wrong, (start + offset, code, number))
    yield fields("components-0-of-basis", starts[1] + 12, (starts[1] + 12, "I", 0))
    yield fields("components-more-of-basis", starts[1] + 12, (starts[1] + 12, "I", 3))
    yield fields("mean-nan-of-basis", starts[1] + 18, (starts[1] + 18, "e", NAN))
    yield units("no-channels", starts[1], (1, {"layer": 1}))
    content = base.sections[ARCHIVE_PLAN].stored
    yield case("empty", base.with_section(ARCHIVE_PLAN, content[:3]), 0)
    yield case("ends-in-digest", base.with_section(ARCHIVE_PLAN, content[:39]), 8)
    yield case("ends-in-frequency", base.with_section(ARCHIVE_PLAN, content[:45]), 42)
    yield case("ends-early", base.with_section(ARCHIVE_PLAN, content[:-2]), len(content) - 2)
    yield case("trailing", base.with_section(ARCHIVE_PLAN, content + b"\0"), len(content))
    yield case("unit-twice", archive.with_plan(units=[*plan.units, plan.units[3]]), 0)
    yield case("unit-missing", archive.with_plan(units=[*plan.units[:3]]), 0)
    joined = Unit(0, 3, 0, 1, 1, 1, 2, (), (0.0,) * 7)
    last_values = Unit(2, 1, 0, 1, 2, 0, 1, (1.0,), (0.0,))
    yield case("other-places", archive.with_plan(units=[joined, plan.units[1], last_values]), 0)
    # A layer that lists the tokens that it holds: its rows are as many as they were.
    listed = struct.pack(LayerGeometry.FORMAT, 1, 0, 1, 1, 2, 0, 4, 0)
    geometry = base.sections[GEOMETRY].stored[:80] + listed
    sections = base.sections | {GEOMETRY: raw(geometry), HELD_TOKENS: raw(struct.pack("<4I", *range(4)))}
    data = assemble(base.header, sections)
    entry = 128 + 40 * sorted(sections).index(ARCHIVE_PLAN)
    yield "archive-plan-listed-tokens", data, "invalidArchivePlan", struct.unpack_from("<Q", data, entry + 8)[0]


def _tables(archive: Archive):
    base = archive.base
    at = base.offset(ARCHIVE_TABLE)
    lengths = [len(record) for record in archive.records]
    assert lengths[4] == 0, "the last unit has no coded places"

    def case(name, offset, *changes):
        return f"archive-table-{name}", base.with_content(ARCHIVE_TABLE, *changes), "invalidArchiveTable", at + offset

    yield case("shifts-short", 0, (0, "I", lengths[0] - 1))
    yield case("shifts-long", 0, (0, "I", lengths[0] + 1), (8, "I", lengths[1] - 1))
    yield case("record-0", 8, (8, "I", 0), (12, "I", 0))
    yield case("record-beyond", 24, (24, "I", lengths[3] + 1))
    yield case("record-huge", 8, (8, "I", 2**32 - 1))
    yield case("record-without-places", 32, (24, "I", lengths[3] - 1), (32, "I", 1))
    yield case("checksum-without-places", 32, (36, "I", 1))
    yield case("sum", 32, (24, "I", lengths[3] - 1))


def _records(archive: Archive):
    tables, states, escapes, words, low = archive.parts

    def case(name, record, index=1):
        data = archive.with_record(index, record)
        return f"archive-record-{name}", data, "invalidArchiveRecord", archive.record_offset(index)

    def parts(name, **changed):
        own = {"tables": tables, "states": states, "escapes": escapes, "words": words, "low": low}
        return case(name, joined_record(**(own | changed)))

    def counts(name, *changes):
        record = bytearray(archive.records[1])
        for offset, change in changes:
            struct.pack_into("<I", record, offset, struct.unpack_from("<I", record, offset)[0] + change)
        return case(name, bytes(record))

    yield parts("table-129", tables=b"\x81" + tables[1:])
    yield parts("table-255", tables=tables[:2] + b"\xff" + tables[3:])
    yield parts("padding", tables=tables[:3] + b"\1")
    yield case("short", tables[:3])
    yield case("tables-alone", tables)
    yield case("ends-in-head", archive.records[1][: 4 + 12 + 63])
    yield case("zeros-and-more", bytes(8))
    yield counts("more-escapes", (4, 1))
    yield counts("fewer-words", (8, -1))
    yield counts("escapes-huge", (4, 2**31), (8, 0))
    yield counts("fewer-low-bytes", (12, -1))
    yield counts("escape-as-word", (4, -1), (8, 1))
    yield counts("word-as-escape", (4, 1), (8, -1))
    yield counts("words-as-low-bytes", (8, -1), (12, 2))
    yield parts("state-below", states=struct.pack("<I", 65535) + states[4:])
    yield parts("state-0", states=states[:60] + bytes(4))
    yield parts("state-other", states=struct.pack("<I", struct.unpack_from("<I", states)[0] + 4096) + states[4:])
    yield parts("word-missing", words=words[:-2])
    yield parts("word-left", words=words + b"\0\0")
    yield parts("word-odd", words=words + b"\0")
    yield parts("words-missing", words=b"")
    yield parts("escape-missing", escapes=escapes[:-2])
    yield parts("escape-left", escapes=escapes + b"\0\0")
    yield parts("low-bits-missing", low=low[:-1])
    yield parts("low-bits-left", low=low + b"\0")
    yield parts("bits-after-last", low=low[:-1] + bytes([low[-1] | 0x80]))
    # The first of each seven numbers is an escape, whose low bits are 0.
    yield parts("low-bits-of-escape", low=bytes([low[0] | 1]) + low[1:])


def _first_of_two(archive: Archive):
    base = archive.base
    at = base.offset(ARCHIVE_PLAN)
    content = base.sections[ARCHIVE_PLAN].stored

    def case(name, data, error, offset):
        return f"order-archive-{name}", data, error, offset

    plan = bytearray(content)
    struct.pack_into("<f", plan, 50 + 16, -1.0)
    data = base.with_section(ARCHIVE_PLAN, bytes(plan[:-1]))
    yield case("plan-weight-then-end", data, "invalidArchivePlan", at + 66)
    units = [*archive.plan.units[:2], archive.plan.units[2]]
    data = base.with_section(ARCHIVE_PLAN, encoded_plan(archive.plan._replace(units=units)) + b"\0")
    yield case("plan-end-then-coverage", data, "invalidArchivePlan", at + len(content) - 16 - 12)
    record = archive.records[1]
    # A record that can't be decoded, and a checksum that is wrong in a section after it.
    data = bytearray(archive.with_record(1, b"\x81" + record[1:]))
    data[-1] ^= 1
    yield case("record-then-window", bytes(data), "invalidArchiveRecord", archive.record_offset(1))
    data = bytearray(archive.with_record(1, b"\x81" + record[1:]))
    data[archive.record_offset(3)] ^= 1
    yield case("checksum-then-record", bytes(data), "checksumMismatch", archive.record_offset(3))
    table = bytearray(base.sections[ARCHIVE_TABLE].stored)
    struct.pack_into("<I", table, 36, 1)
    data = bytearray(base.with_section(ARCHIVE_TABLE, bytes(table)))
    data[archive.record_offset(1)] ^= 1
    yield case("table-then-checksum", bytes(data), "invalidArchiveTable", base.offset(ARCHIVE_TABLE) + 32)
