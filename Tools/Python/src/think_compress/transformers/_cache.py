"""The cache."""

from __future__ import annotations

import contextlib
import os
import weakref
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache as TransformersCache
from transformers.cache_utils import DynamicCache

from .._arrays import token_ids, type_name
from .._cache import NO_LAYER, Cache
from .._errors import InvalidArgument, NotFound, Unsupported, WholeOnly
from .._recipe import Recipe
from .._snapshot import Snapshot
from ._layer import ThinkCompressLayer
from ._model import keys_depend_on_length
from ._store import Store, add_hooks, remove_hooks


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

    Layers with a sliding window hand out their last window. Tokens that it has left are dropped 256 at a time.

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
        self._store = Store(model, Recipe(recipe) if isinstance(recipe, str) else recipe, kind, model_id, threads)
        super().__init__(
            layers=[
                ThinkCompressLayer(self._store, index, None if place is None else place.window)
                for index, place in enumerate(self._store.places)
            ]
        )
        self._model = weakref.ref(model)
        self._finalizer = weakref.finalize(self, remove_hooks, add_hooks(model, self._store))
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
        recipe: Recipe | str | None = None,
        model_id: str | None = None,
        threads: int | None = None,
    ) -> ThinkCompressCache:
        """The longest beginning of a prompt that a snapshot has.

        Pass the whole prompt and the cache to `generate`, which computes what is new.

        Args:
            path: of the snapshot, of this class or another program's.
            model: the one that the cache is passed to, and that made the snapshot.
            tokens: ids of the whole prompt, `[tokens]` or `[1, tokens]`. The last is left for the model to compute.
            recipe: for a prompt to come if the cache is emptied; what is loaded stays as it is. None for the
                snapshot's own.
            model_id: as for the class; that of the snapshot, where another program wrote it.
            threads: as for the class.

        Raises:
            OtherModel: the snapshot is of another model, or of one in another type or shape.
            NotFound: the prompt begins otherwise, or the snapshot doesn't know its tokens.
            WholeOnly: the prompt shares only some of the tokens, and the snapshot can't be cut: it has sliding windows,
                a recipe dropped tokens, or its keys depend on its length (rotary embedding "dynamic" and "longrope").
            FileNotFound: there is no file.
            FileError: it can't be read.
            Damaged: it is no snapshot, or damaged.
        """
        with contextlib.ExitStack() as closing:
            snapshot = closing.enter_context(Snapshot.open(path))
            known = recipe or snapshot.recipe or "exact"
            cache = closing.enter_context(cls(model, known, model_id=model_id, threads=threads))
            store = cache._store
            shapes = [NO_LAYER if place is None else place.shape for place in store.places]
            snapshot.check_model(shapes, snapshot.dtype, store.metadata)
            can_be_cut = not keys_depend_on_length(store.config, snapshot.token_count)
            store.hold(_longest_prefix(snapshot, os.fspath(path), tokens, can_be_cut, threads))
            closing.pop_all()
            snapshot.close()
        return cache

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
