"""Opening, verifying and decoding a snapshot (snapshot.md, Reading and Errors)."""

import hashlib
import math
import struct
import unicodedata

from . import archive, blocks, zstd
from .checksum import crc32c
from .elements import ELEMENT_TYPES
from .geometry import ALL, HELD_NAMES, LAST, LISTED, NONE, Header, LayerGeometry, Pages
from .plan import BlockLayout, Coding, ComponentHead, ComponentLayout, Components, HeadPlan, Run
from .safetensors import Tensor
from .sections import (
    ALWAYS_RAW, ARCHIVE_CHUNKS, ARCHIVE_PLAN, ARCHIVE_TABLE, ARCHIVE_WINDOW, BASES, CHAIN, ENTRY_LENGTH,
    FIRST_IGNORABLE, GEOMETRY, HEADER_LENGTH, HELD_TOKENS, KINDS, MAGIC, METADATA, NAMES, PAGE_TABLE, PAGES, PLAN,
    POSITIONS, PROFILE, QUALITY, RECIPE, SINKS, STATE, TOKENS, VERSION, VERSION_3, WINDOW, Content, Section,
    SnapshotError, align64, name_of,
)
from .symbols import CodingError


class Snapshot:
    """A snapshot in `data`: bytes, or a memory-mapped file. Creating one opens it."""

    def __init__(self, data):
        self.data = data
        self._read_header()
        self._read_table()
        self.metadata = self._read_metadata()
        self.recipe = self._read_recipe()
        self.geometry = self._read_geometry()
        self.pages = Pages(self.header, self.geometry)
        self._check_lengths()
        self._check_presence()
        self.archive = self._read_archive_plan()
        self.plans = self._read_plan()
        self.layouts = self._layouts()
        self._check_pages_length()
        self._read_quality()
        self.held_tokens = self.state = None  # known when verified

    # Header and section table

    def _read_header(self) -> None:
        data, size = self.data, len(self.data)
        if size < HEADER_LENGTH:
            raise SnapshotError("truncated", size, "shorter than the header")
        if data[:8] != MAGIC:
            raise SnapshotError("notASnapshot", 0, "the magic number is wrong")
        self.version, checksum = struct.unpack("<2I", data[8:16])
        if self.version not in (VERSION, VERSION_3):
            raise SnapshotError("unsupportedVersion", 8, f"version {self.version}")
        *fields, reserved, tokens = struct.unpack("<Q6IQ", data[16:56])
        h = self.header = Header(*fields, tokens)

        def require(condition: bool, offset: int, detail: str) -> None:
            if not condition:
                raise SnapshotError("invalidHeader", offset, detail)

        require(2 <= h.sectionCount <= 64, 24, f"sectionCount {h.sectionCount}")
        self.table_end = HEADER_LENGTH + ENTRY_LENGTH * h.sectionCount
        if size < self.table_end:
            raise SnapshotError("truncated", size, "shorter than the section table")
        if h.fileLength > size:
            raise SnapshotError("truncated", size, f"the file must have {h.fileLength} bytes, has {size}")
        require(h.fileLength == size, 16, f"the file has {size} bytes, fileLength is {h.fileLength}")
        if checksum != crc32c(data[:12] + bytes(4) + data[16 : self.table_end]):
            raise SnapshotError("headerChecksumMismatch", 12, "header or section table is damaged")
        require(h.elementType in ELEMENT_TYPES, 28, f"elementType {h.elementType}")
        self.type = ELEMENT_TYPES[h.elementType]
        require(1 <= h.layers <= 4096, 32, f"layers {h.layers}")
        require(h.blockLength in (32, 64, 128), 36, f"blockLength {h.blockLength}")
        require(h.residualWindow <= 65536, 40, f"residualWindow {h.residualWindow}")
        require(reserved == 0, 44, "reserved bytes are not zero")
        require(1 <= h.tokens <= 0x7FFFFFFF, 48, f"tokens {h.tokens}")
        require(not any(data[56:128]), 56, "reserved bytes are not zero")

    def _read_table(self) -> None:
        self.sections = {}
        kind_before, end = 0, self.table_end
        for entry in range(HEADER_LENGTH, self.table_end, ENTRY_LENGTH):
            *fields, reserved = struct.unpack("<2I3Q2I", self.data[entry : entry + ENTRY_LENGTH])
            section = Section(*fields, entry)

            def require(condition: bool, detail: str) -> None:
                if not condition:
                    raise SnapshotError("invalidSectionTable", entry, detail)

            kind = section.kind
            require(kind > kind_before, f"kind {kind} after {kind_before}")
            require(kind in KINDS or kind >= FIRST_IGNORABLE, f"unknown kind {kind}")
            require(section.coding <= 1, f"coding {section.coding}")
            require(kind not in ALWAYS_RAW or section.coding == 0, f"{section.name} is not raw")
            require(section.offset == align64(end), f"{section.name} must be at {align64(end)}, is at {section.offset}")
            available = self.header.fileLength - section.offset
            require(1 <= section.storedLength <= available, f"{section.name} has {section.storedLength} bytes")
            require(section.length < 1 << 63, f"{section.name} has length {section.length}")
            require(section.coding == 1 or section.length == section.storedLength, f"{section.name} is raw, but its lengths differ")
            require(zstd.may_expand(section.storedLength, section.length), f"{section.name} expands more than 256 times")
            expected = 40 * self.header.layers
            require(kind != GEOMETRY or section.length == expected, f"{section.name} must have length {expected}")
            require(kind not in (PAGES, ARCHIVE_CHUNKS) or section.checksum == 0, f"{section.name} has a checksum")
            require(reserved == 0, "the reserved field is not zero")
            self.sections[kind] = section
            kind_before, end = kind, section.end
        if end != self.header.fileLength:
            detail = f"the last section ends at {end}, the file at {self.header.fileLength}"
            raise SnapshotError("invalidSectionTable", entry, detail)
        if GEOMETRY not in self.sections:
            raise SnapshotError("invalidSectionTable", 24, "GEOMETRY is missing")

    def _check_lengths(self) -> None:
        """Lengths that follow from header and geometry; that of PAGES follows from the plan."""
        tokens = self.header.tokens

        def numbers(rows) -> int:
            return sum(layer.row_numbers(rows(layer)) for layer in self.geometry)

        lengths = {
            PROFILE: 4 * sum(layer.kvHeads * layer.keyDimension for layer in self.geometry),
            QUALITY: 16 * (self.header.layers + 1),
            PAGE_TABLE: 8 * self.header.layers * self.pages.chunks,
            SINKS: self.type.size * numbers(lambda layer: layer.sink_rows),
            WINDOW: self.type.size * numbers(lambda layer: len(layer.window(tokens))),
            HELD_TOKENS: 4 * sum(layer.kvHeads * layer.heldTokens for layer in self.geometry if layer.held == LISTED),
            TOKENS: 4 * tokens,
            POSITIONS: 4 * tokens,
            CHAIN: 32 * (tokens // 256),
            ARCHIVE_WINDOW: sum(
                layer.kvHeads * len(layer.window(tokens)) * archive.window_row_bytes(dimension)
                for layer in self.geometry
                for dimension in (layer.keyDimension, layer.valueDimension)
            ),
        }
        for section in self.sections.values():
            if section.length != lengths.get(section.kind, section.length):
                detail = f"{section.name} must have length {lengths[section.kind]}, has {section.length}"
                raise SnapshotError("invalidSectionTable", section.entry, detail)

    def _check_presence(self) -> None:
        tokens, layers = self.header.tokens, self.geometry
        is_archive = ARCHIVE_PLAN in self.sections
        has_pages, has_window = self.pages.chunks > 0, any(layer.window(tokens) for layer in layers)
        has_chunks = is_archive and any(layer.blockTokens for layer in layers)
        wanted = {
            PLAN: any(layer.kvHeads for layer in layers) and not is_archive,
            PAGES: has_pages and not is_archive,
            PAGE_TABLE: has_pages and not is_archive,
            SINKS: any(layer.sink_rows for layer in layers),
            WINDOW: has_window and not is_archive,
            HELD_TOKENS: any(layer.held == LISTED for layer in layers),
            CHAIN: TOKENS in self.sections and tokens >= 256,
            # A file of this version has the one or the other.
            ARCHIVE_PLAN: self.version == VERSION_3 and BASES not in self.sections,
            ARCHIVE_CHUNKS: has_chunks,
            ARCHIVE_TABLE: has_chunks,
            ARCHIVE_WINDOW: has_window and is_archive,
        }
        if self.version < VERSION_3 or not wanted[PLAN]:
            wanted[BASES] = False
        for kind, here in wanted.items():
            if here and kind not in self.sections:
                raise SnapshotError("invalidSectionTable", 24, f"{name_of(kind)} is missing")
            if not here and kind in self.sections:
                detail = f"{name_of(kind)} has no place here"
                raise SnapshotError("invalidSectionTable", self.sections[kind].entry, detail)

    def _check_pages_length(self) -> None:
        section = self.sections.get(PAGES)
        if section is None:
            return
        length = sum(
            len(held) * sum(layout.length for layout in layouts)
            for held, layouts in zip(self.pages.layers, self.layouts)
        )
        if section.length != length:
            detail = f"PAGES must have length {length}, has {section.length}"
            raise SnapshotError("invalidSectionTable", section.entry, detail)

    # Sections

    def _check(self, offset: int, length: int, checksum: int, what: str) -> None:
        crc = 0
        for start in range(offset, offset + length, 1 << 20):
            crc = crc32c(self.data[start : min(start + (1 << 20), offset + length)], crc)
        if crc != checksum:
            raise SnapshotError("checksumMismatch", offset, f"{what} is damaged")

    def _decoded(self, offset: int, stored: int, coded: bool, length: int) -> bytes:
        data = self.data[offset : offset + stored]
        if not coded:
            return data
        try:
            return zstd.decompress(data, length)
        except zstd.FrameError as error:
            raise SnapshotError("invalidFrame", offset, str(error)) from None

    def bytes_of(self, kind: int) -> bytes:
        """The decoded bytes of a section other than PAGES, checked; none if it is not there."""
        section = self.sections.get(kind)
        if section is None:
            return b""
        self._check(section.offset, section.storedLength, section.checksum, section.name)
        return self._decoded(section.offset, section.storedLength, section.coding == 1, section.length)

    def _content(self, kind: int, error: str):
        return Content(self.bytes_of(kind), self.sections[kind], error) if kind in self.sections else None

    def _read_metadata(self) -> dict:
        content = self._content(METADATA, "invalidMetadata")
        if content is None:
            return {}
        count = content.field("I", range(1, 1025), "count")
        pairs, before = {}, b""
        for _ in range(count):
            key, data = content.text(1, 256, "a key")
            if data <= before:
                content.fail(content.at - len(data), "keys are not ascending")
            pairs[key], _ = content.text(0, 65536, "a value")
            before = data
        content.finish()
        if len({unicodedata.normalize("NFC", key) for key in pairs}) < count:
            content.fail(0, "two keys are equivalent in Unicode")
        return pairs

    def _read_recipe(self) -> list:
        """Pairs of codec number and text, which nothing here understands."""
        content = self._content(RECIPE, "invalidRecipe")
        if content is None:
            return []
        stages = []
        for _ in range(content.field("I", range(1, 9), "count")):
            number = content.field("I")
            data = content.sized(1, 1024, "a stage's text")
            if not all(0x20 <= byte <= 0x7E for byte in data):
                content.fail(content.at - len(data), "a stage's text is not printable ASCII")
            stages.append((number, data.decode("ascii")))
        content.finish()
        return stages

    def _read_geometry(self) -> list:
        content = self._content(GEOMETRY, "invalidGeometry")
        layers, block_tokens = [], None
        for number in range(self.header.layers):
            start = content.at
            layer = LayerGeometry(*struct.unpack(LayerGeometry.FORMAT, content.take(40)))
            for field, holds in self._geometry_rules(layer, block_tokens):
                if not holds:
                    at = start + LayerGeometry.OFFSETS[LayerGeometry._fields.index(field)]
                    content.fail(at, f"{field} {getattr(layer, field)} of layer {number}")
            if block_tokens is None and layer.held in (ALL, LAST):
                block_tokens = layer.blockTokens
            layers.append(layer)
        return layers

    def _geometry_rules(self, layer: LayerGeometry, block_tokens):
        """Fields of a layer in order and whether their rules hold; `block_tokens` is what an
        earlier layer says that the layer's must be, or None."""
        h, held = self.header, layer.held
        yield "kvHeads", layer.kvHeads <= 1024
        multiple = layer.queryHeads % layer.kvHeads == 0 if layer.kvHeads else layer.queryHeads == 0
        yield "queryHeads", layer.queryHeads <= 65536 and multiple
        yield "keyDimension", layer.keyDimension <= 1024
        yield "valueDimension", layer.valueDimension <= 1024
        yield "held", held in (ALL, LAST, LISTED, NONE)
        empty = not any((layer.kvHeads, layer.queryHeads, layer.keyDimension, layer.valueDimension))
        yield "held", empty if held == NONE else layer.kvHeads > 0 and layer.keyDimension > 0
        yield "sinks", layer.sinks <= (64 if held in (ALL, LISTED) else 0)
        allowed = {
            ALL: range(h.tokens, h.tokens + 1),
            LAST: range(1, h.tokens),
            LISTED: range(max(layer.sinks, 1), h.tokens + 1),
            NONE: range(1),
        }
        yield "heldTokens", layer.heldTokens in allowed[held]
        at_most = layer.end(h.tokens) if held != NONE else 0
        yield "blockTokens", layer.blockTokens % h.blockLength == 0 and layer.blockTokens <= at_most
        yield "blockTokens", len(layer.window(h.tokens)) < h.residualWindow + h.blockLength
        yield "blockTokens", held not in (ALL, LAST) or block_tokens in (None, layer.blockTokens)

    def _read_archive_plan(self):
        content = self._content(ARCHIVE_PLAN, "invalidArchivePlan")
        if content is None:
            return None
        plan = archive.read_plan(content, self.geometry, self.header.tokens)
        section = self.sections.get(ARCHIVE_TABLE)
        length = 8 * len(archive.chunk_places(self.geometry)) * (len(plan.units) + 1)
        if section and section.length != length:
            detail = f"ARCHIVE TABLE must have length {length}, has {section.length}"
            raise SnapshotError("invalidSectionTable", section.entry, detail)
        return plan

    def _read_plan(self) -> list:
        content = self._content(PLAN, "invalidPlan")
        if content is None:
            return [[] for _ in self.geometry]
        self.bases = self._content(BASES, "invalidBases")
        plans = [[self._read_head_plan(content, layer) for _ in range(layer.kvHeads)] for layer in self.geometry]
        content.finish()
        if self.bases is not None:
            self.bases.finish()
        return plans

    def _read_coding(self, content: Content, of_values: bool) -> Coding:
        width = content.field("B", (0, 1, 2, 3, 4, 5, 8), "width")
        scales = content.field("B", (1, 2) if width else (0,), "scales")
        ranges = content.field("B", None if width else (0,), "ranges")
        rotations = (0, 1) if of_values and scales == 2 else (0,)
        return Coding(width, scales, ranges, content.field("B", rotations, "rotation"))

    def _read_means(self, content: Content, count: int, are_subtracted: bool) -> tuple:
        means = []
        for _ in range(count):
            means.append(content.field("f"))
            if not math.isfinite(means[-1]) or are_subtracted and abs(means[-1]) > blocks.LARGEST:
                content.fail(content.at - 4, f"mean {means[-1]}")
        return tuple(means)

    def _read_head_plan(self, content: Content, layer: LayerGeometry) -> HeadPlan:
        d = layer.keyDimension
        run_count = content.field("B", range(self.bases is None, 5), "keyRunCount")
        if run_count == 0:
            for _ in range(7):
                content.field("B", (0,), "a field of a head in BASES")
            keys = self._read_components(layer.keyDimension)
            return ComponentHead(keys, self._read_components(layer.valueDimension) if layer.valueDimension else None)
        value_pruning = content.field("B", range(3 if layer.valueDimension > 1 else 1), "valuePruning")
        mean_at = content.at
        mean_count = content.field("H")
        values_at = content.at
        values = self._read_coding(content, True)
        if values.width and not layer.valueDimension:
            content.fail(values_at, f"width {values.width} of values that have no dimension")
        shapes, kept = [], 0
        for _ in range(run_count):
            start = content.at
            coding = self._read_coding(content, False)
            if coding in dict(shapes):
                content.fail(start, f"two runs of {coding}")
            count = content.field("I", range(1, d - kept + 1), "run count")
            shapes.append((coding, count))
            kept += count
        compact = sum(count for coding, count in shapes if coding.compact)
        if mean_count not in ((d - kept + compact,) if compact else (0, d - kept)):
            content.fail(mean_at, f"meanCount {mean_count}: {d - kept} channels are pruned, {compact} compact")
        runs, seen = [], set()
        for coding, count in shapes:
            channels = []
            for _ in range(count):
                channel = content.field("H", range(d), "channel")
                if channel in seen or channels and channel < channels[-1]:
                    content.fail(content.at - 2, f"channel {channel} out of order or a second time")
                seen.add(channel)
                channels.append(channel)
            runs.append(Run(coding, tuple(channels)))
        if kept % 2:
            content.field("H", (0,), "padding")
        value_channels = self._read_value_channels(content, layer.valueDimension) if value_pruning else ()
        means = self._read_means(content, mean_count, any(coding.compact for coding, _ in shapes))
        kept_values = len(value_channels) or layer.valueDimension
        value_mean_count = kept_values if values.compact else 0
        if value_pruning == 2:
            value_mean_count += layer.valueDimension - kept_values
        value_means = self._read_means(content, value_mean_count, values.compact)
        return HeadPlan(tuple(runs), values, means, value_means, value_channels)

    def _read_components(self, channels: int) -> Components:
        content = self.bases
        start = content.at
        run_count = content.field("B", range(1, 5), "number of runs")
        for _ in range(3):
            content.field("B", (0,), "padding")
        runs, count = [], 0
        for _ in range(run_count):
            at = content.at
            coding = self._read_coding(content, True)
            if not coding.width or coding in dict(runs):
                content.fail(at, f"a run of {coding}")
            if coding.rotation:
                content.fail(at + 3, "components are not rotated")
            runs.append((coding, content.field("I", range(1, channels - count + 1), "count")))
            count += runs[-1][1]
        means = self._read_means(content, channels, True)

        def positive(count: int) -> tuple:
            numbers = []
            for _ in range(count):
                numbers.append(content.field("f"))
                if not (math.isfinite(numbers[-1]) and numbers[-1] > 0):
                    content.fail(content.at - 4, f"number {numbers[-1]}")
            return tuple(numbers)

        weights, scales = positive(channels), positive(count)
        if count * channels > len(content.data) - content.at:
            content.fail(len(content.data), "the section ends too early")
        matrix = tuple(struct.unpack(f"<{channels}b", content.take(channels)) for _ in range(count))
        while (content.at - start) % 4:
            content.field("B", (0,), "padding")
        return Components(tuple(runs), matrix, scales, weights, means)

    def _read_value_channels(self, content: Content, dimension: int) -> tuple:
        count = content.field("H", range(1, dimension), "number of value channels")
        channels = []
        for _ in range(count):
            channels.append(content.field("H", range(dimension), "value channel"))
            if channels[-1] in channels[:-1] or channels[-1] < max(channels):
                content.fail(content.at - 2, f"value channel {channels[-1]} out of order or a second time")
        if count % 2 == 0:
            content.field("H", (0,), "padding")
        return tuple(channels)

    def _layouts(self) -> list:
        """Layouts of blocks [layer][KV head]: plans of many heads are alike."""
        made = {}

        def layout(plan, value_dimension: int):
            if isinstance(plan, ComponentHead):
                return ComponentLayout(plan, self.header.blockLength)
            key = plan, value_dimension
            if key not in made:
                made[key] = BlockLayout(plan, value_dimension, self.header.blockLength, self.type)
            return made[key]

        return [
            [layout(plan, layer.valueDimension) for plan in heads]
            for heads, layer in zip(self.plans, self.geometry)
        ]

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
        verifiers = {
            PROFILE: self._verify_profile,
            PAGES: self._verify_pages,
            HELD_TOKENS: self._read_held_tokens,
            STATE: self._read_state,
            CHAIN: self._verify_chain,
            ARCHIVE_CHUNKS: self._verify_archive,
        }
        self.held_tokens, self.state = {}, []
        end = self.table_end
        for section in self.sections.values():
            padding = self.data[end : section.offset]
            if any(padding):
                first = next(i for i, byte in enumerate(padding) if byte)
                raise SnapshotError("invalidPadding", end + first, f"padding before {section.name} is not zero")
            end = section.end
            if section.kind in verifiers:
                verifiers[section.kind]()
            elif section.kind < FIRST_IGNORABLE:
                self.bytes_of(section.kind)
            else:  # of unknown content, so perhaps not even a frame that can be decoded
                self._check(section.offset, section.storedLength, section.checksum, f"section {section.kind}")

    def _verify_profile(self) -> None:
        content = self._content(PROFILE, "invalidProfile")
        for at, (x,) in zip(range(0, len(content.data), 4), struct.iter_unpack("<f", content.data)):
            if not (math.isfinite(x) and x >= 0):
                content.fail(at, f"mean squared query {x}")

    def _slab_length(self, chunk: int, layer: int) -> int:
        return len(self.pages.blocks(chunk, layer)) * sum(layout.length for layout in self.layouts[layer])

    def _slab_entries(self):
        """Offset, stored length, length and checksum of every slab."""
        pages, content = self.sections[PAGES], self._content(PAGE_TABLE, "invalidPageTable")
        at = pages.offset
        for chunk in range(self.pages.chunks):
            for layer in range(self.header.layers):
                start = content.at
                stored, checksum = content.field("I"), content.field("I")
                length = self._slab_length(chunk, layer)
                if length == 0:
                    good = stored == checksum == 0
                elif pages.coding == 0:
                    good = stored == length
                else:
                    good = stored <= length and zstd.may_expand(stored, length)
                if not good or stored > pages.end - at:
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

    def _archive_entries(self) -> list:
        """Offset, length and checksum of each chunk's shifts and records, and the unit's number, or None."""
        chunks, content = self.sections[ARCHIVE_CHUNKS], self._content(ARCHIVE_TABLE, "invalidArchiveTable")
        at, entries = chunks.offset, []
        for places in archive.chunk_places(self.geometry):
            for number in (None, *range(len(self.archive.units))):
                start = content.at
                length, checksum = content.field("I"), content.field("I")
                good = length <= chunks.end - at and (length or not checksum)
                if not good or not self._may_have(length, number, places):
                    content.fail(start, f"a record of {length} bytes")
                entries.append((at, length, checksum, number))
                at += length
        if at != chunks.end:
            content.fail(start, f"records end at {at}, ARCHIVE CHUNKS at {chunks.end}")
        return entries

    def _may_have(self, length: int, unit, places: range) -> bool:
        """Whether the shifts of places, or a unit's record of them, may have so many bytes."""
        if unit is None:
            return length == -(-len(places) // 4)
        return (length > 0) == (self._coded_rows(unit, places) > 0)

    def _coded_rows(self, unit: int, places: range) -> int:
        own = archive.coded_places(self.geometry[self.archive.units[unit].layer], self.header.tokens)
        return max(min(own.stop, places.stop) - max(own.start, places.start), 0)

    def archive_records(self) -> list:
        """The unit, or None, and the bytes of shifts and records."""
        if ARCHIVE_CHUNKS not in self.sections:
            return []
        return [(number, self.data[at : at + length]) for at, length, _, number in self._archive_entries()]

    def _verify_archive(self) -> None:
        entries = self._archive_entries()
        for at, length, checksum, _ in entries:
            self._check(at, length, checksum, "a record")
        chunks = iter(archive.chunk_places(self.geometry))
        for at, length, _, number in entries:
            data = self.data[at : at + length]
            if number is None:
                places = next(chunks)
                shifts = archive.read_shifts(data, places)
                continue
            unit = self.archive.units[number]
            own = archive.coded_places(self.geometry[unit.layer], self.header.tokens)
            rows = archive.rows_in_order(shifts, [place for place in places if place in own])
            try:
                archive.decode_record(data, unit.components, [len(some) for some in rows])
            except CodingError as error:
                raise SnapshotError("invalidArchiveRecord", at, str(error)) from None

    def positions(self):
        """Of each token."""
        data = self.bytes_of(POSITIONS)
        return struct.unpack(f"<{self.header.tokens}i", data) if data else range(self.header.tokens)

    def _read_held_tokens(self) -> None:
        content = self._content(HELD_TOKENS, "invalidHeldTokens")
        for number, layer in enumerate(self.geometry):
            if layer.held != LISTED:
                continue
            lists = self.held_tokens[number] = []
            for _ in range(layer.kvHeads):
                tokens = []
                for place in range(layer.heldTokens):
                    low = tokens[-1] + 1 if tokens else 0
                    allowed = range(place, place + 1) if place < layer.sinks else range(low, self.header.tokens)
                    tokens.append(content.field("I", allowed, f"place {place} of layer {number}: token"))
                lists.append(tokens)

    def _read_state(self) -> None:
        """Layer, name and bytes of each item."""
        content = self._content(STATE, "invalidState")
        count = content.field("I", range(1, 65537), "count")
        content.field("I", (0,), "reserved field")
        items, before = [], (0, b"")
        for _ in range(count):
            layer = content.field("I", range(before[0], self.header.layers), "layer")
            name, data = content.text(1, 256, "a name")
            if (layer, data) <= before:
                content.fail(content.at - len(data), "names are not ascending")
            items.append((layer, name, content.at, content.field("Q")))
            before = layer, data
        for layer, name, length_at, length in items:
            start = align64(content.at)
            if start + length > len(content.data):
                content.fail(length_at, f"{length} bytes of '{name}' pass the section's end")
            while content.at < start:
                content.field("B", (0,), "padding")
            self.state.append((layer, name, content.take(length)))
        content.finish()
        if len({(layer, unicodedata.normalize("NFC", name)) for layer, name, _ in self.state}) < count:
            content.fail(0, "two names are equivalent in Unicode")

    def _verify_chain(self) -> None:
        content = self._content(CHAIN, "invalidChain")
        tokens = self.bytes_of(TOKENS)
        digest = chain_start(self.header, self.geometry, self.metadata)
        for j in range(self.header.tokens // 256):
            digest = hashlib.sha256(digest + tokens[1024 * j : 1024 * (j + 1)]).digest()
            if content.take(32) != digest:
                content.fail(32 * j, f"digest {j} does not follow from the tokens")

    # The decoded cache, of a snapshot that has been verified

    def description(self) -> dict:
        header = {"version": self.version, **self.header._asdict(), "elementType": self.type.name}
        layers = [{**layer._asdict(), "held": HELD_NAMES[layer.held]} for layer in self.geometry]
        sections = [
            {
                "kind": s.kind,
                "name": s.name,
                "coding": "zstd" if s.coding else "raw",
                "offset": s.offset,
                "storedLength": s.storedLength,
                "length": s.length,
            }
            for s in self.sections.values()
        ]
        state = [{"layer": layer, "name": name, "length": len(data)} for layer, name, data in self.state]
        archive_text = {"step": self.archive.step, "units": len(self.archive.units)} if self.archive else {}
        return {
            "header": header,
            "layers": layers,
            "metadata": self.metadata,
            "recipe": "+".join(text for _, text in self.recipe) or None,
            "sections": sections,
            "state": state,
        } | ({"archive": archive_text} if archive_text else {})

    def tensors(self) -> list:
        """What the cache is as a dump (dump.md)."""
        result = []

        def add(name: str, dtype: str, element_size: int, shape: list) -> None:
            result.append(Tensor(name, dtype, shape, math.prod(shape) * element_size))

        dtype, size = self.type.name.upper(), self.type.size
        for number, layer in enumerate(self.geometry):
            add(f"layers.{number}.keys", dtype, size, [1, layer.kvHeads, layer.heldTokens, layer.keyDimension])
            if PROFILE in self.sections and layer.kvHeads:
                add(f"layers.{number}.q2", "F32", 4, [layer.kvHeads, layer.keyDimension])
            add(f"layers.{number}.values", dtype, size, [1, layer.kvHeads, layer.heldTokens, layer.valueDimension])
            if layer.held == LISTED:
                add(f"layers.{number}.held_tokens", "I32", 4, [layer.kvHeads, layer.heldTokens])
            for owner, name, data in self.state:
                if owner == number:
                    add(f"layers.{number}.state.{name}", "U8", 1, [len(data)])
        for kind, name in ((POSITIONS, "positions"), (TOKENS, "tokens")):
            if kind in self.sections:
                add(name, "I32", 4, [self.header.tokens])
        if self._dump_needs_token_count():
            add("token_count", "I32", 4, [1])
        return result

    def _dump_needs_token_count(self) -> bool:
        """Whether nothing else in a dump would say how many tokens the cache has."""
        longest = max(layer.heldTokens for layer in self.geometry)
        return not (POSITIONS in self.sections or TOKENS in self.sections or longest == self.header.tokens)

    def tensor_bytes(self, bases=None):
        """The bytes of `tensors()`, in their order; no more than a layer at a time, except of archives, which may
        need a profile's `bases`."""
        restored = archive.restored_rows(self, bases) if self.archive else []
        windows = self._archive_windows()
        slabs = list(self._slab_entries()) if PAGES in self.sections else []
        sinks = _Rows(self.bytes_of(SINKS), self.type.size)
        window = _Rows(self.bytes_of(WINDOW), self.type.size)
        profile = _Rows(self.bytes_of(PROFILE), 4)
        for number, layer in enumerate(self.geometry):
            if self.archive:
                keys, values = self._archived_layer(number, restored[number], sinks, windows[number])
            else:
                keys, values = self._layer(number, slabs, sinks, window)
            yield from keys
            yield profile.take(layer.kvHeads * layer.keyDimension)
            yield from values
            for tokens in self.held_tokens.get(number, []):
                yield struct.pack(f"<{len(tokens)}I", *tokens)
            yield from (data for owner, _, data in self.state if owner == number)
        for kind in (POSITIONS, TOKENS):
            yield self.bytes_of(kind)
        if self._dump_needs_token_count():
            yield struct.pack("<i", self.header.tokens)

    def _archive_windows(self) -> list:
        if not self.archive:
            return []
        data = self.bytes_of(ARCHIVE_WINDOW)
        return archive.window_rows(data, self.geometry, self.header.tokens, self.type)

    def _archived_layer(self, number: int, rows, sinks: "_Rows", window: list):
        """As `_layer`: sinks, then coded rows, then the window."""
        layer = self.geometry[number]
        parts = []
        for part, dimension in enumerate((layer.keyDimension, layer.valueDimension)):
            parts.append([bytearray(sinks.take(layer.sink_rows * dimension)) for _ in range(layer.kvHeads)])
            for head, target in enumerate(parts[-1] if dimension else []):
                for place in archive.coded_places(layer, self.header.tokens):
                    target += self.type.pack(rows[part][head, place])
                for row in window[part][head]:
                    target += self.type.pack(row)
        return parts

    def _layer(self, number: int, slabs: list, sinks: "_Rows", window: "_Rows"):
        """The bytes of keys and of values, head by head: sinks, then blocks, then the window."""
        layer, g = self.geometry[number], self.header.blockLength
        heads = range(layer.kvHeads)
        dimensions = layer.keyDimension, layer.valueDimension
        parts = [[bytearray(sinks.take(layer.sink_rows * d)) for _ in heads] for d in dimensions]
        low = max(layer.first(self.header.tokens), layer.sink_rows)  # blocks have stand-ins below
        for chunk in range(self.pages.chunks):
            offset, stored, length, _ = slabs[chunk * self.header.layers + number]
            slab = self._decoded(offset, stored, stored != length, length)
            at = 0
            for head in heads:
                plan, layout = self.plans[number][head], self.layouts[number][head]
                for block in self.pages.blocks(chunk, number):
                    rows = blocks.decode_block(slab[at : at + layout.length], plan, layout, self.type, g, *dimensions)
                    at += layout.length
                    for part, target in zip(rows, parts):
                        for row in part[max(low - block * g, 0) :]:
                            target[head] += self.type.pack(row)
        rows = len(layer.window(self.header.tokens))
        for target, d in zip(parts, dimensions):
            for head in heads:
                target[head] += window.take(rows * d)
        return parts


class _Rows:
    """Elements of a section, taken one after the other."""

    def __init__(self, data: bytes, size: int):
        self.data, self.size, self.at = data, size, 0

    def take(self, count: int) -> bytes:
        start, self.at = self.at, self.at + count * self.size
        return self.data[start : self.at]


def chain_start(header: Header, geometry: list, metadata: dict) -> bytes:
    """h[-1] of CHAIN."""
    text = struct.pack("<2I", header.elementType, header.layers)
    text += b"".join(struct.pack("<3I", layer.kvHeads, layer.keyDimension, layer.valueDimension) for layer in geometry)
    text += b"".join(
        encoded_pair(key, metadata[key])
        for key in sorted(metadata, key=str.encode)
        if key.startswith(("model.", "rope.", "tokenizer."))
    )
    return hashlib.sha256(text).digest()


def encoded_text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def encoded_pair(key: str, value: str) -> bytes:
    """A pair as METADATA has it."""
    return encoded_text(key) + encoded_text(value)
