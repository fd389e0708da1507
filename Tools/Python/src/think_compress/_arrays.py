"""Arrays of others as the library takes them: where they lie, if their strides allow that, and else copied."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ctypes import POINTER, c_float, c_int32
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._errors import InvalidArgument
from ._library import BlockTableStruct, Tensor, size

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


@dataclass(frozen=True, eq=False)
class BlockTable:
    """Where the tokens of paged keys and values are, in arrays `[pool's blocks, heads, tokens of a block, channels]`.

    Args:
        blocks: the number of each block of the sequence, in order.
        token_count: tokens that they hold.
        first_row: row of the first of these tokens, counted from the first block's begin.
    """

    blocks: Sequence[int] | npt.NDArray[Any]
    token_count: int
    first_row: int = 0


@dataclass(frozen=True)
class Numbers:
    """Keys, values or queries, `[heads, tokens, channels]`, that stay in memory as long as this does.

    Paged ones are the pool, `[blocks, heads, tokens of a block, channels]`.
    """

    array: npt.NDArray[Any]
    type_name: str
    table: BlockTable | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Heads, tokens and channels."""
        heads, tokens, channels = self.array.shape[-3:]
        return heads, tokens if self.table is None else self.table.token_count, channels

    def readable(self) -> Numbers:
        """These, or a copy of them if they lie as C can't be told."""
        if _lies_as_c_takes_it(self.array):
            return self
        copy = np.array(self.array, self.array.dtype.newbyteorder("="), order="C")
        return Numbers(copy, self.type_name, self.table)

    def tensor(self) -> Tensor:
        """What C is told of them, of those that are `readable` or written to."""
        # NumPy may say anything of strides that are never taken.
        strides = [
            stride // self.array.itemsize if extent > 1 and self.array.size > 0 else 0
            for stride, extent in zip(self.array.strides[-3:], self.array.shape[-3:], strict=True)
        ]
        return Tensor(self.array.ctypes.data, NUMBERS[self.type_name], *strides)


def block_struct(table: BlockTable, keys: Numbers | None, values: Numbers | None) -> tuple[BlockTableStruct, Any]:
    """What C is told of a table, and what must stay in memory as long as that."""
    ids = token_ids(table.blocks, None, "blocks")
    pools = [pool.array for pool in (keys, values) if pool is not None]
    if len({(len(pool), pool.shape[2]) for pool in pools}) > 1:
        raise InvalidArgument("keys and values have pools of different blocks")
    # NumPy may say anything of a stride that is never taken.
    strides = [
        0 if pool is None or len(pool.array) < 2 else pool.array.strides[0] // pool.array.itemsize
        for pool in (keys, values)
    ]
    struct = BlockTableStruct(
        blocks=ids_pointer(ids),
        block_count=0 if ids is None else len(ids),
        block_tokens=pools[0].shape[2] if pools else 1,
        first_row=size(table.first_row, "first_row"),
        pool_blocks=len(pools[0]) if pools else 1,
        key_block_stride=strides[0],
        value_block_stride=strides[1],
    )
    return struct, ids


def numbers(
    array: ArrayLike,
    name: str,
    dtype: str | None = None,
    *,
    is_written: bool = False,
    table: BlockTable | None = None,
) -> Numbers:
    """An array, checked, where it lies.

    Args:
        array: `[heads, tokens, channels]`, of any strides; a pool of blocks of such with a table.
        name: for messages.
        dtype: "bfloat16" if whole words of 16 bits are such.
        is_written: whether C writes to it, so that a copy would be of no use.
        table: where the tokens are, if they are paged.

    Raises:
        InvalidArgument: it is of another shape or type.
    """
    if is_written and isinstance(array, (list, tuple)):
        raise InvalidArgument(f"{name} is a {type(array).__name__}, must be an array to write to")
    result, is_bfloat16 = _as_numpy(array, name)
    if table is not None and result.ndim != 4:
        raise InvalidArgument(f"{name} has shape {list(result.shape)}, must be [blocks, heads, tokens, channels]")
    if table is None and result.ndim != 3:
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
    if dtype not in (None, kind):
        raise InvalidArgument(f"{name} is of type {kind}, and dtype is {dtype}")
    if kind == "bfloat16":
        result = result.view(np.uint16)
    if is_written and not _lies_as_c_takes_it(result):
        raise InvalidArgument(f"{name} is not aligned, or has negative, overlapping or uneven strides")
    if is_written and not result.flags.writeable:
        raise InvalidArgument(f"{name} can't be written to")
    return Numbers(result, kind, table)


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


def token_ids(
    tokens: Sequence[int] | npt.NDArray[Any] | None, count: int | None, name: str = "tokens"
) -> npt.NDArray[np.int32] | None:
    """Token ids, or other integers, as C takes them.

    Args:
        tokens: any integers of 32 bits, `[tokens]`.
        count: how many there must be; None for any number.
        name: for messages.

    Raises:
        InvalidArgument: they are not such, or not as many.
    """
    if tokens is None:
        return None
    given, _ = _as_numpy(tokens, name)
    if given.ndim != 1 or (given.dtype.kind not in "iu" and given.size > 0):
        raise InvalidArgument(f"{name} has shape {list(given.shape)} of {given.dtype.name}, must be a row of integers")
    if count is not None and len(given) != count:
        raise InvalidArgument(f"{name} has {len(given)} ids for {count} tokens")
    limits = np.iinfo(np.int32)
    if given.size > 0 and not limits.min <= int(given.min()) <= int(given.max()) <= limits.max:
        raise InvalidArgument(f"{name} has ids of more than 32 bits")
    return np.ascontiguousarray(given, dtype=np.int32)


def floats(numbers: npt.ArrayLike | None, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
    """Numbers as C takes them, or None for none.

    Raises:
        InvalidArgument: they are not of the shape.
    """
    if numbers is None:
        return None
    given, _ = _as_numpy(numbers, name)
    if given.shape != shape or given.dtype.kind not in "fiu":
        raise InvalidArgument(f"{name} has shape {list(given.shape)} of {given.dtype.name}, must be {list(shape)}")
    return np.ascontiguousarray(given, dtype=np.float32)


def floats_pointer(numbers: npt.NDArray[np.float32] | None) -> Any:
    """Where numbers lie; NULL for none."""
    return None if numbers is None else numbers.ctypes.data_as(POINTER(c_float))


def ids_pointer(ids: npt.NDArray[np.int32] | None) -> Any:
    """Where token ids lie; NULL for none."""
    return None if ids is None else ids.ctypes.data_as(POINTER(c_int32))
