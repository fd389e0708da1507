"""Arrays of others as the library takes them: where they lie, if their strides allow that, and else copied."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ctypes import POINTER, c_int32
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._errors import InvalidArgument
from ._library import Tensor

ArrayLike = Any
"""A NumPy array, a torch tensor on the CPU, or what has DLPack, `__array_interface__` or the buffer protocol."""

NUMBERS = {"float16": 1, "bfloat16": 2, "float32": 3}
NAMES = {number: name for name, number in NUMBERS.items()}


def type_name(dtype: npt.DTypeLike | str) -> str:
    """float16, bfloat16 or float32.

    Raises:
        InvalidArgument: it is none of them.
    """
    try:
        name = dtype if isinstance(dtype, str) and dtype in NUMBERS else np.dtype(dtype).name
    except TypeError:
        name = str(dtype).removeprefix("torch.")
    if name not in NUMBERS:
        raise InvalidArgument(f"dtype is {name}, must be float16, bfloat16 or float32")
    return name


def memory_type(name: str) -> np.dtype[Any]:
    """The NumPy type that arrays of numbers are handed out in: bfloat16 is uint16 where ml_dtypes is missing."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        return np.dtype(np.uint16)
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def _as_numpy(array: ArrayLike, name: str) -> tuple[npt.NDArray[Any], bool]:
    """An array in NumPy's terms, over the same memory, and whether its numbers are bfloat16 in whole words."""
    if isinstance(array, np.ndarray):
        return np.asarray(array), False
    torch = sys.modules.get("torch")
    try:
        if torch is not None and isinstance(array, torch.Tensor):
            if array.dtype == torch.bfloat16:
                return array.detach().view(torch.int16).numpy().view(np.uint16), True
            return array.detach().numpy(), False
        if hasattr(array, "__dlpack__") and not hasattr(array, "__array_interface__"):
            try:
                return np.from_dlpack(array), False
            except (BufferError, RuntimeError, TypeError):
                pass  # Of a type that DLPack or NumPy doesn't have; it may be an array in another way.
        return np.asarray(array), False
    except Exception as error:
        raise InvalidArgument(f"{name} can't be read as an array on the CPU: {error}") from error


@dataclass(frozen=True)
class Numbers:
    """Keys, values or queries, `[heads, tokens, channels]`, that stay in memory as long as this does."""

    array: npt.NDArray[Any]
    type_name: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Heads, tokens and channels."""
        heads, tokens, channels = self.array.shape
        return heads, tokens, channels

    def readable(self) -> Numbers:
        """These, or a copy of them if they lie as C can't be told."""
        if _lies_as_c_takes_it(self.array):
            return self
        return Numbers(np.array(self.array, self.array.dtype.newbyteorder("="), order="C"), self.type_name)

    def tensor(self) -> Tensor:
        """What C is told of them, of those that are `readable` or written to."""
        if self.array.size == 0:
            strides = [self.shape[2], self.shape[2], 1]
        else:
            # NumPy may say anything of strides that are never taken.
            strides = [
                stride // self.array.itemsize if extent > 1 else 0
                for stride, extent in zip(self.array.strides, self.array.shape, strict=True)
            ]
        return Tensor(self.array.ctypes.data, NUMBERS[self.type_name], *strides)


def numbers(array: ArrayLike, name: str, dtype: str | None = None, *, is_written: bool = False) -> Numbers:
    """An array, checked, where it lies.

    Args:
        array: `[heads, tokens, channels]`, of any strides.
        name: for messages.
        dtype: "bfloat16" if whole words of 16 bits are such.
        is_written: whether C writes to it, so that a copy would be of no use.

    Raises:
        InvalidArgument: it is of another shape or type.
    """
    result, is_bfloat16 = _as_numpy(array, name)
    if result.ndim != 3:
        hint = "; pass one sequence, such as keys[0]" if result.ndim == 4 else ""
        raise InvalidArgument(f"{name} has shape {list(result.shape)}, must be [heads, tokens, channels]{hint}")
    if dtype is not None:
        type_name(dtype)
    kind = "bfloat16" if is_bfloat16 else result.dtype.name
    if dtype == "bfloat16" and kind in ("uint16", "int16"):
        kind = "bfloat16"
    if kind not in NUMBERS:
        raise InvalidArgument(
            f"{name} is of type {kind}, must be float16, bfloat16 or float32 (uint16 is bfloat16 with dtype='bfloat16')"
        )
    if kind == "bfloat16":
        result = result.view(np.uint16)
    if is_written and not _lies_as_c_takes_it(result):
        raise InvalidArgument(f"{name} is not aligned, or has negative, overlapping or uneven strides")
    if is_written and not result.flags.writeable:
        raise InvalidArgument(f"{name} can't be written to")
    return Numbers(result, kind)


def _lies_as_c_takes_it(array: npt.NDArray[Any]) -> bool:
    if not array.flags.aligned or not array.dtype.isnative:
        return False
    if array.size == 0:
        return True
    reach = 0
    axes = [(stride, extent) for stride, extent in zip(array.strides, array.shape, strict=True) if extent > 1]
    # From the innermost dimension out: each step must pass all that lies within it.
    for stride, extent in sorted(axes):
        if stride <= reach or stride % array.itemsize:
            return False
        reach += stride * (extent - 1)
    return True


def token_ids(tokens: Sequence[int] | npt.NDArray[Any] | None, count: int | None) -> npt.NDArray[np.int32] | None:
    """Token ids as C takes them.

    Args:
        tokens: any integers of 32 bits, `[tokens]`.
        count: how many there must be; None for any number.

    Raises:
        InvalidArgument: they are not such, or not as many.
    """
    if tokens is None:
        return None
    given, _ = _as_numpy(tokens, "tokens")
    if given.ndim != 1 or (given.dtype.kind not in "iu" and given.size > 0):
        raise InvalidArgument(f"tokens has shape {list(given.shape)} of {given.dtype.name}, must be a row of integers")
    if count is not None and len(given) != count:
        raise InvalidArgument(f"tokens has {len(given)} ids for {count} tokens")
    limits = np.iinfo(np.int32)
    if given.size > 0 and not limits.min <= int(given.min()) <= int(given.max()) <= limits.max:
        raise InvalidArgument("tokens has ids of more than 32 bits")
    return np.ascontiguousarray(given, dtype=np.int32)


def ids_pointer(ids: npt.NDArray[np.int32] | None) -> Any:
    """Where token ids lie; NULL for none."""
    return None if ids is None else ids.ctypes.data_as(POINTER(c_int32))
