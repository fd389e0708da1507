"""Sections and their fields, and errors by name and offset (snapshot.md, Section table and Errors)."""

import struct
from typing import NamedTuple

MAGIC = b"\x89TKV\r\n\x1a\n"
# The version of files whose sections all were there in version 2, and that of others.
VERSION, VERSION_3 = 2, 3
HEADER_LENGTH = 128
ENTRY_LENGTH = 40
NAMES = (
    "METADATA", "RECIPE", "GEOMETRY", "PLAN", "PROFILE", "QUALITY", "PAGES", "PAGE TABLE", "SINKS", "WINDOW",
    "HELD TOKENS", "STATE", "TOKENS", "POSITIONS", "CHAIN", "ARCHIVE PLAN", "ARCHIVE CHUNKS", "ARCHIVE TABLE",
    "ARCHIVE WINDOW", "BASES",
)
KINDS = range(1, len(NAMES) + 1)
(
    METADATA, RECIPE, GEOMETRY, PLAN, PROFILE, QUALITY, PAGES, PAGE_TABLE, SINKS, WINDOW,
    HELD_TOKENS, STATE, TOKENS, POSITIONS, CHAIN, ARCHIVE_PLAN, ARCHIVE_CHUNKS, ARCHIVE_TABLE, ARCHIVE_WINDOW,
    BASES,
) = KINDS
ALWAYS_RAW = (GEOMETRY, PLAN, BASES, ARCHIVE_PLAN, ARCHIVE_CHUNKS, ARCHIVE_TABLE, ARCHIVE_WINDOW)
FIRST_IGNORABLE = 65536


def align64(x: int) -> int:
    return x + 63 & ~63


def name_of(kind: int) -> str:
    return NAMES[kind - 1] if kind in KINDS else "UNKNOWN"


class SnapshotError(Exception):
    def __init__(self, name: str, offset: int, detail: str):
        super().__init__(f"{name} at byte {offset}: {detail}")
        self.name, self.offset, self.detail = name, offset, detail


class Section(NamedTuple):
    kind: int
    coding: int
    offset: int
    storedLength: int
    length: int
    checksum: int
    entry: int  # the offset of its entry in the table

    @property
    def name(self) -> str:
        return name_of(self.kind)

    @property
    def end(self) -> int:
        return self.offset + self.storedLength


class Content:
    """A section's bytes, read field by field; failures carry the offset in the file."""

    def __init__(self, data: bytes, section: Section, error: str):
        self.data, self.section, self.error, self.at = data, section, error, 0

    def fail(self, at: int, detail: str):
        """Inside a section of coding 1 the offset is the section's."""
        raise SnapshotError(self.error, self.section.offset + (0 if self.section.coding else at), detail)

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            self.fail(self.at, "the section ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def field(self, code: str, allowed=None, what: str = ""):
        """A number by its code in struct; it is refused if it is not among those allowed."""
        x = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]
        if allowed is not None and x not in allowed:
            self.fail(self.at - struct.calcsize("<" + code), f"{what} {x}")
        return x

    def sized(self, low: int, high: int, what: str) -> bytes:
        """A u32 length and as many bytes; a length that does not fit is the wrong field."""
        start = self.at
        count = self.field("I")
        if not low <= count <= high or count > len(self.data) - self.at:
            self.fail(start, f"{what} has a length of {count}")
        return self.take(count)

    def text(self, low: int, high: int, what: str):
        """A text, and its bytes."""
        data = self.sized(low, high, what)
        try:
            return data.decode(), data
        except UnicodeDecodeError:
            self.fail(self.at - len(data), f"{what} is not UTF-8")

    def finish(self) -> None:
        if self.at != len(self.data):
            self.fail(self.at, f"{len(self.data) - self.at} bytes follow the content")
