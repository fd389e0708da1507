from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import DIMENSION, HEADS, QUERY_HEADS, Array

from think_compress import Cache, Compressor, InvalidArgument, Layer, LayerShape, Recipe, WholeOnly, Workers
from think_compress._arrays import numbers

MakeLayer = Callable[..., Layer]

# Full precision of each type; "words" are bfloat16 in uint16.
RECIPES = {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "words": "bf16"}


def relative_error(result: Array, expected: Array) -> float:
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))


def softmax_attention(
    queries: Array, keys: Array, values: Array, scale: float, window: int | None = None, cap: float | None = None
) -> Array:
    """`[count, query_heads, value_dimension]`, as the header says it."""
    group = len(queries) // len(keys)
    keys, values = np.repeat(keys, group, axis=0), np.repeat(values, group, axis=0)
    scores = np.einsum("hqd,htd->hqt", queries, keys).astype(np.float64) * scale
    if cap is not None:
        scores = cap * np.tanh(scores / cap)
    count, tokens = scores.shape[1:]
    position = np.arange(tokens)[None, :]
    own = np.arange(tokens - count, tokens)[:, None]
    is_seen = position <= own
    if window is not None:
        is_seen &= position > own - window
    scores = np.where(is_seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    output: Array = np.einsum("hqt,htd->qhd", weights, values)
    return output


def test_recipe() -> None:
    recipe = Recipe("think(keys=0.4)+kivi(bits=2)")
    assert recipe == Recipe(str(recipe)) and hash(recipe) == hash(Recipe(str(recipe)))
    assert recipe != Recipe("f16") and recipe != "f16"
    assert repr(recipe) == f"Recipe({str(recipe)!r})"
    assert pickle.loads(pickle.dumps(recipe)) == recipe


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16", "words"])
@pytest.mark.parametrize("layout", ["heads first", "tokens first", "transposed values", "reversed", "every second"])
def test_full_precision_comes_back_bit_for_bit(
    random: np.random.Generator, make_layer: MakeLayer, dtype: str, layout: str
) -> None:
    layer = make_layer(600 if layout == "every second" else 300)
    keys, values = layer.keys, layer.values
    if dtype == "words":
        keys, values = ((array.view(np.uint32) >> 16).astype(np.uint16) for array in (keys, values))
    elif dtype == "bfloat16":
        bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
        keys, values = keys.astype(bfloat16), values.astype(bfloat16)
    else:
        keys, values = keys.astype(dtype), values.astype(dtype)
    if layout == "tokens first":
        keys, values = (np.ascontiguousarray(array.transpose(1, 0, 2)).transpose(1, 0, 2) for array in (keys, values))
    elif layout == "transposed values":
        values = np.ascontiguousarray(values.transpose(0, 2, 1)).transpose(0, 2, 1)
    elif layout == "reversed":
        keys, values = keys[:, ::-1], values[::-1]
    elif layout == "every second":
        keys, values = keys[:, ::2], values[:, ::2]
    cache = Cache.compress([Layer(keys, values, dtype="bfloat16" if dtype == "words" else None)], RECIPES[dtype])
    restored = cache.restore(0)
    for result, expected in zip(restored, (keys, values), strict=True):
        assert result.shape == (HEADS, 300, DIMENSION)
        assert np.array_equal(result.view(np.uint8), np.ascontiguousarray(expected).view(np.uint8))
    assert cache.dtype == ("bfloat16" if dtype == "words" else dtype)
    assert cache.layer_shapes == [LayerShape(0, HEADS, DIMENSION, DIMENSION)]


def test_what_a_cache_says_of_itself(cache: Cache) -> None:
    assert (cache.token_count, cache.layer_count, cache.row_count(1)) == (300, 2, 300)
    assert 4 < cache.bits_per_value < 20
    assert cache.nbytes == round(cache.bits_per_value * 2 * 2 * HEADS * 300 * DIMENSION / 8)
    assert repr(cache) == (
        f"<think_compress.Cache: 300 tokens, 2 layers, float32, {cache.bits_per_value:.2f} bits per value, "
        f"{cache.nbytes} bytes>"
    )
    ids = cache.token_ids
    assert ids is not None and ids.dtype == np.int32 and ids.tolist() == list(range(300))


def test_restoring_rows(make_layer: MakeLayer) -> None:
    layer = make_layer(300)
    cache = Cache.compress([layer], "kivi(bits=8)")
    keys, values = cache.restore(0)
    assert 0 < relative_error(keys, layer.keys) < 0.02
    assert 0 < relative_error(values, layer.values) < 0.02
    for rows in (slice(10, 75), range(10, 75)):
        assert np.array_equal(cache.restore(0, rows)[0], keys[:, 10:75])
    zero: Any = np.int64(0)
    assert np.array_equal(cache.restore(zero, slice(-5, None))[1], values[:, -5:])
    assert cache.restore(0, slice(9, 9))[0].shape == (HEADS, 0, DIMENSION)
    assert np.array_equal(cache.restore(0, dtype="float16")[0], keys.astype(np.float16))
    out = np.zeros((300, HEADS, DIMENSION), np.float16)
    result = cache.restore(0, out=(None, out.transpose(1, 0, 2)))
    assert result[0] is None
    assert np.array_equal(out.transpose(1, 0, 2), values.astype(np.float16))
    words = np.zeros((HEADS, 300, DIMENSION), np.uint16)
    cache.restore(0, dtype="bfloat16", out=(words, None))
    with pytest.raises(InvalidArgument, match="float32, and dtype is float16"):
        cache.restore(0, dtype="float16", out=(keys, None))
    assert relative_error((words.astype(np.uint32) << 16).view(np.float32), layer.keys) < 0.02


@pytest.mark.parametrize("rows", [slice(0, 10, 2), range(290, 310), range(-3, 2), slice(None, None, -1)])
def test_rows_that_there_are_not(cache: Cache, rows: slice | range) -> None:
    with pytest.raises(InvalidArgument, match="row"):
        cache.restore(0, rows)


def test_arrays_that_can_not_be_written_to(cache: Cache) -> None:
    out = np.zeros((HEADS, 300, DIMENSION), np.float32)
    fixed = out.copy()
    fixed.flags.writeable = False
    overlapping = np.lib.stride_tricks.as_strided(out, (HEADS, 300, DIMENSION), (256, 4, 4))
    for wrong in (out[:, ::-1], out[:, :299], fixed, overlapping, out.astype(np.float64)):
        with pytest.raises(InvalidArgument, match="out's keys"):
            cache.restore(0, out=(wrong, None))
    assert not out.any()


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize(("recipe", "tolerance"), [("f32", 1e-5), ("kivi(bits=4)", 1e-3)])
def test_attention(
    random: np.random.Generator, make_layer: MakeLayer, count: int, window: int | None, recipe: str, tolerance: float
) -> None:
    cache = Cache.compress([None, make_layer(300)], recipe)
    queries = random.standard_normal((QUERY_HEADS, count, DIMENSION)).astype(np.float32)
    keys, values = cache.restore(1)
    expected = softmax_attention(queries, keys, values, DIMENSION**-0.5, window)
    with Workers(2) as workers:
        for team in (None, workers):
            output = cache.attend(1, queries, sliding_window=window, workers=team)
            assert output.shape == (count, QUERY_HEADS, DIMENSION) and output.dtype == np.float32
            assert np.allclose(output, expected, atol=tolerance)
    scaled = cache.attend(1, queries.transpose(1, 0, 2).copy().transpose(1, 0, 2), scale=0.3, sliding_window=window)
    assert np.allclose(scaled, softmax_attention(queries, keys, values, 0.3, window), atol=tolerance)
    bent = cache.attend(1, queries, soft_cap=0.5, sliding_window=window)
    assert np.allclose(bent, softmax_attention(queries, keys, values, DIMENSION**-0.5, window, cap=0.5), atol=tolerance)
    assert not np.allclose(bent, expected, atol=1e-2)


def test_newer_tokens_are_seen_as_if_appended(random: np.random.Generator, cache: Cache, make_layer: MakeLayer) -> None:
    queries = random.standard_normal((QUERY_HEADS, 1, DIMENSION)).astype(np.float16)
    newer = [make_layer(5), make_layer(5)]
    before = cache.attend(0, queries, newer=newer[0])
    cache.append(newer, tokens=np.arange(300, 305))
    assert cache.token_count == 305
    assert np.allclose(cache.attend(0, queries), before, atol=1e-4)
    ids = cache.token_ids
    assert ids is not None and ids[-1] == 304
    cache.append(newer)
    assert cache.token_ids is None


def test_forks_and_prefixes(cache: Cache, make_layer: MakeLayer) -> None:
    keys = cache.restore(0)[0]
    fork = cache.fork()
    fork.truncate(100)
    assert (fork.token_count, cache.token_count) == (100, 300)
    assert np.array_equal(fork.restore(0)[0], keys[:, :100])
    fork.append([make_layer(3), make_layer(3)])
    assert (fork.token_count, cache.token_count) == (103, 300)
    assert np.array_equal(cache.restore(0)[0], keys)


def test_layers_of_their_own_shape(random: np.random.Generator, make_layer: MakeLayer) -> None:
    values = random.standard_normal((1, 200, 32)).astype(np.float32)
    wide = Layer(random.standard_normal((1, 200, 96)).astype(np.float32), values)
    window = make_layer(64)
    cache = Cache.compress([wide, None, window], "f32")
    assert cache.layer_shapes == [LayerShape(0, 1, 96, 32), LayerShape(0, 0, 0, 0), LayerShape(0, 2, 64, 64)]
    assert [cache.row_count(layer) for layer in range(3)] == [200, 0, 64]
    assert np.array_equal(cache.restore(0)[1], values)
    cache.append([Layer(wide.keys[:, :2], wide.values[:, :2]), None, make_layer(2)])
    assert cache.token_count == 202
    with pytest.raises(InvalidArgument, match=r"layers\[1\] must be None"):
        cache.append([wide, wide, window])
    with pytest.raises(InvalidArgument, match=r"layers\[0\] is None"):
        cache.append([None, None, window])


def test_layer_by_layer(make_layer: MakeLayer) -> None:
    layers = [make_layer(queries=8), make_layer(queries=8)]
    shapes = [LayerShape(QUERY_HEADS, HEADS, DIMENSION, DIMENSION)] * 2
    with Compressor(Recipe("think(keys=0.25)+kivi(bits=4)"), shapes, 300) as compressor:
        for layer in layers:
            compressor.add(layer, threads=2)
        assert repr(compressor) == "<think_compress.Compressor: 2 of 2 layers, 300 tokens, float32>"
        with pytest.raises(InvalidArgument, match="all 2 layers"):
            compressor.add(layers[0])
        cache = compressor.finish(tokens=range(300), metadata={"model.id": "random"})
        with pytest.raises(InvalidArgument, match="closed"):
            compressor.finish()
    whole = Cache.compress(layers, "think(keys=0.25)+kivi(bits=4)")
    for layer_number in range(2):
        assert np.array_equal(cache.restore(layer_number)[0], whole.restore(layer_number)[0])


def test_a_compressor_checks_what_it_gets(make_layer: MakeLayer) -> None:
    with Compressor("f32", [LayerShape(0, HEADS, DIMENSION, DIMENSION)], 300) as compressor:
        layer = make_layer(300)
        wrong: list[tuple[Any, str]] = [
            (Layer(layer.keys[:1], layer.values), "keys has shape"),
            (Layer(layer.keys[..., :32], layer.values), "keys has shape"),
            (Layer(layer.keys, layer.values[..., :32]), "values has shape"),
            (Layer(layer.keys, layer.values[:, :10]), "values has shape"),
            (Layer(layer.keys[:, :0], layer.values[:, :0]), "no tokens"),
            (Layer(layer.keys, layer.values, layer.keys[..., :8]), "queries has shape"),
            (make_layer(301), "301"),
            (None, "is None"),
            (Layer(layer.keys[0], layer.values), r"\[heads, tokens, channels\]"),
            (Layer(layer.keys[None], layer.values), r"keys\[0\]"),
            (Layer(layer.keys.astype(np.float64), layer.values), "float64"),
            (Layer(layer.keys.astype(np.uint16), layer.values), "uint16"),
            (Layer("keys", layer.values), "keys"),
        ]
        for given, message in wrong:
            with pytest.raises(InvalidArgument, match=message):
                compressor.add(given)
        with pytest.raises(InvalidArgument, match="0 layers of 1"):
            compressor.finish()
        compressor.add(layer)
        with pytest.raises(InvalidArgument, match="2 ids for 300"):
            compressor.finish(tokens=[1, 2])
        with pytest.raises(InvalidArgument, match="integers"):
            compressor.finish(tokens=np.zeros(300))
        with pytest.raises(InvalidArgument, match="32 bits"):
            compressor.finish(tokens=[2**31] * 300)
        with pytest.raises(InvalidArgument, match="null"):
            compressor.finish(metadata={"a\0b": ""})
        assert compressor.finish().token_count == 300


def test_strides_that_overlap_are_copied(random: np.random.Generator) -> None:
    row = random.standard_normal((1, 1, DIMENSION)).astype(np.float32)
    keys = np.broadcast_to(row, (HEADS, 40, DIMENSION))
    swapped = keys.astype(keys.dtype.newbyteorder())
    packed = np.frombuffer(b"\0" + keys.tobytes(), np.uint8)[1:].view(np.float32).reshape(keys.shape)
    cache = Cache.compress([Layer(keys, swapped), Layer(packed, keys)], "f32")
    for layer in range(2):
        for restored in cache.restore(layer):
            assert np.array_equal(restored, keys)


def test_arrays_by_protocol(make_layer: MakeLayer) -> None:
    class Interface:
        def __init__(self, array: Array) -> None:
            self.__array_interface__ = array.__array_interface__
            self.array = array

    class Exported:
        def __init__(self, array: Array) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    layer = make_layer(300)
    cache = Cache.compress([Layer(Interface(layer.keys), Exported(layer.values))], "f32")
    keys, values = cache.restore(0)
    assert np.array_equal(keys, layer.keys) and np.array_equal(values, layer.values)
    cache = Cache.compress([Layer(memoryview(layer.keys), layer.values)], "f32")
    assert np.array_equal(cache.restore(0)[0], layer.keys)


def test_what_c_can_be_told_of_is_not_copied(make_layer: MakeLayer) -> None:
    keys = make_layer(30).keys
    for array in (keys, keys.transpose(1, 0, 2), keys.transpose(0, 2, 1), keys[:, ::2], keys[:1, 5:], keys[..., :0]):
        assert numbers(array, "keys").readable().array is array
    for array in (keys[:, ::-1], np.broadcast_to(keys[:, :1], keys.shape)):
        copy = numbers(array, "keys").readable().array
        assert not np.shares_memory(copy, array) and np.array_equal(copy, array)


def test_torch_tensors(make_layer: MakeLayer) -> None:
    torch = pytest.importorskip("torch")
    layer = make_layer(300)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        keys = torch.from_numpy(layer.keys).to(dtype).requires_grad_()
        values = torch.from_numpy(layer.values).to(dtype).transpose(1, 2).contiguous().transpose(1, 2)
        cache = Cache.compress([Layer(keys, values)], RECIPES[str(dtype).removeprefix("torch.")])
        out = (torch.zeros(HEADS, 300, DIMENSION, dtype=dtype), torch.zeros(HEADS, 300, DIMENSION, dtype=dtype))
        assert numbers(values, "values").readable().array.ctypes.data == values.data_ptr()
        assert cache.restore(0, out=out) is out
        assert torch.equal(out[0], keys) and torch.equal(out[1], values)


def test_many_threads_on_one_cache(random: np.random.Generator, cache: Cache, make_layer: MakeLayer) -> None:
    queries = random.standard_normal((QUERY_HEADS, 1, DIMENSION)).astype(np.float32)
    expected = cache.attend(0, queries)
    keys = cache.restore(0)[0]
    more = [make_layer(2), make_layer(2)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(20):
                if number == 0:
                    fork = cache.fork()
                    fork.append(more)
                    fork.close()
                assert np.array_equal(cache.attend(0, queries), expected)
                assert np.array_equal(cache.restore(0)[0], keys)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_closing_while_others_use_it(random: np.random.Generator, cache: Cache) -> None:
    queries = random.standard_normal((QUERY_HEADS, 16, DIMENSION)).astype(np.float32)
    ended: list[str] = []

    def work() -> None:
        try:
            while True:
                cache.attend(0, queries)
        except InvalidArgument as error:
            ended.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    cache.close()
    for thread in threads:
        thread.join()
    assert ended == ["this Cache is closed"] * 4


def test_rows_that_no_window_reaches_are_dropped(make_layer: MakeLayer) -> None:
    cache = Cache.compress([make_layer(900), make_layer(900)], "kivi(bits=4)")
    keys, _ = cache.restore(1)
    cache.drop_rows(1, 300)
    assert (cache.row_count(0), cache.row_count(1)) == (900, 388)
    assert np.array_equal(cache.restore(1)[0], keys[:, -388:])
    with pytest.raises(WholeOnly):
        cache.truncate(800)
    with pytest.raises(InvalidArgument, match="layer is 2"):
        cache.drop_rows(2, 300)
