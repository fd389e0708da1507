from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from think_compress import (
    Cache,
    Damaged,
    InvalidArgument,
    Layer,
    LayerShape,
    NotFound,
    OtherModel,
    Snapshot,
    prefix_digests,
)

MakeLayer = Callable[..., Layer]


@pytest.mark.parametrize("zstd_level", [0, 3])
def test_a_file_and_back(tmp_path: Path, make_layer: MakeLayer, zstd_level: int) -> None:
    layers = [make_layer(600), make_layer(600)]
    metadata = {"model.id": "random", "producer": "a test"}
    cache = Cache.compress(layers, "kivi(bits=4)", tokens=range(600), metadata=metadata)
    path = tmp_path / "prompt.tkv"
    cache.save(path, zstd_level=zstd_level, threads=1)
    with Snapshot.open(path) as snapshot:
        assert repr(snapshot) == f"<think_compress.Snapshot {str(path)!r}: 600 tokens>"
        snapshot.verify(threads=2)
        assert snapshot.token_count == 600
        ids = snapshot.token_ids
        assert ids is not None and ids.tolist() == list(range(600))
        assert snapshot.metadata == metadata and snapshot.recipe == "kivi(bits=4)" and snapshot.dtype == "float32"
        assert snapshot.layer_shapes == [LayerShape(0, 2, 64, 64)] * 2
        digests = snapshot.digests
        assert [len(digest) for digest in digests] == [32, 32] and digests[0] != digests[1]
        assert prefix_digests(snapshot.layer_shapes, range(600), "float32", metadata) == digests
        assert prefix_digests(snapshot.layer_shapes, range(255), "float32", metadata) == []
        assert prefix_digests(snapshot.layer_shapes, range(600), "float32", {"model.id": "another"}) != digests
        snapshot.check_model(snapshot.layer_shapes, "float32", {"model.id": "random"})
        with pytest.raises(OtherModel, match=r"model\.id is random, and not another"):
            snapshot.check_model(snapshot.layer_shapes, "float32", {"model.id": "another"})
        with pytest.raises(OtherModel, match="type is F32"):
            snapshot.check_model(snapshot.layer_shapes, np.float16)
        loaded, prefix = snapshot.load(), snapshot.load(256)
        with pytest.raises(InvalidArgument, match="601"):
            snapshot.load(601)
    # Both outlive the snapshot.
    for layer in range(2):
        for result, start, expected in zip(
            loaded.restore(layer), prefix.restore(layer), cache.restore(layer), strict=True
        ):
            assert np.array_equal(result, expected)
            assert np.array_equal(start, expected[:, :256])
    prefix.save(tmp_path / "prefix.tkv")
    with Snapshot.open(tmp_path / "prefix.tkv") as snapshot:
        assert snapshot.digests == digests[:1]


def test_without_token_ids(tmp_path: Path, make_layer: MakeLayer) -> None:
    path = tmp_path / "prompt.tkv"
    Cache.compress([make_layer(300)], "f32").save(path)
    with Snapshot.open(str(path)) as snapshot:
        assert snapshot.token_ids is None
        with pytest.raises(NotFound):
            snapshot.digests  # noqa: B018


def test_every_damaged_byte_is_found(tmp_path: Path, cache: Cache) -> None:
    path = tmp_path / "prompt.tkv"
    cache.save(path)
    content = path.read_bytes()
    for place in np.random.default_rng(2).integers(0, len(content), 40):
        damaged = bytearray(content)
        damaged[place] ^= 1
        # Under another name: a mapped file must not be overwritten.
        other = tmp_path / f"damaged-{place}.tkv"
        other.write_bytes(damaged)
        with pytest.raises(Damaged), Snapshot.open(other) as snapshot:
            snapshot.verify()
    for length in (1, 100, len(content) - 1):
        other = tmp_path / f"short-{length}.tkv"
        other.write_bytes(content[:length])
        with pytest.raises(Damaged):
            Snapshot.open(other)
