from __future__ import annotations

import os

# Before NumPy or the library load OpenBLAS: its threads would spin.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from think_compress import Cache, Layer

HEADS, QUERY_HEADS, DIMENSION = 2, 4, 64

Array = npt.NDArray[Any]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture
def make_layer(random: np.random.Generator) -> Callable[..., Layer]:
    def make(tokens: int = 300, dtype: str = "float32", queries: int = 0) -> Layer:
        keys = random.standard_normal((HEADS, tokens, DIMENSION)).astype(dtype)
        values = random.standard_normal((HEADS, tokens, DIMENSION)).astype(dtype)
        asked = random.standard_normal((QUERY_HEADS, queries, DIMENSION)).astype(dtype) if queries else None
        return Layer(keys, values, asked)

    return make


@pytest.fixture
def cache(make_layer: Callable[..., Layer]) -> Cache:
    return Cache.compress([make_layer(), make_layer()], "kivi(bits=4)", tokens=range(300))
