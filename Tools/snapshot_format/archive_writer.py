"""Writing archives by a plan, of numbers that are given (archive.md)."""

import struct
from typing import NamedTuple

from .archive import chunk_places, coded_places, encoded_window, rows_in_order, symbols_table
from .checksum import crc32c
from .sections import ARCHIVE_CHUNKS, ARCHIVE_PLAN, ARCHIVE_TABLE, ARCHIVE_WINDOW
from .symbols import ESCAPE, LIMIT, TABLES, encode
from .writer import encode as encode_cache
from .writer import geometry_of, raw


class Coded(NamedTuple):
    """A unit's numbers in a chunk."""

    tables: list  # table bytes
    numbers: list  # of each component whose table byte is not 0, in order of coding


def encoded_plan(plan) -> bytes:
    data = struct.pack("<fI", plan.step, len(plan.units)) + plan.digest
    before = None
    for frequencies in plan.frequencies:
        if frequencies == before:
            data += b"\xff\xff"
        else:
            data += struct.pack(f"<H{len(frequencies)}f", len(frequencies), *frequencies)
        before = frequencies
    for unit in plan.units:
        data += struct.pack("<4H2BHI", *unit[:6], 0, unit.components)
        data += struct.pack(f"<{len(unit.weights)}f{len(unit.means)}e", *unit.weights, *unit.means)
    return data


def encoded_shifts(shifts: list) -> bytes:
    data = bytearray(-(-len(shifts) // 4))
    for i, shift in enumerate(shifts):
        data[i // 4] |= shift << i % 4 * 2
    return bytes(data)


def record_parts(coded: Coded, counts: list):
    """Tables, states, escapes, words and low bits of a record."""
    tables = bytes(coded.tables) + bytes(-len(coded.tables) % 4)
    calls, escapes, low, size = [], [], 0, 0
    columns = iter(coded.numbers)
    for byte in coded.tables:
        if not byte:
            continue
        column = iter(next(columns))
        for shift, count in enumerate(counts):
            number, low_bits = symbols_table(byte, shift)
            half = 1 << low_bits - 1 if low_bits else 0
            symbols = []
            for _ in range(count):
                x = next(column)
                symbol, rest = (x + half) >> low_bits, (x + half) & (1 << low_bits) - 1
                if abs(symbol) > LIMIT or not TABLES[number].frequencies[symbol]:
                    symbol, rest = ESCAPE, 0
                    escapes.append(x)
                symbols.append(symbol)
                low |= rest << size
                size += low_bits
            calls.append((number, symbols))
    states, words = encode(calls)
    return tables, states, struct.pack(f"<{len(escapes)}h", *escapes), words, low.to_bytes(-(-size // 8), "little")


def joined_record(tables: bytes, states: bytes, escapes: bytes, words: bytes, low: bytes) -> bytes:
    if not any(tables):
        return tables
    counts = struct.pack("<3I", len(escapes) // 2, len(words) // 2, len(low))
    return tables + counts + states + escapes + words + low


def with_records(sections: dict, records: list) -> dict:
    """The sections with other shifts and records."""
    table = b"".join(struct.pack("<2I", len(record), crc32c(record) if record else 0) for record in records)
    return sections | {ARCHIVE_CHUNKS: raw(b"".join(records)), ARCHIVE_TABLE: raw(table)}


def encode_archive(cache, settings, plan, shifts: list, code):
    """Header and sections of an archive. `settings` is a Plan without heads; `code` gives the `Coded` of a unit by its
    number and the rows of each shift."""
    header, sections = encode_cache(cache, settings._replace(heads=None))
    geometry = geometry_of(cache, header)
    sections[ARCHIVE_PLAN] = raw(encoded_plan(plan))
    records = []
    for places in chunk_places(geometry):
        records.append(encoded_shifts([shifts[place] for place in places]))
        by_place = {place: shifts[place] for place in places}
        for number, unit in enumerate(plan.units):
            own = coded_places(geometry[unit.layer], cache.length)
            counts = [len(some) for some in rows_in_order(by_place, [place for place in places if place in own])]
            records.append(joined_record(*record_parts(code(number, counts), counts)) if any(counts) else b"")
    if records:
        sections = with_records(sections, records)
    window = b""
    for layer, shape in zip(cache.layers, geometry):
        rows = len(shape.window(cache.length))
        for part in (layer.keys, layer.values):
            for head in part if rows and part[0][0] else []:
                window += encoded_window([[cache.type.value(x) for x in row] for row in head[len(head) - rows :]])
    if window:
        sections[ARCHIVE_WINDOW] = raw(window)
    return header, sections


