"""The shared library: its structs, its functions, and how calls are made.

ctypes lets other threads of Python run during a call. The library may be called by any of them.
"""

from __future__ import annotations

import operator
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_int32,
    c_size_t,
    c_uint8,
    c_void_p,
    sizeof,
)
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, ClassVar

from ._errors import BY_STATUS, InternalError, InvalidArgument

PROGRESS = CFUNCTYPE(c_int, c_void_p, c_double)

Progress = Callable[[float], object]
"""Called with the fraction done, 0 to 1, on the thread that made the call. An exception in it ends the call."""


class SizedStruct(Structure):
    """A struct that begins with its size."""

    def __init__(self, *numbers: Any, **members: Any) -> None:
        super().__init__(*numbers, **members)
        self.size = sizeof(self)


class RunOptions(SizedStruct):
    _fields_: ClassVar = [("size", c_size_t), ("threads", c_size_t), ("progress", PROGRESS), ("context", c_void_p)]


class Tensor(Structure):
    """Both tc_tensor and tc_mutable_tensor."""

    _fields_: ClassVar = [
        ("data", c_void_p),
        ("type", c_int),
        ("head_stride", c_size_t),
        ("token_stride", c_size_t),
        ("channel_stride", c_size_t),
    ]


class LayerShapeStruct(Structure):
    _fields_: ClassVar = [
        ("query_heads", c_size_t),
        ("kv_heads", c_size_t),
        ("key_dimension", c_size_t),
        ("value_dimension", c_size_t),
    ]


class BlockTableStruct(SizedStruct):
    _fields_: ClassVar = [
        ("size", c_size_t),
        ("blocks", POINTER(c_int32)),
        ("block_count", c_size_t),
        ("block_tokens", c_size_t),
        ("first_row", c_size_t),
        ("pool_blocks", c_size_t),
        ("key_block_stride", c_size_t),
        ("value_block_stride", c_size_t),
    ]


class LayerStruct(SizedStruct):
    _fields_: ClassVar = [
        ("size", c_size_t),
        ("keys", Tensor),
        ("values", Tensor),
        ("tokens", c_size_t),
        ("queries", Tensor),
        ("query_count", c_size_t),
        ("blocks", POINTER(BlockTableStruct)),
        ("accumulated_attention", POINTER(c_float)),
        ("output_weights", POINTER(c_float)),
    ]


class RecipeInfoStruct(SizedStruct):
    _fields_: ClassVar = [
        ("size", c_size_t),
        ("observation_window", c_size_t),
        ("residual_window", c_size_t),
        ("sinks", c_size_t),
        ("selects_tokens", c_int),
        ("needs_all_layers", c_int),
        ("type", c_int),
    ]


class CompressorOptions(SizedStruct):
    _fields_: ClassVar = [("size", c_size_t), ("profile", c_void_p)]


class Metadata(Structure):
    _fields_: ClassVar = [("key", c_char_p), ("value", c_char_p)]


class CacheInfo(SizedStruct):
    _fields_: ClassVar = [
        ("size", c_size_t),
        ("tokens", c_size_t),
        ("layers", c_size_t),
        ("type", c_int),
        ("block_bytes", c_size_t),
        ("full_precision_bytes", c_size_t),
        ("bits_per_value", c_double),
    ]


class AttentionOptions(SizedStruct):
    _fields_: ClassVar = [
        ("size", c_size_t),
        ("scale", c_float),
        ("soft_cap", c_float),
        ("sliding_window", c_size_t),
        ("newer", POINTER(LayerStruct)),
        ("sink_logits", POINTER(c_float)),
        ("precision", c_int),
    ]


class ErrorsStruct(SizedStruct):
    _fields_: ClassVar = [
        ("size", c_size_t),
        ("keys", c_double),
        ("values", c_double),
        ("scores", c_double),
        ("attention", c_double),
    ]


class SnapshotInfo(SizedStruct):
    _fields_: ClassVar = [("size", c_size_t), ("tokens", c_size_t), ("layers", c_size_t), ("type", c_int)]


class SaveOptions(SizedStruct):
    _fields_: ClassVar = [("size", c_size_t), ("replace", c_int), ("zstd_level", c_int)]


_RUN, _HANDLE, _OUT = POINTER(RunOptions), c_void_p, POINTER(c_void_p)
_LAYERS, _IDS, _TENSOR = POINTER(LayerStruct), POINTER(c_int32), POINTER(Tensor)
_SHAPES, _METADATA, _DIGESTS = POINTER(LayerShapeStruct), POINTER(Metadata), POINTER(c_uint8)

# What each function returns and takes, as the header has it.
PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "tc_version": (c_char_p, []),
    "tc_kernels": (c_char_p, []),
    "tc_status_name": (c_char_p, [c_int]),
    "tc_last_error": (c_char_p, []),
    "tc_workers_create": (c_int, [c_size_t, _OUT]),
    "tc_workers_free": (None, [_HANDLE]),
    "tc_recipe_parse": (c_int, [c_char_p, _OUT]),
    "tc_recipe_text": (c_char_p, [_HANDLE]),
    "tc_recipe_get_info": (c_int, [_HANDLE, POINTER(RecipeInfoStruct)]),
    "tc_recipe_advice": (c_char_p, [_HANDLE]),
    "tc_recipe_estimate_bits": (c_int, [_HANDLE, _SHAPES, c_size_t, c_int, _RUN, POINTER(c_double)]),
    "tc_recipe_free": (None, [_HANDLE]),
    "tc_profile_open": (c_int, [c_char_p, _METADATA, c_size_t, _OUT]),
    "tc_profile_free": (None, [_HANDLE]),
    "tc_compressor_create": (
        c_int,
        [_HANDLE, _SHAPES, c_size_t, c_size_t, c_int, POINTER(CompressorOptions), _OUT],
    ),
    "tc_compressor_add_layer": (c_int, [_HANDLE, _LAYERS, _RUN]),
    "tc_compressor_finish": (c_int, [_HANDLE, _IDS, _METADATA, c_size_t, _RUN, _OUT]),
    "tc_compressor_free": (None, [_HANDLE]),
    "tc_cache_get_info": (c_int, [_HANDLE, POINTER(CacheInfo)]),
    "tc_cache_get_layer": (c_int, [_HANDLE, c_size_t, _SHAPES, POINTER(c_size_t)]),
    "tc_cache_get_token_ids": (c_int, [_HANDLE, _IDS, c_size_t]),
    "tc_cache_append": (c_int, [_HANDLE, _LAYERS, c_size_t, c_size_t, _IDS]),
    "tc_cache_truncate": (c_int, [_HANDLE, c_size_t]),
    "tc_cache_drop_rows": (c_int, [_HANDLE, c_size_t, c_size_t]),
    "tc_cache_fork": (c_int, [_HANDLE, _OUT]),
    "tc_cache_restore": (
        c_int,
        [_HANDLE, c_size_t, c_size_t, c_size_t, _TENSOR, _TENSOR, POINTER(BlockTableStruct)],
    ),
    "tc_cache_attend": (
        c_int,
        [
            _HANDLE,
            c_size_t,
            _TENSOR,
            c_size_t,
            c_size_t,
            POINTER(AttentionOptions),
            _HANDLE,
            POINTER(c_float),
            c_size_t,
        ],
    ),
    "tc_cache_measure_errors": (c_int, [_HANDLE, c_size_t, _LAYERS, c_size_t, _RUN, POINTER(ErrorsStruct)]),
    "tc_cache_free": (None, [_HANDLE]),
    "tc_cache_save": (c_int, [_HANDLE, c_char_p, POINTER(SaveOptions), _RUN]),
    "tc_snapshot_open": (c_int, [c_char_p, _OUT]),
    "tc_snapshot_verify": (c_int, [_HANDLE, _RUN]),
    "tc_snapshot_load": (c_int, [_HANDLE, c_size_t, _RUN, _OUT]),
    "tc_snapshot_get_info": (c_int, [_HANDLE, POINTER(SnapshotInfo)]),
    "tc_snapshot_get_layer": (c_int, [_HANDLE, c_size_t, _SHAPES]),
    "tc_snapshot_check_model": (c_int, [_HANDLE, _SHAPES, c_size_t, c_int, _METADATA, c_size_t]),
    "tc_snapshot_recipe": (c_char_p, [_HANDLE]),
    "tc_snapshot_get_token_ids": (c_int, [_HANDLE, _IDS, c_size_t]),
    "tc_snapshot_get_digests": (c_int, [_HANDLE, _DIGESTS, c_size_t]),
    "tc_prefix_digests": (
        c_int,
        [_SHAPES, c_size_t, c_int, _METADATA, c_size_t, _IDS, c_size_t, _DIGESTS, c_size_t],
    ),
    "tc_snapshot_metadata": (c_char_p, [_HANDLE, c_char_p]),
    "tc_snapshot_metadata_count": (c_size_t, [_HANDLE]),
    "tc_snapshot_get_metadata": (c_int, [_HANDLE, c_size_t, _METADATA]),
    "tc_snapshot_free": (None, [_HANDLE]),
}


def load(folder: Path) -> CDLL:
    """The library that lies in a folder.

    Raises:
        ImportError: it is not there, or the system can't load it.
    """
    path = folder / ("libthink_compress.dylib" if sys.platform == "darwin" else "libthink_compress.so")
    if not path.exists():
        raise ImportError(
            f"{path} is missing: build the package by Tools/Python/build, or by pip install Tools/Python, "
            "which needs Swift 6.3 or later"
        )
    try:
        library = CDLL(str(path))
        for name, (result, arguments) in PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise ImportError(
            f"{error}. The library needs zstd and OpenBLAS (on Debian the packages libzstd1 and libopenblas0); "
            "if they are there, build the package again by Tools/Python/build"
        ) from error
    return library


library = load(Path(__file__).resolve().parent)


def check(status: int) -> None:
    """Raises the exception of a status that isn't TC_OK."""
    if status:
        raise BY_STATUS.get(status, InternalError)((library.tc_last_error() or b"").decode("utf-8", "replace"))


class Pointer:
    """A handle of the library, freed with its last reference.

    A call holds a reference as its argument, so a handle that another thread closes is freed after the call.
    """

    __slots__ = ("_as_parameter_", "_free")

    def __init__(self, create: Callable[..., int], *arguments: Any, free: Callable[[Any], None]) -> None:
        self._as_parameter_ = c_void_p()
        # The function itself: at exit the module's names may be gone.
        self._free = free
        check(create(*arguments, byref(self._as_parameter_)))

    def __del__(self) -> None:
        self._free(self._as_parameter_)


class Handle:
    """What is closed by `close()`, by leaving its `with` block, or with the last reference to it."""

    _open_pointer: Pointer | None

    def __init__(self, pointer: Pointer) -> None:
        self._open_pointer = pointer

    @property
    def _pointer(self) -> Pointer:
        pointer = self._open_pointer
        if pointer is None:
            raise InvalidArgument(f"this {type(self).__name__} is closed")
        return pointer

    def close(self) -> None:
        """Frees the memory, once no other thread's call uses it. Nothing happens the second time."""
        self._open_pointer = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Run:
    """Options of a call that takes long: its threads, its progress, and Control-C, which ends it.

    Used as `with Run(threads, progress) as options: check(function(..., options))`.
    """

    def __init__(self, threads: int | None, progress: Progress | None) -> None:
        self._error: BaseException | None = None
        self._is_interrupted = False
        self._handles_interrupts = False
        self._progress = progress
        self._options = RunOptions(threads=size(threads or 0, "threads"), progress=PROGRESS(self._report))

    def _report(self, context: int | None, fraction: float) -> int:
        try:
            if self._progress is not None and self._error is None and not self._is_interrupted:
                self._progress(fraction)
        except BaseException as error:
            self._error = error
        return int(self._is_interrupted or self._error is not None)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._is_interrupted = True

    def __enter__(self) -> Any:
        # Python's own handler would raise KeyboardInterrupt as the callback is entered, where ctypes drops it. A
        # handler of the program's is left alone.
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, self._interrupt)
            self._handles_interrupts = True
        return byref(self._options)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._handles_interrupts and signal.getsignal(signal.SIGINT) == self._interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._progress = None
        if self._error is not None:
            context = self._error.__context__
            try:
                raise self._error
            finally:
                # As it was raised: that the call then ended says nothing more.
                self._error.__context__ = context
        if self._is_interrupted:
            raise KeyboardInterrupt


def size(number: int, name: str) -> int:
    """A number that C takes as size_t.

    Raises:
        InvalidArgument: it is negative, or too large for any memory.
    """
    number = operator.index(number)
    if not 0 <= number <= sys.maxsize:
        raise InvalidArgument(f"{name} is {number}, must be 0 to {sys.maxsize}")
    return number


def text(string: str | os.PathLike[str], name: str) -> bytes:
    """Text as C takes it.

    Raises:
        InvalidArgument: it has a character that C or UTF-8 can't have.
    """
    try:
        encoded = os.fsdecode(string).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{name} is not UTF-8") from error
    if b"\0" in encoded:
        raise InvalidArgument(f"{name} has a null character")
    return encoded


def metadata_structs(metadata: Mapping[str, str] | None, name: str = "metadata") -> Any:
    """Metadata as C takes it.

    Raises:
        InvalidArgument: it has a character that C or UTF-8 can't have.
    """
    entries = [(text(key, f"{name}'s key"), text(value, name)) for key, value in (metadata or {}).items()]
    return (Metadata * len(entries))(*(Metadata(*entry) for entry in entries))


def version() -> str:
    """The version of the library, such as "0.3.0"."""
    return str(library.tc_version().decode())


def kernels() -> str | None:
    """The instruction set of the kernels in use, such as "avx512".

    None if the environment variable THINK_COMPRESS_KERNELS names one that this machine lacks; then nothing works.
    """
    name = library.tc_kernels()
    return None if name is None else str(name.decode())


class Workers(Handle):
    """Threads that attention runs on, to be kept from call to call.

    Args:
        threads: how many, the caller's counted; None for one per processor.
    """

    def __init__(self, threads: int | None = None) -> None:
        super().__init__(
            Pointer(library.tc_workers_create, size(threads or 0, "threads"), free=library.tc_workers_free)
        )

    def __enter__(self) -> Workers:
        return self
