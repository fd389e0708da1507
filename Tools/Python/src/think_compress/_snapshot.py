"""Snapshots: caches in files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from ctypes import byref, c_uint8

import numpy as np
import numpy.typing as npt

from ._arrays import NAMES, NUMBERS, ids_pointer, token_ids, type_name
from ._cache import Cache, LayerShape, TokenIds, _known, shape_structs
from ._errors import InvalidArgument
from ._library import (
    Handle,
    LayerShapeStruct,
    Metadata,
    Pointer,
    Progress,
    Run,
    SnapshotInfo,
    check,
    library,
    metadata_structs,
    size,
    text,
)

DIGEST_TOKENS, DIGEST_BYTES = 256, 32


def prefix_digests(
    layers: Sequence[LayerShape],
    tokens: TokenIds,
    dtype: npt.DTypeLike | str,
    metadata: Mapping[str, str] | None = None,
) -> list[bytes]:
    """Names of the prefixes of a prompt that has no cache yet: what `Snapshot.digests` of its cache would be.

    Args:
        layers: the shapes of the model's layers.
        tokens: ids of the prompt.
        dtype: of the model's caches.
        metadata: what they say of the model, such as model.id.
    """
    structs = shape_structs(layers)
    ids = token_ids(tokens, None)
    if ids is None:
        raise InvalidArgument("tokens is None, must be a row of integers")
    entries = metadata_structs(metadata)
    digests = (c_uint8 * (DIGEST_BYTES * (len(ids) // DIGEST_TOKENS)))()
    check(
        library.tc_prefix_digests(
            structs,
            len(structs),
            NUMBERS[type_name(dtype)],
            entries,
            len(entries),
            ids_pointer(ids),
            len(ids),
            digests,
            len(digests) // DIGEST_BYTES,
        )
    )
    return _parts(bytes(digests))


def _parts(digests: bytes) -> list[bytes]:
    return [digests[start : start + DIGEST_BYTES] for start in range(0, len(digests), DIGEST_BYTES)]


class Snapshot(Handle):
    """A snapshot in a mapped file: `Snapshot.open` makes it.

    The file may be replaced by renaming meanwhile, and must not be overwritten in place.
    """

    _path: str

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Snapshot:
        """Opens a file and checks all but its pages, which are not touched.

        Raises:
            FileNotFound: there is none.
            FileError: it can't be read.
            Damaged: it is no snapshot, or damaged, or of another version.
        """
        snapshot = cls(Pointer(library.tc_snapshot_open, text(path, "path"), free=library.tc_snapshot_free))
        snapshot._path = os.fspath(path)
        return snapshot

    def __enter__(self) -> Snapshot:
        return self

    def __repr__(self) -> str:
        if self._open_pointer is None:
            return f"<think_compress.Snapshot {self._path!r}: closed>"
        return f"<think_compress.Snapshot {self._path!r}: {self.token_count} tokens>"

    @property
    def token_count(self) -> int:
        """Tokens of the cache."""
        return int(self._info().tokens)

    @property
    def dtype(self) -> str:
        """The type of the keys and values that were compressed: float16, bfloat16 or float32."""
        return NAMES[self._info().type]

    @property
    def recipe(self) -> str | None:
        """The recipe that compressed the cache, in canonical text; None if it is not known."""
        pointer = self._pointer
        found = library.tc_snapshot_recipe(pointer)
        return None if found is None else str(found.decode())

    @property
    def layer_shapes(self) -> list[LayerShape]:
        """The shape of each layer."""
        shapes = []
        for layer in range(self._info().layers):
            shape = LayerShapeStruct()
            check(library.tc_snapshot_get_layer(self._pointer, layer, byref(shape)))
            shapes.append(LayerShape(shape.query_heads, shape.kv_heads, shape.key_dimension, shape.value_dimension))
        return shapes

    def _info(self) -> SnapshotInfo:
        info = SnapshotInfo()
        check(library.tc_snapshot_get_info(self._pointer, byref(info)))
        return info

    @property
    def token_ids(self) -> npt.NDArray[np.int32] | None:
        """The token ids, `[tokens]`, a copy; None if they are not known."""
        ids = np.empty(self.token_count, np.int32)
        return _known(library.tc_snapshot_get_token_ids(self._pointer, ids_pointer(ids), len(ids)), ids)

    @property
    def digests(self) -> list[bytes]:
        """Names of prefixes, one of 32 bytes for every whole 256 tokens, equal for equal tokens of one model.

        Raises:
            NotFound: the token ids are not known.
        """
        digests = (c_uint8 * (DIGEST_BYTES * (self.token_count // DIGEST_TOKENS)))()
        check(library.tc_snapshot_get_digests(self._pointer, digests, len(digests) // DIGEST_BYTES))
        return _parts(bytes(digests))

    @property
    def metadata(self) -> dict[str, str]:
        """The text that travels with the cache, such as that of model.id."""
        pointer = self._pointer
        result = {}
        for index in range(library.tc_snapshot_metadata_count(pointer)):
            entry = Metadata()
            check(library.tc_snapshot_get_metadata(pointer, index, byref(entry)))
            result[entry.key.decode()] = entry.value.decode()
        return result

    def check_model(
        self,
        layers: Sequence[LayerShape],
        dtype: npt.DTypeLike | str,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Checks that the cache is one of a model.

        Args:
            layers: the shapes of the model's layers.
            dtype: of its caches.
            metadata: what they say of the model, such as model.id. Keys count that name models, rotary embeddings or
                tokenizers and are there on both sides.

        Raises:
            OtherModel: it is of another one.
        """
        structs, entries = shape_structs(layers), metadata_structs(metadata)
        check(
            library.tc_snapshot_check_model(
                self._pointer, structs, len(structs), NUMBERS[type_name(dtype)], entries, len(entries)
            )
        )

    def verify(self, *, threads: int | None = None, progress: Progress | None = None) -> None:
        """Checks every byte of the file.

        Args:
            threads: that work, the caller's included; None for one per processor.
            progress: called with the fraction done, 0 to 1.

        Raises:
            Damaged: it is not what was written.
        """
        with Run(threads, progress) as options:
            check(library.tc_snapshot_verify(self._pointer, options))

    def load(self, tokens: int | None = None, *, threads: int | None = None, progress: Progress | None = None) -> Cache:
        """The cache, whose pages lie in the mapped file and are checked now. It stays when the snapshot is closed.

        Args:
            tokens: how many, from the first on; None for all.
            threads: that work, the caller's included; None for one per processor.
            progress: called with the fraction done, 0 to 1.
        """
        count = 2 ** (8 * np.dtype(np.uintp).itemsize) - 1 if tokens is None else size(tokens, "tokens")
        with Run(threads, progress) as options:
            made = Pointer(library.tc_snapshot_load, self._pointer, count, options, free=library.tc_cache_free)
        return Cache(made)
