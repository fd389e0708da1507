from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from think_compress import (
    BlockTable,
    Cache,
    Damaged,
    FileError,
    InvalidArgument,
    Layer,
    LayerShape,
    Profile,
    Recipe,
    RecipeInfo,
)

MakeLayer = Callable[..., Layer]


def test_advice_and_size(make_layer: MakeLayer) -> None:
    recipe = Recipe("snapkv(keep=0.5)+balanced")
    assert recipe.advice.startswith("balanced, think(bits=2.5,values=2.25): ")
    assert "the prompt's last 32 queries" in recipe.advice
    cache = Cache.compress([make_layer(1000)], "kivi(bits=4)")
    bits = Recipe("kivi(bits=4)").estimate_bits(LayerShape(0, 2, 64, 64), 1000, "float32")
    assert bits == pytest.approx(cache.bits_per_value, rel=0.01)
    with pytest.raises(InvalidArgument, match="KV heads"):
        recipe.estimate_bits(LayerShape(0, 0, 64, 64), 1000)


def test_info() -> None:
    info = Recipe("snapkv(keep=0.5,observe=16)+kivi(bits=4,residual=64,sinks=4)").info
    assert info == RecipeInfo(16, 64, 4, selects_tokens=True, needs_all_layers=False, dtype=None)
    assert Recipe("h2o(keep=0.5)").info.observation_window is None
    assert Recipe("auto(error=2%)").info.needs_all_layers
    assert Recipe("bf16").info.dtype == "bfloat16" and Recipe("exact").info.dtype is None


def test_errors_are_measured(make_layer: MakeLayer) -> None:
    layer = make_layer(queries=8)
    cache = Cache.compress([layer], "kivi(bits=2,residual=0)")
    errors = cache.measure_errors(0, layer)
    keys, values = cache.restore(0)
    for error, restored, original in ((errors.keys, keys, layer.keys), (errors.values, values, layer.values)):
        assert error == pytest.approx(np.linalg.norm(restored - original) / np.linalg.norm(original), rel=1e-4)
    assert errors.scores is not None and errors.attention is not None and 0 < errors.scores < 1
    bare = cache.measure_errors(0, Layer(layer.keys, layer.values), sliding_window=100)
    assert bare.keys == errors.keys and bare.scores is None and bare.attention is None
    with pytest.raises(InvalidArgument, match="299"):
        cache.measure_errors(0, Layer(layer.keys[:, :299], layer.values[:, :299]))


def test_a_layer_without_values(make_layer: MakeLayer) -> None:
    keys = make_layer().keys
    cache = Cache.compress([Layer(keys, np.empty((2, 300, 0), np.float32))], "kivi(bits=4)")
    cache.append([Layer(keys[:, :5], np.empty((2, 5, 0), np.float32))])
    restored, values = cache.restore(0)
    assert restored.shape == (2, 305, 64) and values.shape == (2, 305, 0)
    assert np.array_equal(restored[:, 300:], keys[:, :5])
    with pytest.raises(InvalidArgument, match="no values"):
        cache.attend(0, keys[:, :1])


def test_more_queries_than_tokens(make_layer: MakeLayer) -> None:
    layer = make_layer(queries=32)
    cache = Cache.compress([layer], "kivi(bits=4)")
    cache.truncate(10)
    with pytest.raises(InvalidArgument, match="query_count is 32"):
        cache.measure_errors(0, Layer(layer.keys[:, :10], layer.values[:, :10], layer.queries))


def test_learned_sinks_and_precision(make_layer: MakeLayer, random: np.random.Generator) -> None:
    layer = make_layer()
    cache = Cache.compress([layer], "f32")
    queries = random.standard_normal((4, 1, 64)).astype(np.float32)
    sinks = np.array([1, -2, 0.5, -np.inf])
    scores = np.einsum("hqd,htd->hqt", queries, np.repeat(layer.keys, 2, 0)) / 8
    weights = np.exp(scores) / (np.exp(scores).sum(-1, keepdims=True) + np.exp(sinks)[:, None, None])
    expected = np.einsum("hqt,htd->qhd", weights, np.repeat(layer.values, 2, 0))
    output = cache.attend(0, queries, sink_logits=sinks, precision="precise")
    assert np.allclose(output, expected, atol=1e-5)
    with pytest.raises(InvalidArgument, match="sink_logits has shape"):
        cache.attend(0, queries, sink_logits=sinks[:3])
    with pytest.raises(InvalidArgument, match="precision is 'exact'"):
        cache.attend(0, queries, precision="exact")  # type: ignore[arg-type]


def test_accumulated_attention_chooses_tokens(make_layer: MakeLayer) -> None:
    layer = make_layer()
    weights = np.zeros((2, 300), np.float32)
    weights[:, 40:50] = 1
    chosen = Layer(layer.keys, layer.values, accumulated_attention=weights, output_weights=np.ones((2, 64)))
    cache = Cache.compress([chosen], "h2o(tokens=20,recent=10)")
    keys, _ = cache.restore(0)
    assert np.array_equal(keys[:, :10], layer.keys[:, 40:50])
    assert np.array_equal(keys[:, 10:], layer.keys[:, 290:])
    with pytest.raises(InvalidArgument, match="accumulated_attention has shape"):
        Cache.compress([Layer(layer.keys, layer.values, accumulated_attention=weights[:, 1:])], "h2o(keep=0.5)")


def test_paged(make_layer: MakeLayer, random: np.random.Generator) -> None:
    whole = make_layer(300)
    blocks = random.permutation(40)[:19]
    pools = random.standard_normal((2, 40, 16, 2, 64)).astype(np.float32)  # An engine's [K or V, block, row, head, dim]
    for index, block in enumerate(blocks):
        count = min(16, 300 - index * 16)
        rows = slice(index * 16, index * 16 + count)
        pools[0, block, :count] = whole.keys[:, rows].transpose(1, 0, 2)
        pools[1, block, :count] = whole.values[:, rows].transpose(1, 0, 2)
    keys, values = pools.transpose(0, 1, 3, 2, 4)
    cache = Cache.compress([Layer(keys, values, blocks=BlockTable(blocks, 300))], "kivi(bits=4)")
    expected = Cache.compress([whole], "kivi(bits=4)")
    for one, other in zip(cache.restore(0), expected.restore(0), strict=True):
        assert np.array_equal(one, other)
    cache.append([Layer(keys, values, blocks=BlockTable(blocks[1:], 20, first_row=3))])
    assert np.array_equal(cache.restore(0, slice(300, 320))[0], whole.keys[:, 19:39])

    target = np.zeros_like(pools).transpose(0, 1, 3, 2, 4)
    cache.restore(0, slice(0, 300), out=(target[0], target[1]), blocks=BlockTable(blocks, 300))
    found = np.concatenate([target[0, block] for block in blocks], axis=1)[:, :300]
    assert np.array_equal(found, cache.restore(0, slice(0, 300))[0])
    with pytest.raises(InvalidArgument, match="there twice"):
        twice = BlockTable(np.zeros(19, np.int64), 300)
        cache.restore(0, slice(0, 300), out=(target[0], None), blocks=twice)
    for table, message in (
        (BlockTable(blocks, 305), "too few for 305"),
        (BlockTable([40] * 19, 300), "blocks.0. is 40, and the pool has 40"),
        (BlockTable(blocks, 300, first_row=-1), "first_row"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            Cache.compress([Layer(keys, values, blocks=table)], "kivi(bits=4)")
    with pytest.raises(InvalidArgument, match="blocks, heads, tokens, channels"):
        Cache.compress([Layer(keys[0], values[0], blocks=BlockTable(blocks, 300))], "kivi(bits=4)")
    with pytest.raises(InvalidArgument, match="pools of different blocks"):
        Cache.compress([Layer(keys[:30], values, blocks=BlockTable([1], 3))], "kivi(bits=4)")


def test_profiles(tmp_path: Path, make_layer: MakeLayer) -> None:
    with pytest.raises(FileError):
        Profile(tmp_path / "none")
    (tmp_path / "text").write_text("no profile at all")
    with pytest.raises(Damaged, match="text"):
        Profile(tmp_path / "text")
    path = tmp_path / "model.profile"
    path.write_bytes(_profile(np.arange(1, 129, dtype=np.float32)))
    layer = make_layer()
    with Profile(path, {"model.id": "random"}) as profile:
        assert repr(profile) == f"<think_compress.Profile {str(path)!r}>"
        cache = Cache.compress([layer], "think(keys=0.5)+kivi(bits=4)", profile=profile)
    # The profile alone says which channels stay.
    assert cache.token_count == 300
    with pytest.raises(InvalidArgument, match="closed"):
        Cache.compress([layer], "think(keys=0.5)+kivi(bits=4)", profile=profile)


def _profile(squares: np.typing.NDArray[np.float32]) -> bytes:
    """A profile of one layer of 2 KV heads of dimension 64, as Formats/profile.md has it."""
    data = squares.tobytes()
    header = (
        b'{"__metadata__":{"model.id":"random"},"layers.0.q2":{"dtype":"F32","shape":[2,64],"data_offsets":[0,%d]}}'
        % len(data)
    )
    return len(header).to_bytes(8, "little") + header + data
