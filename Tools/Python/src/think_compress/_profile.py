"""Profiles: what was measured of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ._library import Handle, Pointer, library, metadata_structs, text


class Profile(Handle):
    """What `think-compress profile` measured of a model: recipes then need no queries, and lose less.

    The file must not be overwritten in place as long as the profile is used.

    Args:
        path: of the file.
        model: what caches of the model say of it, such as model.id; a profile of another model is refused.

    Raises:
        FileNotFound: there is none.
        FileError: it can't be read.
        Damaged: it is no profile, or damaged.
        OtherModel: it is of another model.
    """

    def __init__(self, path: str | os.PathLike[str], model: Mapping[str, str] | None = None) -> None:
        self._path = os.fspath(path)
        structs = metadata_structs(model, "model")
        super().__init__(
            Pointer(library.tc_profile_open, text(path, "path"), structs, len(structs), free=library.tc_profile_free)
        )

    def __enter__(self) -> Profile:
        return self

    def __repr__(self) -> str:
        return f"<think_compress.Profile {self._path!r}{': closed' if self._open_pointer is None else ''}>"
