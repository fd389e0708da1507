"""Compressed caches, and how they are made."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from ctypes import POINTER, byref, c_float, c_int, c_size_t, pointer
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import (
    NAMES,
    NUMBERS,
    ArrayLike,
    BlockTable,
    Numbers,
    block_struct,
    floats,
    floats_pointer,
    ids_pointer,
    memory_type,
    numbers,
    token_ids,
    type_name,
)
from ._errors import BY_STATUS, InvalidArgument, NotFound
from ._library import (
    AttentionOptions,
    CacheInfo,
    CompressorOptions,
    ErrorsStruct,
    Handle,
    LayerShapeStruct,
    LayerStruct,
    Pointer,
    Progress,
    Run,
    SaveOptions,
    Workers,
    check,
    library,
    metadata_structs,
    size,
    text,
)
from ._profile import Profile
from ._recipe import Recipe, pointer_of

TokenIds = Sequence[int] | npt.NDArray[Any]


class LayerShape(NamedTuple):
    """The shape of one layer; all 0 for a layer without keys and values."""

    query_heads: int
    """A multiple of `kv_heads`; 0 if not known."""
    kv_heads: int
    key_dimension: int
    value_dimension: int


NO_LAYER = LayerShape(0, 0, 0, 0)


def shape_structs(layers: Sequence[LayerShape]) -> Any:
    """The shapes of layers as C takes them.

    Raises:
        InvalidArgument: a number is negative, or too large for any memory.
    """
    structs = [LayerShapeStruct(*(size(number, "a layer's shape") for number in shape)) for shape in layers]
    return (LayerShapeStruct * len(structs))(*structs)


@dataclass(frozen=True, eq=False)
class Layer:
    """Keys and values of a layer's tokens, where they lie: arrays of any strides.

    For arrays `[tokens, heads, channels]` pass `array.transpose(1, 0, 2)`, which copies nothing.

    Args:
        keys: `[kv_heads, tokens, key_dimension]`, after rotary embedding.
        values: `[kv_heads, tokens, value_dimension]`, of the keys' type.
        queries: the prompt's last, after rotary embedding, `[query_heads, count, key_dimension]`; ThinK, SnapKV and
            their like need some.
        dtype: "bfloat16" if arrays of uint16 are such; other arrays say their type.
        accumulated_attention: `[kv_heads, tokens]`, the sum of the softmax weights that each token got, over all
            queries and the query heads of the group; for h2o, where it is known.
        output_weights: `[kv_heads, value_dimension]`, the squared norm of the output projection's column of each value
            channel, the mean over the query heads of the group; for think(values=...), where they are known.
        blocks: where the tokens are, if keys and values are paged: pools `[blocks, kv_heads, tokens of a block,
            dimension]`, of any strides.
    """

    keys: ArrayLike
    values: ArrayLike
    queries: ArrayLike | None = None
    dtype: str | None = None
    accumulated_attention: npt.ArrayLike | None = None
    output_weights: npt.ArrayLike | None = None
    blocks: BlockTable | None = None


class _LayerNumbers:
    """A layer with its shape checked, and what C is told of it.

    C knows pointers alone: where a shape is wrong and nobody checked it, C reads beyond the end.
    """

    def __init__(self, layer: Layer, name: str, shape: LayerShape | None = None) -> None:
        self.keys = numbers(layer.keys, f"{name}.keys", layer.dtype, table=layer.blocks)
        self.values = numbers(layer.values, f"{name}.values", layer.dtype, table=layer.blocks)
        self.queries: Numbers | None = None
        if layer.queries is not None:
            self.queries = numbers(layer.queries, f"{name}.queries", layer.dtype)
        heads, self.tokens, key_dimension = self.keys.shape
        value_dimension = self.values.shape[2]
        query_heads = self.queries.shape[0] if self.queries is not None else 0
        self.shape = shape or LayerShape(query_heads, heads, key_dimension, value_dimension)
        self._expect(self.keys, f"{name}.keys", self.shape.kv_heads, self.tokens, self.shape.key_dimension)
        self._expect(self.values, f"{name}.values", self.shape.kv_heads, self.tokens, self.shape.value_dimension)
        if self.queries is not None:
            count = self.queries.shape[1]
            heads = self.shape.query_heads or query_heads
            self._expect(self.queries, f"{name}.queries", heads, count, self.shape.key_dimension)
        heads, dimension = self.shape.kv_heads, self.shape.value_dimension
        self.accumulated_attention = floats(
            layer.accumulated_attention, f"{name}.accumulated_attention", (heads, self.tokens)
        )
        self.output_weights = floats(layer.output_weights, f"{name}.output_weights", (heads, dimension))

    @staticmethod
    def _expect(array: Numbers, name: str, *shape: int) -> None:
        if array.shape != shape:
            raise InvalidArgument(f"{name} has shape {list(array.shape)}, must be {list(shape)}")

    def struct(self) -> LayerStruct:
        """What C is told of the layer, as long as this object lives. Only now is copied what must be."""
        self.keys, self.values = self.keys.readable(), self.values.readable()
        self.queries = self.queries.readable() if self.queries is not None else None
        result = LayerStruct(keys=self.keys.tensor(), values=self.values.tensor(), tokens=self.tokens)
        if self.queries is not None:
            result.queries, result.query_count = self.queries.tensor(), self.queries.shape[1]
        if self.keys.table is not None:
            struct, self.block_ids = block_struct(self.keys.table, self.keys, self.values)
            result.blocks = pointer(struct)
        result.accumulated_attention = floats_pointer(self.accumulated_attention)
        result.output_weights = floats_pointer(self.output_weights)
        return result


def _layer_numbers(layer: Layer | None, name: str, shape: LayerShape | None = None) -> _LayerNumbers | None:
    if shape == NO_LAYER and layer is not None:
        raise InvalidArgument(f"{name} must be None: the layer has no keys and values")
    if layer is not None:
        if not isinstance(layer, Layer):
            raise InvalidArgument(f"{name} is a {type(layer).__name__}, must be a Layer or None")
        return _LayerNumbers(layer, name, shape)
    if shape is not None and shape != NO_LAYER:
        raise InvalidArgument(f"{name} is None, and the layer has keys and values")
    return None


PRECISIONS = ("automatic", "fast", "precise")


class Errors(NamedTuple):
    """What compression cost in a layer: relative errors, the norm of the difference over that of the original."""

    keys: float
    values: float
    scores: float | None
    """Of q * k; None without queries."""
    attention: float | None
    """Of the attention output; None without queries."""


class Compressor(Handle):
    """Compresses a cache layer by layer, so that only one at a time need be in full precision.

        with Compressor("kivi(bits=4)", shapes, token_count) as compressor:
            for layer in layers:
                compressor.add(layer)
            cache = compressor.finish()

    Args:
        recipe: how.
        layers: the shape of each, in order.
        token_count: tokens of the cache.
        dtype: the type of all keys and values.
        profile: the model's; then layers' own queries are not looked at, but by selections of tokens.
    """

    def __init__(
        self,
        recipe: Recipe | str,
        layers: Sequence[LayerShape],
        token_count: int,
        dtype: npt.DTypeLike | str = "float32",
        profile: Profile | None = None,
    ) -> None:
        self._shapes = [LayerShape(*shape) for shape in layers]
        self._token_count = size(token_count, "token_count")
        self._type_name = type_name(dtype)
        self._added = 0
        structs = shape_structs(self._shapes)
        # Held until the call is done, also if another thread closes the profile meanwhile.
        held = None if profile is None else profile._pointer
        options = CompressorOptions(profile=None if held is None else held._as_parameter_)
        super().__init__(
            Pointer(
                library.tc_compressor_create,
                pointer_of(recipe),
                structs,
                len(self._shapes),
                self._token_count,
                NUMBERS[self._type_name],
                byref(options),
                free=library.tc_compressor_free,
            )
        )

    def __enter__(self) -> Compressor:
        return self

    def __repr__(self) -> str:
        if self._open_pointer is None:
            return "<think_compress.Compressor: closed>"
        return (
            f"<think_compress.Compressor: {self._added} of {len(self._shapes)} layers, {self._token_count} tokens, "
            f"{self._type_name}>"
        )

    def add(self, layer: Layer | None, *, threads: int | None = None, progress: Progress | None = None) -> None:
        """Compresses the next layer. Recipes that decide about all layers together keep a copy until `finish`.

        Args:
            layer: None for one without keys and values. Fewer tokens than the cache has are its last ones, as a
                sliding window keeps them.
            threads: that work, the caller's included; None for one per processor.
            progress: called with the fraction done, 0 to 1.
        """
        handle = self._pointer
        if self._added >= len(self._shapes):
            raise InvalidArgument(f"all {len(self._shapes)} layers are there already")
        given = _layer_numbers(layer, f"layers[{self._added}]", self._shapes[self._added])
        if given is not None and given.tokens == 0 and self._token_count > 0:
            raise InvalidArgument(f"layers[{self._added}] has no tokens, and the cache has {self._token_count}")
        struct = given.struct() if given is not None else LayerStruct()
        with Run(threads, progress) as options:
            check(library.tc_compressor_add_layer(handle, byref(struct), options))
            self._added += 1

    def finish(
        self,
        *,
        tokens: TokenIds | None = None,
        metadata: Mapping[str, str] | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Cache:
        """The cache, when all layers were added. The compressor is then closed.

        Args:
            tokens: their ids, one per token.
            metadata: text that travels with the cache, such as model.id.
            threads: that work, the caller's included; None for one per processor.
            progress: called with the fraction done, 0 to 1.
        """
        handle = self._pointer
        ids = token_ids(tokens, self._token_count)
        structs = metadata_structs(metadata)
        made: Pointer | None = None
        try:
            with Run(threads, progress) as options:
                made = Pointer(
                    library.tc_compressor_finish,
                    handle,
                    ids_pointer(ids),
                    structs,
                    len(structs),
                    options,
                    free=library.tc_cache_free,
                )
        finally:
            # Also where progress raised at the very end: the compressor has handed out its cache then.
            if made is not None:
                self.close()
        assert made is not None
        return Cache(made)


class Cache(Handle):
    """A compressed cache: `Cache.compress` makes it, and `Snapshot.load`.

    Threads may use one at the same time; who reads it sees it before or after a change.
    """

    @classmethod
    def compress(
        cls,
        layers: Sequence[Layer | None],
        recipe: Recipe | str,
        *,
        tokens: TokenIds | None = None,
        metadata: Mapping[str, str] | None = None,
        profile: Profile | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Cache:
        """Compresses a cache that is in memory; `Compressor` takes one layer by layer.

        Args:
            layers: None for one without keys and values. Those with fewer tokens than others have the last ones.
            recipe: how, such as "think(keys=0.4)+kivi(bits=2)".
            tokens: their ids, one per token.
            metadata: text that travels with the cache, such as model.id.
            profile: the model's; then layers' own queries are not looked at, but by selections of tokens.
            threads: that work, the caller's included; None for one per processor.
            progress: called with the fraction done, 0 to 1.
        """
        given = [_layer_numbers(layer, f"layers[{index}]") for index, layer in enumerate(layers)]
        present = [layer for layer in given if layer is not None]
        ids = token_ids(tokens, None)
        count = len(ids) if ids is not None else max((layer.tokens for layer in present), default=0)
        shapes = [layer.shape if layer is not None else NO_LAYER for layer in given]
        kind = present[0].keys.type_name if present else "float32"
        report: Progress | None = None
        with Compressor(recipe, shapes, count, kind, profile) as compressor:
            for index, layer in enumerate(layers):
                if progress is not None:
                    report = _part(progress, index, len(given) + 1)
                compressor.add(layer, threads=threads, progress=report)
            if progress is not None:
                report = _part(progress, len(given), len(given) + 1)
            cache = compressor.finish(tokens=ids, metadata=metadata, threads=threads, progress=report)
        if progress is not None:
            progress(1.0)
        return cache

    def __enter__(self) -> Cache:
        return self

    def __repr__(self) -> str:
        if self._open_pointer is None:
            return "<think_compress.Cache: closed>"
        info = self._info()
        return (
            f"<think_compress.Cache: {info.tokens} tokens, {info.layers} layers, {NAMES[info.type]}, "
            f"{info.bits_per_value:.2f} bits per value, {info.block_bytes + info.full_precision_bytes} bytes>"
        )

    def _info(self) -> CacheInfo:
        info = CacheInfo()
        check(library.tc_cache_get_info(self._pointer, byref(info)))
        return info

    def _layer(self, layer: int) -> tuple[LayerShape, int]:
        """The shape of a layer, and its rows."""
        shape, rows = LayerShapeStruct(), c_size_t()
        check(library.tc_cache_get_layer(self._pointer, layer, byref(shape), byref(rows)))
        return LayerShape(shape.query_heads, shape.kv_heads, shape.key_dimension, shape.value_dimension), rows.value

    @property
    def token_count(self) -> int:
        """Tokens of the cache."""
        return int(self._info().tokens)

    @property
    def layer_count(self) -> int:
        """Layers of the cache, those without keys and values included."""
        return int(self._info().layers)

    @property
    def dtype(self) -> str:
        """The type of the keys and values that were compressed: float16, bfloat16 or float32."""
        return NAMES[self._info().type]

    @property
    def nbytes(self) -> int:
        """Bytes of the packed blocks and of the rows in full precision."""
        info = self._info()
        return int(info.block_bytes + info.full_precision_bytes)

    @property
    def bits_per_value(self) -> float:
        """Bits per number that the layers hold; 0 where they hold none."""
        return float(self._info().bits_per_value)

    @property
    def layer_shapes(self) -> list[LayerShape]:
        """The shape of each layer."""
        return [self._layer(layer)[0] for layer in range(self.layer_count)]

    def row_count(self, layer: int) -> int:
        """Rows of each KV head of a layer: as many as tokens, unless the layer holds only some."""
        return self._layer(size(layer, "layer"))[1]

    @property
    def token_ids(self) -> npt.NDArray[np.int32] | None:
        """The token ids, `[tokens]`, a copy; None if they are not known."""
        # Of a fork, so that no other thread changes their number meanwhile.
        with self.fork() as fork:
            ids = np.empty(fork.token_count, np.int32)
            status = library.tc_cache_get_token_ids(fork._pointer, ids_pointer(ids), len(ids))
        return _known(status, ids)

    def append(self, layers: Sequence[Layer | None], tokens: TokenIds | None = None) -> None:
        """Appends new tokens to all layers, or to none where it fails.

        Args:
            layers: as many as the cache has, each with the same number of tokens; None for those without keys and
                values.
            tokens: ids of the new tokens. Without them the cache has none from here on.
        """
        shapes = self.layer_shapes
        if len(layers) != len(shapes):
            raise InvalidArgument(f"layers has {len(layers)}, and the cache {len(shapes)}")
        given = [
            _layer_numbers(layer, f"layers[{index}]", shape)
            for index, (layer, shape) in enumerate(zip(layers, shapes, strict=True))
        ]
        counts = {layer.tokens for layer in given if layer is not None}
        if len(counts) > 1:
            raise InvalidArgument(f"layers have different numbers of tokens: {sorted(counts)}")
        ids = token_ids(tokens, next(iter(counts), None))
        count = next(iter(counts), 0 if ids is None else len(ids))
        structs = (LayerStruct * len(given))(*(layer.struct() if layer else LayerStruct() for layer in given))
        check(library.tc_cache_append(self._pointer, structs, len(given), count, ids_pointer(ids)))

    def truncate(self, token_count: int) -> None:
        """Keeps the first tokens.

        Raises:
            WholeOnly: the cache lacks tokens in some layer.
        """
        check(library.tc_cache_truncate(self._pointer, size(token_count, "token_count")))

    def drop_rows(self, layer: int, kept: int) -> None:
        """Drops the oldest rows of a layer, which no sliding window reaches any more, in whole pages of 256.

        Where rows were dropped the cache can't be cut any more. Rows that a selection of tokens has chosen stay.

        Args:
            layer: its number.
            kept: how many of the newest rows stay at least.
        """
        check(library.tc_cache_drop_rows(self._pointer, size(layer, "layer"), size(kept, "kept")))

    def fork(self) -> Cache:
        """Another cache of the same content. They share memory until one of them changes."""
        return Cache(Pointer(library.tc_cache_fork, self._pointer, free=library.tc_cache_free))

    def restore(
        self,
        layer: int,
        rows: slice | range | None = None,
        *,
        dtype: npt.DTypeLike | str | None = None,
        out: tuple[ArrayLike | None, ArrayLike | None] | None = None,
        blocks: BlockTable | None = None,
    ) -> tuple[Any, Any]:
        """Restores rows of a layer.

        Args:
            layer: its number.
            rows: which, in steps of 1; None for all.
            dtype: of the result; None for the cache's own, which restores what is in full precision bit for bit.
                bfloat16 is an array of ml_dtypes, or of uint16 where that is missing. With `out`, the type
                of its arrays, which need be given for uint16 alone: "bfloat16".
            out: arrays of any type and strides to write to, each of which may be None.
            blocks: where the rows are written, if `out` has pools of blocks: of as many tokens as there are rows.

        Returns:
            Keys `[kv_heads, rows, key_dimension]` and values `[kv_heads, rows, value_dimension]`, or `out`.
        """
        layer = size(layer, "layer")
        shape, row_count = self._layer(layer)
        if blocks is not None and out is None:
            raise InvalidArgument("blocks needs pools to write to: pass them as out")
        chosen = range(row_count) if rows is None else rows
        if isinstance(chosen, slice):
            chosen = range(row_count)[chosen]
        if chosen.step != 1:
            raise InvalidArgument(f"rows has a step of {chosen.step}, must be 1")
        first, count = size(chosen.start, "rows' start"), len(chosen)
        result: tuple[Any, Any]
        if out is None:
            kind = self.dtype if dtype is None else type_name(dtype)
            result = (
                np.empty((shape.kv_heads, count, shape.key_dimension), memory_type(kind)),
                np.empty((shape.kv_heads, count, shape.value_dimension), memory_type(kind)),
            )
        else:
            kind = "" if dtype is None else type_name(dtype)
            result = out
        tensors: list[Any] = []
        held: list[Numbers | None] = []
        for array, name, dimension in zip(result, ("keys", "values"), shape[2:], strict=True):
            if array is None:
                tensors.append(None)
                held.append(None)
                continue
            target = numbers(array, f"out's {name}", kind or None, is_written=True, table=blocks)
            _LayerNumbers._expect(target, f"out's {name}", shape.kv_heads, count, dimension)
            if kind not in ("", target.type_name):
                raise InvalidArgument(f"out's {name} is of type {target.type_name}, and dtype is {kind}")
            held.append(target)
            tensors.append(byref(target.tensor()))
        table, ids = (None, None) if blocks is None else block_struct(blocks, held[0], held[1])
        place = None if table is None else byref(table)
        check(library.tc_cache_restore(self._pointer, layer, first, count, *tensors, place))
        del ids  # Until here it was read.
        return result

    def attend(
        self,
        layer: int,
        queries: ArrayLike,
        *,
        scale: float | None = None,
        sliding_window: int | None = None,
        soft_cap: float | None = None,
        newer: Layer | None = None,
        sink_logits: npt.ArrayLike | None = None,
        precision: Literal["automatic", "fast", "precise"] = "automatic",
        workers: Workers | None = None,
        dtype: str | None = None,
    ) -> npt.NDArray[np.float32]:
        """Attention of queries over a layer, without decompressing it as a whole: softmax(q K^T) V.

        Args:
            layer: its number.
            queries: those of the newest tokens, `[query_heads, count, key_dimension]`, after rotary embedding, of any
                type. Each sees the tokens up to its own.
            scale: what q * k is multiplied by; None for 1 / sqrt(key_dimension).
            sliding_window: tokens that a query sees, its own included; None for all.
            soft_cap: scores are bent to cap * tanh(score / cap); None for none.
            newer: keys and values of tokens after the cache's, in full precision and of its type.
            sink_logits: `[query_heads]`, a score that takes its part of the softmax and has no value, as models with
                learned attention sinks have it; -inf for a head without.
            precision: how exactly queries and probabilities meet quantized keys and values: "fast" is 8 bits each, some
                2 % of error, "precise" 15 and 16 bits, and "automatic" is fast where the codes hide what that adds.
            workers: threads to run on; None for the calling thread alone.
            dtype: "bfloat16" if queries of uint16 are such.

        Returns:
            `[count, query_heads, value_dimension]`.
        """
        layer = size(layer, "layer")
        shape, _ = self._layer(layer)
        asked = numbers(queries, "queries", dtype).readable()
        heads, count, _ = asked.shape
        _LayerNumbers._expect(asked, "queries", heads, count, shape.key_dimension)
        options = AttentionOptions(scale=_option(scale, "scale"), soft_cap=_option(soft_cap, "soft_cap"))
        if sliding_window is not None:
            options.sliding_window = int(_option(size(sliding_window, "sliding_window"), "sliding_window"))
        more = _layer_numbers(newer, "newer", shape) if newer is not None else None
        if more is not None:
            options.newer = pointer(more.struct())
        sinks = floats(sink_logits, "sink_logits", (heads,))
        options.sink_logits = floats_pointer(sinks)
        if precision not in PRECISIONS:
            raise InvalidArgument(f"precision is {precision!r}, must be one of {', '.join(PRECISIONS)}")
        options.precision = PRECISIONS.index(precision)
        output = np.empty((count, heads, shape.value_dimension), np.float32)
        check(
            library.tc_cache_attend(
                self._pointer,
                layer,
                byref(asked.tensor()),
                heads,
                count,
                byref(options),
                None if workers is None else workers._pointer,
                output.ctypes.data_as(POINTER(c_float)),
                output.size,
            )
        )
        return output

    def measure_errors(
        self,
        layer: int,
        original: Layer,
        *,
        sliding_window: int | None = None,
        threads: int | None = None,
    ) -> Errors:
        """Compares a layer with its original in full precision.

        Args:
            layer: its number.
            original: of the cache's type. Its queries, if it has any, measure scores and attention.
            sliding_window: tokens that a query sees, its own included; None for all.
            threads: that work, the caller's included; None for one per processor.
        """
        layer = size(layer, "layer")
        shape, _ = self._layer(layer)
        given = _layer_numbers(original, "original", shape)
        if given is None:
            raise InvalidArgument("original is None, must be a Layer")
        struct, errors = given.struct(), ErrorsStruct()
        window = 0 if sliding_window is None else int(_option(size(sliding_window, "sliding_window"), "sliding_window"))
        with Run(threads, None) as options:
            check(library.tc_cache_measure_errors(self._pointer, layer, byref(struct), window, options, byref(errors)))
        scores = None if math.isnan(errors.scores) else float(errors.scores)
        attention = None if math.isnan(errors.attention) else float(errors.attention)
        return Errors(float(errors.keys), float(errors.values), scores, attention)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        replace: bool = False,
        zstd_level: int = 0,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Writes the cache to a file, whole or not at all, that its owner alone may read.

        What `progress` raises when it is told 1 comes after the file was written.

        Args:
            path: of the file.
            replace: whether a file of the same name may be replaced.
            zstd_level: 1 to 19 for archives; 0 to store pages as they are, to be used in place.
            threads: that work, the caller's included; None for one per processor.
            progress: called with the fraction done, 0 to 1.

        Raises:
            FileExists: there is one, and it was not to be replaced.
        """
        level = min(size(zstd_level, "zstd_level"), 2 ** (8 * 4 - 1) - 1)
        settings = SaveOptions(replace=c_int(bool(replace)), zstd_level=level)
        encoded = text(path, "path")
        with Run(threads, progress) as options:
            check(library.tc_cache_save(self._pointer, encoded, byref(settings), options))


def _known(status: int, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32] | None:
    """Token ids, or None where the library says that it has none."""
    if BY_STATUS.get(status) is NotFound:
        return None
    check(status)
    return ids


def _option(number: float | None, name: str) -> float:
    """A number as C takes it: 0 is its way to say none."""
    if number == 0:
        raise InvalidArgument(f"{name} must not be 0; None is the default")
    return number or 0


def _part(progress: Progress, index: int, count: int) -> Progress:
    """Progress of one of several calls as that of all."""
    return lambda fraction: progress((index + fraction) / count)
