"""A cache for `transformers` models that stays compressed between the steps of generation.

    cache = ThinkCompressCache(model, "kivi(bits=4)")
    output = model.generate(**inputs, past_key_values=cache)
    cache.save("prompt.tkv")

Memory is saved at rest, not in the step. The attention of `transformers`, eager or not, takes whole tensors of keys and
values. So each layer's are restored to the model's type when its attention asks for them, and are gone when it is done:
one layer at a time is there in full, and all others are compressed. It saves no time: restoring takes some.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import re
import sys
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ._arrays import token_ids, type_name
from ._cache import NO_LAYER, Cache, Compressor, Layer, LayerShape
from ._errors import InvalidArgument, NotFound, Unsupported, WholeOnly
from ._library import version
from ._recipe import Recipe
from ._snapshot import Snapshot

_NEEDED = "think_compress.transformers needs torch, and transformers 5 or later: pip install torch 'transformers>=5'"

try:
    import torch
    import transformers
    from transformers.cache_utils import Cache as TransformersCache
    from transformers.cache_utils import (
        CacheLayerMixin,
        DynamicCache,
        DynamicLayer,
        DynamicSlidingWindowLayer,
    )
except ImportError as error:
    raise ImportError(_NEEDED) from error
if int(transformers.__version__.split(".")[0]) < 5:
    raise ImportError(f"{_NEEDED}; this is {transformers.__version__}")

__all__ = ["ThinkCompressCache", "ThinkCompressLayer"]

_DEFAULT_OBSERVE = 32
"""Queries that stages read where their text doesn't say how many."""

_SAMPLED = 64
"""Numbers of each weight that a model is told by."""


@dataclass(frozen=True)
class _Place:
    """A layer of a model that holds keys and values."""

    shape: LayerShape
    window: int | None
    """Tokens that a query sees, its own included; None for all."""

    def row_count(self, tokens: int) -> int:
        """The newest of so many tokens that the next one sees."""
        return tokens if self.window is None else min(tokens, self.window - 1)


def _places(config: Any) -> list[_Place | None]:
    """The layers of a model's configuration; None for those that hold nothing."""
    # transformers' own cache knows which layer is of which kind.
    kinds = DynamicCache(config=config).layers
    configs = getattr(config, "per_layer_config", None) or [config] * config.num_hidden_layers
    places: list[_Place | None] = []
    for index, (kind, layer) in enumerate(zip(kinds, configs, strict=True)):
        if type(kind).__name__ == "DummyLayer":
            places.append(None)
            continue
        if type(kind) not in (DynamicLayer, DynamicSlidingWindowLayer) or not hasattr(layer, "num_attention_heads"):
            raise NotImplementedError(
                f"layer {index} of the model is held by a {type(kind).__name__}; a ThinkCompressCache holds keys and "
                "values of full and of sliding-window attention alone: use a DynamicCache"
            )
        query_heads = layer.num_attention_heads
        kv_heads = getattr(layer, "num_key_value_heads", None) or query_heads
        dimension = getattr(layer, "head_dim", None) or layer.hidden_size // query_heads
        shape = LayerShape(query_heads, kv_heads, dimension, dimension)
        places.append(_Place(shape, getattr(kind, "sliding_window", None)))
    return places


def _observation_window(recipe: Recipe) -> int | None:
    """The prompt's last queries that a recipe reads; None if it reads none."""
    stages = str(recipe).split("+")
    if any(stage.startswith("h2o(") for stage in stages):
        return sys.maxsize
    reading = [
        stage for stage in stages if stage.startswith(("think(", "snapkv(", "auto(")) and "score=keys" not in stage
    ]
    observed = [int(count) for stage in reading for count in re.findall(r"observe=(\d+)", stage)]
    return max([_DEFAULT_OBSERVE, *observed]) if reading else None


def _stored_type(recipe: Recipe, model_type: str) -> str:
    """The type that keys and values are compressed from: the recipe's, where it names one."""
    last = str(recipe).split("+")[-1]
    return {"f16": "float16", "bf16": "bfloat16", "f32": "float32"}.get(last, model_type)


def _identity(model: Any, config: Any) -> str:
    """What tells caches of a model from those of others.

    A digest of some numbers of every weight, and of what the configuration says of positions. It takes milliseconds
    where one of all weights takes seconds, and other weights, also fine-tuned ones, differ in all of them.
    """
    names = ("model_type", "rope_parameters", "rms_norm_eps", "layer_types", "sliding_window")
    known = {name: getattr(config, name, None) for name in names}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {list(weight.shape)} {weight.dtype}".encode())
        if weight.is_meta:
            continue  # It lies on a disk.
        numbers = weight.detach().reshape(-1)
        numbers = numbers[:: max(numbers.numel() // _SAMPLED, 1)][:_SAMPLED].contiguous().cpu()
        digest.update(numbers.view(torch.uint8).numpy().tobytes())
    return f"{type(model).__name__} {digest.hexdigest()}"


def _rotary(config: Any) -> dict[str, str]:
    """The metadata of a model's rotary embedding, as Formats/snapshot.md has it."""
    parameters = getattr(config, "rope_parameters", None)
    if not parameters:
        return {}
    by_kind = {kind: _plain_rotary(each) for kind, each in parameters.items() if isinstance(each, Mapping)}
    whole = by_kind.get("full_attention") or _plain_rotary(parameters)
    scaling: dict[str, Any] = dict(by_kind)
    if not by_kind and whole.get("rope_type", "default") != "default":
        scaling = {name: value for name, value in whole.items() if name != "rope_theta"}
    metadata = {"rope.scaling": json.dumps(scaling, sort_keys=True)} if scaling else {}
    if "rope_theta" in whole:
        metadata["rope.theta"] = str(whole["rope_theta"])
    return metadata


def _keys_depend_on_length(config: Any, tokens: int) -> bool:
    """Whether a prompt of so many tokens has other keys than one that goes on."""
    parameters = getattr(config, "rope_parameters", None) or {}
    limit = parameters.get("original_max_position_embeddings") or config.max_position_embeddings
    return parameters.get("rope_type") in ("dynamic", "longrope") and tokens > limit


def _plain_rotary(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of one embedding, numbers with a point unless they count tokens."""
    return {
        name: float(value) if isinstance(value, int) and "position" not in name else value
        for name, value in parameters.items()
        if value is not None
    }


class _Capture:
    """Queries of a pass, as the attention modules of a model make them.

    Attention hands its queries to nobody but the function that computes it, and that is chosen for the whole process
    or model: putting another there would reach into everybody's passes. So a hook, which sees what goes into the
    module, makes the few queries of the observation window once more, by the module's own projection, norm and rotary
    embedding. It makes keys in the same way, and `matching` compares them with those that come to the cache: so it
    finds out whether the layer has rotary embedding at all, and a module that goes about it differently is noticed.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        # Queries and keys with rotary embedding, and without.
        self._made: dict[int, list[tuple[Any, Any]]] = {}

    @staticmethod
    def modules(model: Any) -> dict[int, Any]:
        """The attention modules of a model whose queries can be made, by layer."""
        return {
            module.layer_idx: module
            for module in model.modules()
            if all(hasattr(module, name) for name in ("layer_idx", "head_dim", "q_proj", "k_proj"))
            and _Capture._rotation(module) is not None
        }

    @staticmethod
    def _rotation(module: Any) -> Any:
        """The function that rotates queries and keys of an attention module; None if it has none of both at once."""
        rotate = vars(sys.modules[type(module).__module__]).get("apply_rotary_pos_emb")
        return rotate if rotate is not None and list(inspect.signature(rotate).parameters)[:2] == ["q", "k"] else None

    def make(self, module: Any, hidden: Any, position_embeddings: Any) -> None:
        """Makes the queries of a layer.

        Args:
            module: its attention.
            hidden: what goes into it, `[1, tokens, width]`.
            position_embeddings: cosines and sines of the rotary embedding, each `[1, tokens, channels]`.
        """
        with torch.no_grad():
            hidden = hidden[:, -min(self._window, hidden.shape[1]) :]
            count = hidden.shape[1]
            shape = (*hidden.shape[:-1], -1, module.head_dim)
            queries, keys = module.q_proj(hidden), module.k_proj(hidden)
            norm = getattr(module, "q_norm", None)
            # Of each head, or of all together.
            is_of_heads = norm is None or norm.weight.shape[-1] == module.head_dim
            if not is_of_heads:
                queries, keys = module.q_norm(queries), module.k_norm(keys)
            queries, keys = queries.view(shape), keys.view(shape)
            if norm is not None and is_of_heads:
                queries, keys = module.q_norm(queries), module.k_norm(keys)
            plain = queries.transpose(1, 2), keys.transpose(1, 2)
            cosines, sines = (each[:, -count:] for each in position_embeddings)
            self._made[module.layer_idx] = [self._rotation(module)(*plain, cosines, sines), plain]

    def matching(self, layer: int, keys: Any) -> Any:
        """The queries of a layer, `[1, query_heads, count, key_dimension]`, which are then forgotten.

        Args:
            layer: its number.
            keys: that came to the cache, `[1, kv_heads, tokens, key_dimension]`.
        """
        if layer not in self._made:
            raise InvalidArgument(
                f"no queries of layer {layer} came with its keys: pass the cache to the model that it was made for"
            )
        for queries, made in self._made.pop(layer):
            came = keys[:, :, -made.shape[2] :]
            # One is rounded as the other, in sums of another order.
            if (made.float() - came.float()).norm() <= 0.02 * came.float().norm():
                return queries
        raise NotImplementedError(
            f"the attention of layer {layer} makes its queries in a way that is not known here; take a recipe that "
            "needs none, such as 'kivi(bits=4)' or one with score=keys"
        )


class _Store:
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
        self.stored_type = _stored_type(recipe, self.model_type) if dtype is None else type_name(dtype)
        self.places = _places(self.config)
        self.holding = {index: place for index, place in enumerate(self.places) if place is not None}
        self._first = next(iter(self.holding))
        self.metadata = {
            "model.id": _identity(decoder, self.config) if model_id is None else model_id,
            "model.dtype": self.model_type,
            "producer": f"think-compress {version()}, transformers {transformers.__version__}",
            **_rotary(self.config),
        }
        window = _observation_window(recipe)
        self.capture = None if window is None else _Capture(window)
        self.compressed: Cache | None = None
        self.ids: npt.NDArray[np.int32] | None = None
        self._compressor: Compressor | None = None
        self._new: list[Layer | None] = []
        self._next = self._first
        self._added = 0
        if self.has_sliding_windows and re.match(r"(streaming|snapkv|h2o|keydiff)\(", str(recipe)):
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


def _hooks(model: Any, store: _Store) -> list[Any]:
    """Hooks on a model that tell the store of its passes, and of those of no other cache.

    The model holds them, and they don't hold the store.
    """
    reference = weakref.ref(store)

    def store_of(arguments: tuple[Any, ...], named: dict[str, Any]) -> _Store | None:
        store = reference()
        # The argument's name is another in some versions.
        given = (*arguments, *named.values())
        return store if any(isinstance(each, ThinkCompressCache) and each._store is store for each in given) else None

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
        known = _Capture.modules(decoder)
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


def _remove(handles: Iterable[Any]) -> None:
    for handle in handles:
        handle.remove()


class ThinkCompressLayer(CacheLayerMixin):
    """One layer of a `ThinkCompressCache`, as `transformers` asks for it."""

    is_compileable = False
    supports_early_init = False

    def __init__(self, store: _Store, index: int, window: int | None) -> None:
        super().__init__()
        self._store = store
        self._index = index
        self.is_sliding = window is not None
        self.sliding_window = window
        self.is_initialized = True

    def __repr__(self) -> str:
        window = f", sliding window {self.sliding_window}" if self.is_sliding else ""
        return f"<ThinkCompressLayer {self._index}: {self._store.row_count(self._index)} tokens{window}>"

    def lazy_initialization(self, key_states: Any, value_states: Any) -> None:
        """Does nothing: the recipe and the first tokens decide what there is to hold."""

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Takes new tokens, and restores what their queries see.

        Args:
            key_states: of the new tokens, `[1, kv_heads, tokens, key_dimension]`, after rotary embedding.
            value_states: `[1, kv_heads, tokens, value_dimension]`.
            *args: what some versions say more, which is not needed.
            **kwargs: likewise.

        Returns:
            Keys and values of these tokens and those before, `[1, kv_heads, seen, dimension]`, in the model's type.
        """
        return self._store.update(self._index, key_states, value_states)

    def get_seq_length(self) -> int:
        """Tokens of the cache, those included that the layer doesn't hold."""
        return self._store.token_count

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        """How many keys `update` hands out for new tokens, and the token that the mask takes the first for.

        Tokens that a recipe dropped came before all queries, so it doesn't matter which the mask takes for them.

        Args:
            query_length: how many are new; in earlier versions of transformers a tensor of their positions.
        """
        count = len(query_length) if isinstance(query_length, torch.Tensor) else query_length
        rows = self._store.row_count(self._index)
        return rows + count, self._store.token_count - rows

    def get_max_length(self) -> int:
        """The sliding window; -1 for none."""
        return -1 if self.sliding_window is None else self.sliding_window

    def get_max_cache_shape(self) -> int:
        """The same by its older name."""
        return self.get_max_length()

    @property
    def is_croppable(self) -> bool:
        """Whether the layer holds all tokens, if it holds any."""
        store = self._store
        if store.compressed is None or self._index not in store.holding:
            return True
        return store.compressed.row_count(self._index) == store.token_count


class ThinkCompressCache(TransformersCache):
    """A cache of one sequence that keeps its layers compressed, for `model.generate(past_key_values=cache)`.

        with ThinkCompressCache(model, "balanced") as cache:
            model.generate(**inputs, past_key_values=cache)
            cache.save("prompt.tkv")
        cache = ThinkCompressCache.load("prompt.tkv", model, longer_prompt)

    The first pass is the prompt's: its attention sees keys and values as they are, and each layer is compressed when
    its attention has them, by the queries of the observation window. Later passes see the compressed tokens restored,
    and their own as they are; then these are appended. What a recipe chooses, it chooses by the first pass. So let that
    be the whole prompt, or with `prefill_chunk_size` a large part of it.

    Memory is saved at rest, not in the step: attention, eager or not, sees tensors of a whole layer, restored to the
    model's type, one layer at a time.

    Hooks on the model tell the cache the token ids and the queries of its own passes. They go with `close()`, at the
    end of a `with` block, or with the last reference to the cache, and they keep neither the model nor the cache alive.
    `copy.deepcopy` makes a fork, which shares memory with the cache until one of them changes.

    Layers with a sliding window hand out their last window. They compress tokens that it has left, and hold them still.

    Args:
        model: the one that the cache is passed to.
        recipe: how to compress, such as "kivi(bits=4)". One that drops tokens is right for models without sliding
            windows, and can't be cropped.
        dtype: what keys and values are rounded to before they are compressed: float16, bfloat16 or float32. None for
            what the recipe names ("f16"), and else the model's type.
        model_id: tells the model's snapshots from those of others; None for a digest of some numbers of all weights.
        threads: that compress; None for one per processor.

    Raises:
        NotImplementedError: the model has layers of another kind, or queries that can't be had.
        Unsupported: the recipe drops tokens, and the model has sliding windows.
    """

    def __init__(
        self,
        model: Any,
        recipe: Recipe | str = "balanced",
        *,
        dtype: npt.DTypeLike | str | None = None,
        model_id: str | None = None,
        threads: int | None = None,
    ) -> None:
        if getattr(model.config, "is_encoder_decoder", False):
            raise NotImplementedError("model has an encoder; a ThinkCompressCache is for decoders alone")
        kind = None if dtype is None else type_name(dtype)
        self._store = _Store(model, Recipe(recipe) if isinstance(recipe, str) else recipe, kind, model_id, threads)
        super().__init__(
            layers=[
                ThinkCompressLayer(self._store, index, None if place is None else place.window)
                for index, place in enumerate(self._store.places)
            ]
        )
        self._model = weakref.ref(model)
        self._finalizer = weakref.finalize(self, _remove, _hooks(model, self._store))
        # What ends with the interpreter needs no clearing up.
        self._finalizer.atexit = False

    # -- Conversions and files ----------------------------------------------------------------------------------------

    @classmethod
    def from_dynamic_cache(
        cls,
        cache: DynamicCache,
        model: Any,
        recipe: Recipe | str = "balanced",
        *,
        tokens: Any = None,
        dtype: npt.DTypeLike | str | None = None,
        model_id: str | None = None,
        threads: int | None = None,
    ) -> ThinkCompressCache:
        """Compresses a cache that a model has filled.

        It has no queries: ThinK scores channels by keys then, which `think(keys=...)` wants to be told by score=keys.

        Args:
            cache: of one sequence. It stays as it is.
            model: whose it is.
            recipe: how to compress.
            tokens: their ids, `[tokens]` or `[1, tokens]`, which `save` needs.
            dtype: as for the class.
            model_id: as for the class.
            threads: as for the class.
        """
        with contextlib.ExitStack() as closing:
            result = closing.enter_context(cls(model, recipe, dtype=dtype, model_id=model_id, threads=threads))
            if (count := int(cache.get_seq_length())) > 0:
                result._fill(cache, count, tokens)
            closing.pop_all()
        return result

    def _fill(self, cache: DynamicCache, count: int, tokens: Any) -> None:
        store = self._store
        if len(cache.layers) != len(store.places):
            raise InvalidArgument(f"cache has {len(cache.layers)} layers, and the model {len(store.places)}")
        store.ids = None if tokens is None else token_ids(_row(tokens), count)
        store.begin(count)
        for index in store.holding:
            keys, values = cache.layers[index].keys, cache.layers[index].values
            if keys is None or keys.shape[0] != 1:
                raise InvalidArgument("cache must hold one sequence in all layers; pass a cache of one, after a pass")
            store.add(index, keys, values, None)
        store.finish()

    def to_dynamic_cache(self) -> DynamicCache:
        """The cache restored, on the model's device and in its type.

        Raises:
            Unsupported: the recipe dropped tokens, whose positions a DynamicCache doesn't know.
        """
        store, model = self._store, self._model_alive()
        result = DynamicCache(config=store.config)
        count = store.token_count
        for index, place in store.holding.items() if count else ():
            if store.row_count(index) != place.row_count(count):
                raise Unsupported(f"layer {index} lacks tokens that {store.recipe} dropped: it can't be a DynamicCache")
            keys, values = store.rows(index, 0, getattr(torch, store.model_type), model.device)
            result.update(keys, values, index)
            if place.window is not None:
                result.layers[index].cumulative_length = count
        return result

    def save(self, path: str | os.PathLike[str], *, replace: bool = False, zstd_level: int = 0) -> None:
        """Writes a snapshot, to be loaded for prompts that begin with the same tokens.

        Args:
            path: of the file.
            replace: whether a file of the same name may be replaced.
            zstd_level: 1 to 19 for archives; 0 to store pages as they are, to be used in place.

        Raises:
            NotFound: there are no tokens yet, or their ids are not known, since they came as embeddings.
            FileExists: there is one, and it was not to be replaced.
        """
        if self._store.compressed is None:
            raise NotFound("the cache has no tokens to save: pass it to the model first")
        if self.token_ids is None:
            raise NotFound(
                "the ids of the cache's tokens are not known, and `load` goes by them: pass input_ids to the model, or "
                "tokens to from_dynamic_cache"
            )
        self._store.compressed.save(path, replace=replace, zstd_level=zstd_level, threads=self._store.threads)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: Any,
        tokens: Any,
        *,
        recipe: Recipe | str = "balanced",
        model_id: str | None = None,
        threads: int | None = None,
    ) -> ThinkCompressCache:
        """The longest beginning of a prompt that a snapshot has.

        Pass the whole prompt and the cache to `generate`, which computes what is new.

        Args:
            path: of the snapshot, of this class or another program's.
            model: the one that the cache is passed to, and that made the snapshot.
            tokens: ids of the whole prompt, `[tokens]` or `[1, tokens]`. The last is left for the model to compute.
            recipe: for tokens to come if the cache is emptied; those of the snapshot stay as they are.
            model_id: as for the class; that of the snapshot, where another program wrote it.
            threads: as for the class.

        Raises:
            InvalidArgument: the snapshot is of another model, or of one in another type or shape.
            NotFound: the prompt begins otherwise, or the snapshot doesn't know its tokens.
            WholeOnly: the prompt shares only some of the tokens, and the snapshot can't be cut: it has sliding windows,
                a recipe dropped tokens, or its keys depend on its length (rotary embedding "dynamic" and "longrope").
            FileError: the file can't be read.
            Damaged: it is no snapshot, or damaged.
        """
        with contextlib.ExitStack() as closing:
            result = closing.enter_context(cls(model, recipe, model_id=model_id, threads=threads))
            with Snapshot.open(path) as snapshot:
                result._expect_same_model(snapshot, path)
                can_be_cut = not _keys_depend_on_length(result._store.config, snapshot.token_count)
                loaded = _longest_prefix(snapshot, os.fspath(path), tokens, can_be_cut, threads)
            expected = [NO_LAYER if place is None else place.shape for place in result._store.places]
            # Not all programs know the query heads.
            if [shape[1:] for shape in loaded.layer_shapes] != [shape[1:] for shape in expected]:
                raise InvalidArgument(f"{os.fspath(path)} has layers of other shapes than the model")
            result._store.hold(loaded)
            closing.pop_all()
        return result

    def _expect_same_model(self, snapshot: Snapshot, path: str | os.PathLike[str]) -> None:
        for key, mine in self._store.metadata.items():
            found = snapshot.metadata(key, mine)
            if key != "producer" and found != mine:
                raise InvalidArgument(
                    f"{os.fspath(path)} was made by another model: its {key} is {found}, this model's {mine}; pass the "
                    "model that made it"
                )

    def fork(self) -> ThinkCompressCache:
        """Another cache of the same content. They share memory until one of them changes."""
        store = self._store
        result = ThinkCompressCache(
            self._model_alive(),
            store.recipe,
            dtype=store.stored_type,
            model_id=store.metadata["model.id"],
            threads=store.threads,
        )
        if store.compressed is not None:
            result._store.hold(store.compressed.fork())
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> ThinkCompressCache:
        return self.fork()

    def _model_alive(self) -> Any:
        model = self._model()
        if model is None:
            raise InvalidArgument("the model that the cache was made for is gone")
        return model

    # -- What it holds ------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        store = self._store
        windows = sum(place.window is not None for place in store.holding.values())
        layers = f"{len(self.layers)} layers" + (f" ({windows} with a sliding window)" if windows else "")
        compressed = store.compressed
        if not self._finalizer.alive:
            return "<ThinkCompressCache: closed>"
        if compressed is None:
            return f"<ThinkCompressCache: {store.recipe}, {layers}, no tokens yet>"
        return (
            f"<ThinkCompressCache: {store.recipe}, {layers}, {compressed.token_count} tokens, {compressed.dtype}, "
            f"{compressed.bits_per_value:.2f} bits per value, {compressed.nbytes} bytes>"
        )

    @property
    def compressed(self) -> Cache | None:
        """The compressed cache itself, which says its size; None while there are no tokens. Change only forks of it."""
        return self._store.compressed

    @property
    def token_ids(self) -> npt.NDArray[np.int32] | None:
        """Ids of the tokens, `[tokens]`; None if they are not known, as where embeddings were passed to the model."""
        compressed = self._store.compressed
        return np.empty(0, np.int32) if compressed is None else compressed.token_ids

    # -- Changes ------------------------------------------------------------------------------------------------------

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Takes new tokens of a layer: see `ThinkCompressLayer.update`."""
        if not self._finalizer.alive:
            raise InvalidArgument("this ThinkCompressCache is closed")
        result: tuple[Any, Any] = self.layers[layer_idx].update(key_states, value_states)
        return result

    def crop(self, tokens_to_remove: int) -> None:
        """Drops the last tokens.

        Args:
            tokens_to_remove: how many, as a negative number. A positive one is how many to keep, as in earlier versions
                of transformers; 0 changes nothing.

        Raises:
            WholeOnly: a layer lacks tokens, by its sliding window or since the recipe dropped some.
        """
        count = self._store.token_count
        kept = tokens_to_remove if tokens_to_remove > 0 else count + tokens_to_remove
        if self._store.compressed is None or kept >= count:
            return
        if kept <= 0:
            self._store.reset()
        else:
            self._store.compressed.truncate(kept)

    def reset(self) -> None:
        """Drops all tokens: the next pass is a prompt's again."""
        self._store.reset()

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Does nothing for one sequence; others are refused."""
        if repeats != 1:
            self._refuse_batches(f"{repeats} repeats")

    def batch_select_indices(self, indices: Any) -> None:
        """Does nothing for the one sequence; others are refused."""
        if torch.as_tensor(indices).tolist() != [0]:
            self._refuse_batches(f"the sequences {indices}")

    def reorder_cache(self, beam_idx: Any) -> None:
        """Does nothing for the one beam; others are refused."""
        if torch.as_tensor(beam_idx).tolist() != [0]:
            self._refuse_batches(f"the beams {beam_idx}")

    @staticmethod
    def _refuse_batches(asked: str) -> None:
        raise NotImplementedError(
            f"{asked} were asked for, and a ThinkCompressCache holds one sequence: make a fork() for each"
        )

    # -- Life ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Removes the hooks from the model and frees the memory. Nothing happens the second time."""
        self._finalizer()
        self._store.reset()

    def __enter__(self) -> ThinkCompressCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _row(tokens: Any) -> Any:
    """Token ids `[tokens]` of those or of `[1, tokens]`, on the CPU."""
    ids = tokens.detach().cpu().numpy() if isinstance(tokens, torch.Tensor) else np.asarray(tokens)
    return ids[0] if ids.ndim == 2 and len(ids) == 1 else ids


def _longest_prefix(snapshot: Snapshot, path: str, tokens: Any, can_be_cut: bool, threads: int | None) -> Cache:
    """The tokens of a snapshot that a prompt begins with, but for the prompt's last."""
    known, given = snapshot.token_ids, token_ids(_row(tokens), None)
    assert given is not None
    if known is None:
        raise NotFound(f"{path} doesn't know its tokens: save it with their ids")
    limit = max(min(len(known), len(given) - 1), 0)
    differing = np.flatnonzero(known[:limit] != given[:limit])
    shared = int(differing[0]) if len(differing) else limit
    if shared == 0:
        raise NotFound(f"{path} has no token that tokens begin with: compute the prompt anew")
    with contextlib.suppress(WholeOnly):
        if can_be_cut or shared == len(known):
            return snapshot.load(shared, threads=threads)
    raise WholeOnly(
        f"{path} has {len(known)} tokens and can be used whole only, and tokens share {shared} of them, the last left "
        "out: compute the prompt anew"
    )
