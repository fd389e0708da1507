"""Opening, verifying and decoding a snapshot (snapshot.md, Reading and Errors)."""

import hashlib
import math
import struct
import unicodedata
from typing import NamedTuple

from . import blocks, zstd
from .checksum import crc32c
from .elements import ELEMENT_TYPES
from .plan import BlockLayout, HeadPlan, Run, Slabs, align64
from .recipe import CODECS, RecipeError, parse_stage
from .safetensors import Tensor

MAGIC = b"\x89TKV\r\n\x1a\n"
HEADER_LENGTH = 128
ENTRY_LENGTH = 40
METADATA, RECIPE, PLAN, PROFILE, QUALITY, PAGES, PAGE_TABLE, WINDOW, TOKENS, POSITIONS, CHAIN = range(1, 12)
NAMES = ["METADATA", "RECIPE", "PLAN", "PROFILE", "QUALITY", "PAGES", "PAGE TABLE", "WINDOW", "TOKENS", "POSITIONS", "CHAIN"]
FIRST_IGNORABLE = 65536


class SnapshotError(Exception):
    def __init__(self, name: str, offset: int, detail: str):
        super().__init__(f"{name} at byte {offset}: {detail}")
        self.name, self.offset, self.detail = name, offset, detail


class Header(NamedTuple):
    fileLength: int
    sectionCount: int
    elementType: int
    layers: int
    kvHeads: int
    headDimension: int
    queryHeads: int
    tokens: int
    blockTokens: int
    blockLength: int
    residualWindow: int

    @property
    def window(self) -> int:
        return self.tokens - self.blockTokens


class Section(NamedTuple):
    kind: int
    encoding: int
    offset: int
    storedLength: int
    length: int
    checksum: int
    entry: int  # the offset of its entry in the table

    @property
    def name(self) -> str:
        return NAMES[self.kind - 1] if self.kind <= len(NAMES) else "UNKNOWN"

    @property
    def end(self) -> int:
        return self.offset + self.storedLength


class Content:
    """A section's bytes, read field by field; failures carry the offset in the file."""

    def __init__(self, data: bytes, section: Section, error: str):
        self.data, self.section, self.error, self.at = data, section, error, 0

    def offset(self, at: int) -> int:
        """Inside an encoded section the offset is the section's."""
        return self.section.offset + (0 if self.section.encoding else at)

    def fail(self, at: int, detail: str, error: str = None):
        raise SnapshotError(error or self.error, self.offset(at), detail)

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            self.fail(self.at, "the section ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def numbers(self, code: str, size: int, count: int = 1) -> tuple:
        return struct.unpack(f"<{count}{code}", self.take(size * count))

    def u16(self) -> int:
        return self.numbers("H", 2)[0]

    def u32(self) -> int:
        return self.numbers("I", 4)[0]

    def sized(self, low: int, high: int, what: str) -> bytes:
        """A u32 length and as many bytes; a length that does not fit is the wrong field."""
        start = self.at
        count = self.u32()
        if not low <= count <= high or count > len(self.data) - self.at:
            self.fail(start, f"{what} has a length of {count}")
        return self.take(count)

    def finish(self) -> None:
        if self.at != len(self.data):
            self.fail(self.at, f"{len(self.data) - self.at} bytes follow the content")


class Snapshot:
    """A snapshot in `data`: bytes, or a memory-mapped file. Creating one opens it."""

    def __init__(self, data):
        self.data = data
        self._read_header()
        self._read_table()
        self.metadata = self._read_metadata()
        self.stages = self._read_recipe()
        self.plans = self._read_plan()
        self._read_quality()
        h = self.header
        self.type = ELEMENT_TYPES[h.elementType]
        # Plans of many heads are alike, and a block's layout follows from nothing else.
        layouts = {plan: None for heads in self.plans for plan in heads}
        for plan in layouts:
            layouts[plan] = BlockLayout(plan, h.headDimension, h.blockLength, self.type)
        self.layouts = [[layouts[plan] for plan in heads] for heads in self.plans]
        self.slabs = Slabs(h, [[layout.length for layout in heads] for heads in self.layouts])
        pages = self.sections.get(PAGES)
        if pages and pages.length != self.slabs.blocks * self.slabs.all:
            raise SnapshotError("invalidSectionTable", pages.entry, f"PAGES must have {self.slabs.blocks * self.slabs.all} bytes, has {pages.length}")

    @property
    def recipe(self) -> str:
        return "+".join(map(str, self.stages))

    # Header and section table

    def _read_header(self) -> None:
        data, size = self.data, len(self.data)
        if size < HEADER_LENGTH:
            raise SnapshotError("truncated", size, "shorter than the header")
        if data[:8] != MAGIC:
            raise SnapshotError("notASnapshot", 0, "the magic number is wrong")
        version, checksum = struct.unpack("<2I", data[8:16])
        if version != 1:
            raise SnapshotError("unsupportedVersion", 8, f"version {version}")
        h = self.header = Header(*struct.unpack("<Q6I2Q2I", data[16:72]))

        def require(condition: bool, offset: int, detail: str) -> None:
            if not condition:
                raise SnapshotError("invalidHeader", offset, detail)

        require(3 <= h.sectionCount <= 64, 24, f"sectionCount {h.sectionCount}")
        table_end = HEADER_LENGTH + ENTRY_LENGTH * h.sectionCount
        if size < table_end:
            raise SnapshotError("truncated", size, "shorter than the section table")
        if h.fileLength > size:
            raise SnapshotError("truncated", size, f"the file must have {h.fileLength} bytes, has {size}")
        require(h.fileLength == size, 16, f"the file has {size} bytes, fileLength is {h.fileLength}")
        if checksum != crc32c(data[:12] + bytes(4) + data[16:table_end]):
            raise SnapshotError("headerChecksumMismatch", 12, "header or section table is damaged")
        require(h.elementType in ELEMENT_TYPES, 28, f"elementType {h.elementType}")
        require(1 <= h.layers <= 4096, 32, f"layers {h.layers}")
        require(1 <= h.kvHeads <= 1024, 36, f"kvHeads {h.kvHeads}")
        require(1 <= h.headDimension <= 1024, 40, f"headDimension {h.headDimension}")
        require(h.queryHeads <= 65536 and h.queryHeads % h.kvHeads == 0, 44, f"queryHeads {h.queryHeads}")
        require(1 <= h.tokens <= 0x7FFFFFFF, 48, f"tokens {h.tokens}")
        known_length = h.blockLength in (32, 64, 128)
        require(h.blockTokens <= h.tokens and not (known_length and h.blockTokens % h.blockLength), 56, f"blockTokens {h.blockTokens}")
        require(known_length, 64, f"blockLength {h.blockLength}")
        require(h.residualWindow <= 65536 and h.window < h.residualWindow + h.blockLength, 68, f"residualWindow {h.residualWindow}")
        require(not any(data[72:128]), 72, "reserved bytes are not zero")

    def _read_table(self) -> None:
        h = self.header
        element_size = ELEMENT_TYPES[h.elementType].size
        heads = h.layers * h.kvHeads
        # Lengths that follow from the header; those of PAGES follow from the plan, later.
        lengths = {
            PROFILE: 4 * heads * h.headDimension,
            QUALITY: 16 * (h.layers + 1),
            PAGE_TABLE: 8 * h.layers * -(-h.blockTokens // 256),
            WINDOW: 2 * heads * h.window * h.headDimension * element_size,
            TOKENS: 4 * h.tokens,
            POSITIONS: 4 * h.tokens,
            CHAIN: 32 * (h.tokens // 256),
        }
        self.sections = {}
        kind_before, end = 0, HEADER_LENGTH + ENTRY_LENGTH * h.sectionCount
        for number in range(h.sectionCount):
            entry = HEADER_LENGTH + ENTRY_LENGTH * number
            *fields, reserved = struct.unpack("<2I3Q2I", self.data[entry : entry + ENTRY_LENGTH])
            section = Section(*fields, entry)

            def require(condition: bool, detail: str) -> None:
                if not condition:
                    raise SnapshotError("invalidSectionTable", entry, detail)

            kind = section.kind
            require(kind > kind_before, f"kind {kind} after {kind_before}")
            require(kind <= CHAIN or kind >= FIRST_IGNORABLE, f"unknown kind {kind}")
            require(kind not in (PAGES, PAGE_TABLE) or h.blockTokens > 0, f"{section.name} without tokens in blocks")
            require(kind != CHAIN or TOKENS in self.sections, "CHAIN without TOKENS")
            require(section.encoding <= 1, f"encoding {section.encoding}")
            require(kind != PLAN or not section.encoding, "PLAN is encoded")
            require(section.offset == align64(end), f"{section.name} must be at {align64(end)}, is at {section.offset}")
            require(1 <= section.storedLength <= h.fileLength - section.offset, f"{section.name} has {section.storedLength} bytes")
            require(section.encoding or section.length == section.storedLength, f"{section.name} is raw, but its lengths differ")
            require(section.length > 0 and section.length == lengths.get(kind, section.length), f"{section.name} has length {section.length}")
            require(kind != PAGES or section.checksum == 0, "PAGES has a checksum")
            require(reserved == 0, "the reserved field is not zero")
            self.sections[kind] = section
            kind_before, end = kind, section.end
        if end != h.fileLength:
            raise SnapshotError("invalidSectionTable", entry, f"the last section ends at {end}, the file at {h.fileLength}")
        needed = [RECIPE, PLAN]
        needed += [PAGES, PAGE_TABLE] if h.blockTokens else []
        needed += [WINDOW] if h.window else []
        needed += [CHAIN] if TOKENS in self.sections and h.tokens >= 256 else []
        for kind in needed:
            if kind not in self.sections:
                raise SnapshotError("invalidSectionTable", 24, f"{NAMES[kind - 1]} is missing")

    # Sections

    def _check(self, offset: int, length: int, checksum: int, what: str) -> None:
        crc = 0
        for start in range(offset, offset + length, 1 << 20):
            crc = crc32c(self.data[start : min(start + (1 << 20), offset + length)], crc)
        if crc != checksum:
            raise SnapshotError("checksumMismatch", offset, f"{what} is damaged")

    def _decoded(self, offset: int, stored: int, encoded: bool, length: int) -> bytes:
        data = self.data[offset : offset + stored]
        if not encoded:
            return data
        try:
            return zstd.decompress(data, length)
        except zstd.FrameError as error:
            raise SnapshotError("invalidFrame", offset, str(error)) from None

    def bytes_of(self, kind: int) -> bytes:
        """The decoded bytes of a section other than PAGES, checked."""
        section = self.sections[kind]
        self._check(section.offset, section.storedLength, section.checksum, section.name)
        return self._decoded(section.offset, section.storedLength, section.encoding == 1, section.length)

    def _content(self, kind: int, error: str):
        return Content(self.bytes_of(kind), self.sections[kind], error) if kind in self.sections else None

    def _read_metadata(self) -> dict:
        content = self._content(METADATA, "invalidMetadata")
        if content is None:
            return {}
        count = content.u32()
        if not 1 <= count <= 1024:
            content.fail(0, f"{count} pairs")

        def text(low: int, high: int, what: str):
            data = content.sized(low, high, what)
            try:
                return data, data.decode()
            except UnicodeDecodeError:
                content.fail(content.at - len(data), f"{what} is not UTF-8")

        pairs, before = {}, b""
        for _ in range(count):
            data, key = text(1, 256, "a key")
            if data <= before:
                content.fail(content.at - len(data), "keys are not ascending")
            pairs[key] = text(0, 65536, "a value")[1]
            before = data
        content.finish()
        if len({unicodedata.normalize("NFC", key) for key in pairs}) < count:
            content.fail(0, "two keys are equivalent in Unicode")
        return pairs

    def _read_recipe(self) -> list:
        content = self._content(RECIPE, "invalidRecipe")
        count = content.u32()
        if not 1 <= count <= 8:
            content.fail(0, f"{count} stages")
        stages = []
        for _ in range(count):
            start = content.at
            number = content.u32()
            if number not in CODECS:
                content.fail(start, f"codec {number}", "unknownCodec")
            data = content.sized(0, 1024, "a parameter text")
            try:
                stages.append(parse_stage(CODECS[number], data.decode("ascii")))
            except (UnicodeDecodeError, RecipeError) as error:
                detail = error if isinstance(error, RecipeError) else "parameters are not ASCII"
                content.fail(content.at - len(data), str(detail))
        content.finish()
        return stages

    def _read_plan(self) -> list:
        h = self.header
        content = self._content(PLAN, "invalidPlan")
        plans = [[self._read_head_plan(content) for _ in range(h.kvHeads)] for _ in range(h.layers)]
        content.finish()
        return plans

    def _read_head_plan(self, content: Content) -> HeadPlan:
        d = self.header.headDimension
        widths = (2, 4, 8, ELEMENT_TYPES[self.header.elementType].width)

        def field(allowed, what: str) -> int:
            x = content.u16()
            if x not in allowed:
                content.fail(content.at - 2, f"{what} {x}")
            return x

        run_count = field(range(1, 5), "keyRunCount")
        value_width = field(widths, "valueWidth")
        mean_at = content.at
        mean_count = content.u16()
        field((0,), "reserved field")
        shapes, kept = [], 0
        for _ in range(run_count):
            width = field([w for w in widths if w not in dict(shapes)], "run width")
            count = field(range(1, d - kept + 1), "run count")
            shapes.append((width, count))
            kept += count
        if mean_count not in (0, d - kept):
            content.fail(mean_at, f"meanCount {mean_count} with {d - kept} channels pruned")
        runs, seen = [], set()
        for width, count in shapes:
            channels = []
            for _ in range(count):
                channel = field(range(d), "channel")
                if channel in seen or channels and channel < channels[-1]:
                    content.fail(content.at - 2, f"channel {channel} out of order or a second time")
                seen.add(channel)
                channels.append(channel)
            runs.append(Run(width, tuple(channels)))
        if kept % 2:
            field((0,), "padding")
        means = []
        for _ in range(mean_count):
            means.append(content.numbers("f", 4)[0])
            if not math.isfinite(means[-1]):
                content.fail(content.at - 4, f"mean {means[-1]}")
        return HeadPlan(tuple(runs), value_width, tuple(means))

    def _read_quality(self) -> None:
        content = self._content(QUALITY, "invalidQuality")
        if content is None:
            return
        for at, (x,) in zip(range(0, len(content.data), 4), struct.iter_unpack("<f", content.data)):
            optional = at % 16 >= 8  # scores and attention output may be unmeasured, -1
            if not (x >= 0 or optional and x == -1):
                content.fail(at, f"error {x}")

    # Verification

    def verify(self) -> None:
        """Everything that opening has not checked, section by section in file order."""
        end = HEADER_LENGTH + ENTRY_LENGTH * self.header.sectionCount
        for section in self.sections.values():
            padding = self.data[end : section.offset]
            if any(padding):
                first = next(i for i, byte in enumerate(padding) if byte)
                raise SnapshotError("invalidPadding", end + first, f"padding before {section.name} is not zero")
            end = section.end
            if section.kind == PAGES:
                self._verify_pages()
            elif section.kind == CHAIN:
                self._verify_chain()
            elif section.kind == PROFILE:
                self._verify_profile()
            elif section.kind < FIRST_IGNORABLE:
                self.bytes_of(section.kind)
            else:  # of unknown content, so perhaps not even a frame that can be decoded
                self._check(section.offset, section.storedLength, section.checksum, f"section {section.kind}")

    def _verify_profile(self) -> None:
        content = self._content(PROFILE, "invalidProfile")
        for at, (x,) in zip(range(0, len(content.data), 4), struct.iter_unpack("<f", content.data)):
            if not (math.isfinite(x) and x >= 0):
                content.fail(at, f"mean squared query {x}")

    def _slab_entries(self):
        """Offset, stored length, length and checksum of every slab."""
        pages, content = self.sections[PAGES], self._content(PAGE_TABLE, "invalidPageTable")
        at = pages.offset
        for chunk in range(self.slabs.chunks):
            for layer in range(self.header.layers):
                start = content.at
                stored, checksum = content.numbers("I", 4, 2)
                length = self.slabs.slab_length(chunk, layer)
                if pages.encoding == 0 and stored != length or not 1 <= stored <= min(length, pages.end - at):
                    content.fail(start, f"storedLength {stored} of slab {layer} of chunk {chunk}")
                yield at, stored, length, checksum
                at += stored
        if at != pages.end:
            content.fail(start, f"slabs end at {at}, PAGES at {pages.end}")

    def _verify_pages(self) -> None:
        for at, stored, length, checksum in list(self._slab_entries()):
            self._check(at, stored, checksum, "a slab")
            if stored != length:
                self._decoded(at, stored, True, length)

    def _verify_chain(self) -> None:
        content = self._content(CHAIN, "invalidChain")
        tokens = self.bytes_of(TOKENS)
        digest = chain_start(self.header, self.metadata)
        for j in range(self.header.tokens // 256):
            digest = hashlib.sha256(digest + tokens[1024 * j : 1024 * (j + 1)]).digest()
            if content.take(32) != digest:
                content.fail(32 * j, f"digest {j} does not follow from the tokens")

    # The decoded cache

    def description(self) -> dict:
        header = {"version": 1, **self.header._asdict(), "elementType": self.type.name}
        sections = [
            {
                "kind": s.kind,
                "name": s.name,
                "encoding": "zstd" if s.encoding else "raw",
                "offset": s.offset,
                "storedLength": s.storedLength,
                "length": s.length,
            }
            for s in self.sections.values()
        ]
        return {"header": header, "metadata": self.metadata, "recipe": self.recipe, "sections": sections}

    def tensors(self) -> list:
        h = self.header
        shape = [1, h.kvHeads, h.tokens, h.headDimension]
        size = math.prod(shape) * self.type.size
        dtype = self.type.name.upper()
        result = []
        for layer in range(h.layers):
            result.append(Tensor(f"layers.{layer}.keys", dtype, shape, size))
            if PROFILE in self.sections:
                profile = [h.kvHeads, h.headDimension]
                result.append(Tensor(f"layers.{layer}.q2", "F32", profile, 4 * math.prod(profile)))
            result.append(Tensor(f"layers.{layer}.values", dtype, shape, size))
        for kind, name in ((POSITIONS, "positions"), (TOKENS, "tokens")):
            if kind in self.sections:
                result.append(Tensor(name, "I32", [h.tokens], 4 * h.tokens))
        return result

    def tensor_bytes(self):
        """The bytes of `tensors()`, in their order; no more than a layer at a time."""
        h = self.header
        slabs = list(self._slab_entries()) if h.blockTokens else []
        window = self.bytes_of(WINDOW) if h.window else b""
        profile = self.bytes_of(PROFILE) if PROFILE in self.sections else b""
        profile_size = 4 * h.kvHeads * h.headDimension
        for layer in range(h.layers):
            keys, values = self._layer(layer, slabs, window)
            yield from keys
            yield profile[layer * profile_size : (layer + 1) * profile_size]
            yield from values
        for kind in (POSITIONS, TOKENS):
            if kind in self.sections:
                yield self.bytes_of(kind)

    def _layer(self, layer: int, slabs: list, window: bytes):
        """The bytes of keys and of values, head by head."""
        h = self.header
        keys = [bytearray() for _ in range(h.kvHeads)]
        values = [bytearray() for _ in range(h.kvHeads)]
        for chunk in range(self.slabs.chunks):
            at, stored, length, _ = slabs[chunk * h.layers + layer]
            slab = self._decoded(at, stored, stored != length, length)
            for head in range(h.kvHeads):
                plan, layout = self.plans[layer][head], self.layouts[layer][head]
                for block in range(self.slabs.page_blocks(chunk)):
                    at = self.slabs.in_slab(chunk, layer, head, block)
                    rows = blocks.decode_block(slab[at : at + layout.length], plan, layout, self.type, h.blockLength, h.headDimension)
                    for part, target in zip(rows, (keys, values)):
                        for row in part:
                            target[head] += self.type.pack(row)
        head_size = h.window * h.headDimension * self.type.size
        start = 2 * layer * h.kvHeads * head_size
        for part, target in enumerate((keys, values)):
            for head in range(h.kvHeads):
                at = start + (part * h.kvHeads + head) * head_size
                target[head] += window[at : at + head_size]
        return keys, values


def chain_start(header, metadata: dict) -> bytes:
    """h[-1] of CHAIN."""
    text = struct.pack("<4I", header.layers, header.kvHeads, header.headDimension, header.elementType)
    text += b"".join(
        encoded_pair(key, metadata[key])
        for key in sorted(metadata, key=str.encode)
        if key.startswith(("model.", "rope.", "tokenizer."))
    )
    return hashlib.sha256(text).digest()


def encoded_pair(key: str, value: str) -> bytes:
    """A pair as METADATA has it."""
    return b"".join(struct.pack("<I", len(part)) + part for part in (key.encode(), value.encode()))
