"""Compresses a language model's KV cache, computes attention on the compressed cache, and keeps it as a file.

    cache = Cache.compress([Layer(keys, values)], "kivi(bits=4)")
    output = cache.attend(0, queries)
    cache.save("prompt.tkv")
    cache = Snapshot.open("prompt.tkv").load()

Keys, values and queries are arrays `[heads, tokens, channels]` of float16, bfloat16 or float32, after rotary embedding.
NumPy arrays, torch tensors on the CPU and whatever has DLPack or `__array_interface__` are read where they lie.
Paged caches are arrays of blocks with a `BlockTable`.
"""

from ._arrays import BlockTable
from ._cache import Cache, Compressor, Errors, Layer, LayerShape
from ._errors import (
    Cancelled,
    Damaged,
    FileError,
    FileExists,
    FileNotFound,
    InternalError,
    InvalidArgument,
    NotFound,
    OtherModel,
    OutOfMemory,
    RecipeError,
    ThinkCompressError,
    Unsupported,
    UnsupportedValue,
    WholeOnly,
)
from ._library import Workers, kernels, version
from ._profile import Profile
from ._recipe import Recipe, RecipeInfo
from ._snapshot import Snapshot, prefix_digests

__all__ = [
    "BlockTable",
    "Cache",
    "Cancelled",
    "Compressor",
    "Damaged",
    "Errors",
    "FileError",
    "FileExists",
    "FileNotFound",
    "InternalError",
    "InvalidArgument",
    "Layer",
    "LayerShape",
    "NotFound",
    "OtherModel",
    "OutOfMemory",
    "Profile",
    "Recipe",
    "RecipeError",
    "RecipeInfo",
    "Snapshot",
    "ThinkCompressError",
    "Unsupported",
    "UnsupportedValue",
    "WholeOnly",
    "Workers",
    "kernels",
    "prefix_digests",
    "version",
]
