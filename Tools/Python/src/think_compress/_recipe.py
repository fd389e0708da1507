"""Recipes: how a cache is compressed."""

from __future__ import annotations

import sys
from ctypes import byref, c_double
from typing import NamedTuple

import numpy.typing as npt

from ._arrays import NAMES, NUMBERS, type_name
from ._library import LayerShapeStruct, Pointer, RecipeInfoStruct, Run, check, library, size
from ._library import text as c_text


class RecipeInfo(NamedTuple):
    """What a recipe asks for, and what stays as it came."""

    observation_window: int | None
    """The prompt's last queries that it looks at; 0 for none, None for all there are."""
    residual_window: int
    """Newest tokens in full precision, at least."""
    sinks: int
    """First tokens in full precision."""
    selects_tokens: bool
    """Whether it drops some: then caches are used whole."""
    needs_all_layers: bool
    """Whether it looks at all layers before it compresses the first."""
    dtype: str | None
    """The type of the only caches that it takes; None for any."""


class Recipe:
    """How a cache is compressed, such as "think(keys=0.4)+kivi(bits=2)", or the name of a preset, such as "balanced".

    Two are equal if their canonical texts are, which `str` gives.

    Raises:
        RecipeError: the text is none. The message has the nearest right form.
    """

    __slots__ = ("_pointer", "_text")

    def __init__(self, text: str) -> None:
        self._pointer = Pointer(library.tc_recipe_parse, c_text(text, "text"), free=library.tc_recipe_free)
        self._text: str = library.tc_recipe_text(self._pointer).decode()

    @property
    def info(self) -> RecipeInfo:
        """What it asks for, and what stays as it came."""
        info = RecipeInfoStruct()
        check(library.tc_recipe_get_info(self._pointer, byref(info)))
        window = None if info.observation_window > sys.maxsize else info.observation_window
        return RecipeInfo(
            window,
            info.residual_window,
            info.sinks,
            bool(info.selects_tokens),
            bool(info.needs_all_layers),
            NAMES.get(info.type),
        )

    @property
    def advice(self) -> str:
        """Lines for people: what each stage does, and what the recipe needs of a layer."""
        return str(library.tc_recipe_advice(self._pointer).decode())

    def estimate_bits(
        self,
        layer: tuple[int, int, int, int],
        token_count: int,
        dtype: npt.DTypeLike | str = "float16",
        *,
        threads: int | None = None,
    ) -> float:
        """Estimates the bits per number of a layer by compressing one of random numbers.

        Args:
            layer: its `LayerShape`.
            token_count: tokens of the layer.
            dtype: of keys and values.
            threads: that work, the caller's included; None for one per processor.
        """
        shape = LayerShapeStruct(*(size(number, "the layer's shape") for number in layer))
        bits = c_double()
        with Run(threads, None) as options:
            check(
                library.tc_recipe_estimate_bits(
                    self._pointer,
                    byref(shape),
                    size(token_count, "token_count"),
                    NUMBERS[type_name(dtype)],
                    options,
                    byref(bits),
                )
            )
        return bits.value

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Recipe({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Recipe) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type[Recipe], tuple[str]]:
        return Recipe, (self._text,)


def pointer_of(recipe: Recipe | str) -> Pointer:
    """The handle of a recipe, or of what a text says."""
    return (Recipe(recipe) if isinstance(recipe, str) else recipe)._pointer
