"""What a cache holds, and the hooks that tell it of a model's passes."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers.cache_utils import Cache as TransformersCache

from .._arrays import token_ids, type_name
from .._cache import NO_LAYER, Cache, Compressor, Layer
from .._errors import InvalidArgument, Unsupported
from .._library import version
from .._recipe import Recipe
from ._capture import Capture
from ._model import model_identity, model_places, rotary_metadata


class Store:
    """What a cache holds, shared by it and its layers.

    A pass brings new tokens layer by layer. Until the last layer has them they don't count: a pass that breaks off
    leaves nothing behind.
    """

    def __init__(
        self, model: Any, recipe: Recipe, dtype: str | None, model_id: str | None, threads: int | None
    ) -> None:
        decoder = model.get_decoder()
        # Configurations of models for text and images have one for text in them.
        self.config = model.config.get_text_config(decoder=True)
        self.recipe = recipe
        self.threads = threads
        self.model_type = type_name(str(model.dtype).removeprefix("torch."))
        asked = recipe.info
        self.stored_type = (asked.dtype or self.model_type) if dtype is None else type_name(dtype)
        self.places = model_places(self.config)
        self.holding = {index: place for index, place in enumerate(self.places) if place is not None}
        self._first = next(iter(self.holding))
        self.metadata = {
            "model.id": model_identity(decoder, self.config) if model_id is None else model_id,
            "model.dtype": self.model_type,
            "producer": f"think-compress {version()}, transformers {transformers.__version__}",
            **rotary_metadata(self.config),
        }
        window = sys.maxsize if asked.observation_window is None else asked.observation_window
        self.capture = Capture(window) if window > 0 else None
        self.compressed: Cache | None = None
        self.ids: npt.NDArray[np.int32] | None = None
        self._compressor: Compressor | None = None
        self._new: list[Layer | None] = []
        self._next = self._first
        self._added = 0
        if self.has_sliding_windows and asked.selects_tokens:
            raise Unsupported(
                f"{recipe} drops tokens, and layers with a sliding window must know which they hold; take a recipe "
                "without a selection of tokens"
            )

    @property
    def has_sliding_windows(self) -> bool:
        return any(place.window is not None for place in self.holding.values())

    @property
    def token_count(self) -> int:
        """Tokens that all layers have, those included that the recipe dropped."""
        return 0 if self.compressed is None else self.compressed.token_count

    @property
    def is_prompt(self) -> bool:
        """Whether the next pass, or this one, is compressed as the prompt."""
        return self.compressed is None

    def row_count(self, layer: int) -> int:
        """Rows of a layer that the next token sees."""
        place = self.holding.get(layer)
        if self.compressed is None or place is None:
            return 0
        return min(place.row_count(self.token_count), self.compressed.row_count(layer))

    def update(self, layer: int, keys: Any, values: Any) -> tuple[Any, Any]:
        """Takes new tokens of a layer, and hands out all that their queries see."""
        if keys.shape[0] != 1:
            raise NotImplementedError(
                f"a batch of {keys.shape[0]} sequences came, and a ThinkCompressCache holds one: make a cache for each "
                "sequence, and generate without beams and with num_return_sequences=1"
            )
        place = self.holding.get(layer)
        if place is None or (*keys.shape[1::2], values.shape[3]) != place.shape[1:]:
            raise NotImplementedError(
                f"keys {list(keys.shape)} and values {list(values.shape)} of layer {layer} are not those of heads that "
                "the model's configuration names: use a DynamicCache"
            )
        if layer == self._first:
            self.begin(keys.shape[2])
        if layer != self._next:
            raise InvalidArgument(f"new tokens of layer {layer} came, and those of layer {self._next} were expected")
        if self.is_prompt:
            queries = None if self.capture is None else self.capture.matching(layer, keys)
            self.add(layer, keys, values, queries)
            result = keys, values
        else:
            result = self._restored(layer, keys, values)
            self._new[layer] = Layer(self._stored(keys), self._stored(values))
        self._next = next((index for index in self.holding if index > layer), -1)
        if self._next < 0:
            self.finish()
        return result

    def begin(self, tokens: int) -> None:
        """Begins a pass; what one that broke off has left is dropped."""
        self._next = self._first
        self._new = [None] * len(self.places)
        if self.is_prompt:
            shapes = [NO_LAYER if place is None else place.shape for place in self.places]
            self._compressor = Compressor(self.recipe, shapes, tokens, self.stored_type)
            self._added = 0

    def add(self, layer: int, keys: Any, values: Any, queries: Any) -> None:
        """Compresses the prompt's tokens of a layer."""
        compressor, window = self._compressor, self.holding[layer].window
        assert compressor is not None
        rows = slice(None if window is None else -window, None)
        given = Layer(
            self._stored(keys[:, :, rows]),
            self._stored(values[:, :, rows]),
            None if queries is None else self._stored(queries),
        )
        for _ in range(self._added, layer):
            compressor.add(None)
        compressor.add(given, threads=self.threads)
        self._added = layer + 1

    def finish(self) -> None:
        """Ends a pass: all layers have its tokens."""
        if self._compressor is not None:
            for _ in range(self._added, len(self.places)):
                self._compressor.add(None)
            made = self._compressor.finish(tokens=self.ids, metadata=self.metadata, threads=self.threads)
            self._compressor = None
            self.hold(made)
        else:
            assert self.compressed is not None
            self.compressed.append(self._new, tokens=self.ids)
            for index, place in self.holding.items():
                if place.window is not None:
                    self.compressed.drop_rows(index, place.window)
        self._new = []
        self.ids = None

    def hold(self, made: Cache) -> None:
        """Takes a compressed cache, if the model can go on from it."""
        count = made.token_count
        whole = {made.row_count(index) for index, place in self.holding.items() if place.window is None}
        if len(whole) > 1:
            # One mask serves all of these layers.
            raise Unsupported(f"layers hold different numbers of tokens: {sorted(whole)}")
        for index, place in self.holding.items():
            if place.window is not None and made.row_count(index) < place.row_count(count):
                raise Unsupported(
                    f"layer {index} holds {made.row_count(index)} tokens, and its sliding window is {place.window}"
                )
        self.stored_type = made.dtype
        self.compressed = made

    def rows(self, layer: int, newer: int, dtype: Any, device: Any) -> tuple[Any, Any]:
        """The rows of a layer that the next token sees, restored, and room for newer ones.

        Returns:
            Keys and values, each `[1, kv_heads, rows + newer, dimension]`.
        """
        assert self.compressed is not None
        count, held = self.row_count(layer), self.compressed.row_count(layer)
        _, heads, key_dimension, value_dimension = self.holding[layer].shape
        # On the CPU, where the library writes to it.
        keys = torch.empty((1, heads, count + newer, key_dimension), dtype=dtype)
        values = torch.empty((1, heads, count + newer, value_dimension), dtype=dtype)
        self.compressed.restore(layer, range(held - count, held), out=(keys[0, :, :count], values[0, :, :count]))
        return keys.to(device), values.to(device)

    def _restored(self, layer: int, keys: Any, values: Any) -> tuple[Any, Any]:
        newer = keys.shape[2]
        all_keys, all_values = self.rows(layer, newer, keys.dtype, keys.device)
        all_keys[:, :, -newer:] = keys
        all_values[:, :, -newer:] = values
        return all_keys, all_values

    def _stored(self, tensor: Any) -> Any:
        """A tensor `[1, heads, tokens, channels]` as the library takes it."""
        return tensor[0].detach().to("cpu", getattr(torch, self.stored_type))

    def reset(self) -> None:
        """Drops all tokens."""
        self.compressed = self._compressor = self.ids = None
        self._new = []


def add_hooks(model: Any, store: Store) -> list[Any]:
    """Hooks on a model that tell the store of its passes, and of those of no other cache.

    The model holds them, and they don't hold the store.
    """
    reference = weakref.ref(store)

    def store_of(arguments: tuple[Any, ...], named: dict[str, Any]) -> Store | None:
        store = reference()
        # The argument's name is another in some versions.
        caches = [each for each in (*arguments, *named.values()) if isinstance(each, TransformersCache)]
        return store if any(getattr(cache, "_store", None) is store for cache in caches) else None

    def see_ids(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if (used := store_of(arguments, named)) is not None:
            ids = named.get("input_ids", arguments[0] if arguments else None)
            used.ids = None if ids is None or ids.shape[0] != 1 else token_ids(ids[0].cpu(), None)

    def see_queries(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        used = store_of(arguments, named)
        if used is not None and used.is_prompt and used.capture is not None:
            hidden = named.get("hidden_states", arguments[0] if arguments else None)
            used.capture.make(module, hidden, named["position_embeddings"])

    decoder = model.get_decoder()
    modules: list[Any] = []
    if store.capture is not None:
        known = Capture.modules(decoder)
        missing = [index for index in store.holding if index not in known]
        if missing:
            raise NotImplementedError(
                f"{store.recipe} needs queries, and those of layer {missing[0]} of a {type(model).__name__} can't be "
                "had; take a recipe that needs none, such as 'kivi(bits=4)' or one with score=keys"
            )
        modules = [known[index] for index in store.holding]
    return [
        decoder.register_forward_pre_hook(see_ids, with_kwargs=True),
        *(module.register_forward_pre_hook(see_queries, with_kwargs=True) for module in modules),
    ]


def remove_hooks(handles: Iterable[Any]) -> None:
    for handle in handles:
        handle.remove()
