"""Snapshots: caches in files."""

from __future__ import annotations

import os
from ctypes import c_uint8

import numpy as np
import numpy.typing as npt

from ._arrays import ids_pointer
from ._cache import Cache, _known
from ._library import Handle, Pointer, Progress, Run, check, library, size, text


class Snapshot(Handle):
    """A snapshot in a mapped file: `Snapshot.open` makes it.

    The file may be replaced by renaming meanwhile, and must not be overwritten in place.
    """

    _path: str

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Snapshot:
        """Opens a file and checks all but its pages, which are not touched.

        Raises:
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
        return int(library.tc_snapshot_token_count(self._pointer))

    @property
    def token_ids(self) -> npt.NDArray[np.int32] | None:
        """The token ids, `[tokens]`, a copy; None if they are not known."""
        ids = np.empty(self.token_count, np.int32)
        return _known(library.tc_snapshot_get_token_ids(self._pointer, ids_pointer(ids), len(ids)), ids)

    def digest(self, prefix: int) -> bytes:
        """The name of a prefix, 32 bytes, equal for equal tokens of one model.

        Args:
            prefix: counts whole 256 tokens from 0.

        Raises:
            NotFound: there are no such tokens, or they are not known.
        """
        digest = (c_uint8 * 32)()
        check(library.tc_snapshot_get_digest(self._pointer, size(prefix, "prefix"), digest))
        return bytes(digest)

    def metadata(self, key: str, default: str | None = None) -> str | None:
        """The text of a key of metadata, such as model.id, or the default if there is none."""
        pointer = self._pointer
        found = library.tc_snapshot_metadata(pointer, text(key, "key"))
        return default if found is None else str(found.decode())

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
