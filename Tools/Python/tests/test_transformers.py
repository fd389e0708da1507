"""`ThinkCompressCache` beside the DynamicCache of transformers, on tiny models with random weights."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from think_compress import (
    Cache,
    FileExists,
    InvalidArgument,
    Layer,
    NotFound,
    OtherModel,
    Snapshot,
    Unsupported,
    WholeOnly,
)

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers", minversion="5")

from think_compress.transformers import ThinkCompressCache, ThinkCompressLayer  # noqa: E402

# More threads than a tiny model has work for wait for each other.
torch.set_num_threads(1)

# Newer versions call the argument `cache`, and take it by this name, too.
pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")

WINDOW = 48
FAMILIES = ("llama", "qwen2", "qwen2 with sliding windows", "gemma3")
WHOLE = ("llama", "qwen2")
SLIDING = ("qwen2 with sliding windows", "gemma3")
# Norms of each head or of all together, layers without rotary embedding.
OTHERS = ("Qwen3", "Olmo2", "SmolLM3", "Cohere2")
# What stores each type as it is.
EXACT = [("float32", "f32"), ("float16", "f16"), ("bfloat16", "bf16"), ("float16", "exact")]


def make_model(family: str, dtype: str = "float32", seed: int = 0) -> Any:
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 200,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        # So that what is far and what is near, and what comes next, differs.
        "initializer_range": 0.2,
    }
    if family == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    elif family == "gemma3":
        sizes |= {"num_hidden_layers": 6, "head_dim": 64, "sliding_window": WINDOW, "query_pre_attn_scalar": 64}
        model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**sizes))
    elif family in OTHERS:
        sizes |= {"num_hidden_layers": 4, "pad_token_id": 0, "bos_token_id": 1}
        if family == "Cohere2":
            sizes["sliding_window"] = WINDOW
        configuration = getattr(transformers, f"{family}Config")(**sizes, eos_token_id=2)
        model = getattr(transformers, f"{family}ForCausalLM")(configuration)
    else:
        if family != "qwen2":
            sizes |= {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
        model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes))
    return model.to(getattr(torch, dtype)).eval()


def make_ids(count: int, seed: int = 1) -> Any:
    return torch.randint(3, 200, (1, count), generator=torch.Generator().manual_seed(seed))


def dynamic(model: Any) -> Any:
    return transformers.DynamicCache(config=model.config)


def generate(model: Any, ids: Any, cache: Any, count: int = 24, **options: Any) -> tuple[list[int], Any]:
    """New tokens, and the logits that they were the likeliest by, `[count, vocabulary]`."""
    options = {"eos_token_id": None, "pad_token_id": 0, "do_sample": False, **options}
    output = model.generate(
        ids, past_key_values=cache, max_new_tokens=count, output_logits=True, return_dict_in_generate=True, **options
    )
    return output.sequences[0, ids.shape[1] :].tolist(), torch.cat(output.logits).float()


def is_croppable(cache: ThinkCompressCache) -> bool:
    return all(layer.is_croppable for layer in cache.layers)


def hook_count(model: Any) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "recipe"), EXACT)
def test_full_precision_gives_the_same_tokens(family: str, dtype: str, recipe: str) -> None:
    model, ids = make_model(family, dtype), make_ids(150)
    expected, logits = generate(model, ids, dynamic(model))
    with ThinkCompressCache(model, recipe) as cache:
        tokens, own = generate(model, ids, cache)
        assert tokens == expected and torch.equal(own, logits)
        # The last token was not passed to the model.
        assert cache.get_seq_length() == 150 + 24 - 1
        assert cache.token_ids is not None and cache.token_ids.tolist() == ids[0].tolist() + tokens[:-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_f16_of_a_float32_model(family: str) -> None:
    model, ids = make_model(family), make_ids(150)
    expected, logits = generate(model, ids, dynamic(model))
    with ThinkCompressCache(model, "f16") as cache:
        tokens, own = generate(model, ids, cache)
        assert tokens == expected and 0 < (own - logits).abs().max() < 0.05
        assert cache.compressed is not None and cache.compressed.dtype == "float16"


@pytest.mark.parametrize("family", FAMILIES)
def test_eager_attention(family: str) -> None:
    model, ids = make_model(family, "float16"), make_ids(100)
    model.set_attn_implementation("eager")
    expected = generate(model, ids, dynamic(model))[0]
    with ThinkCompressCache(model, "f16") as cache:
        assert generate(model, ids, cache)[0] == expected


@pytest.mark.parametrize("family", (*FAMILIES, *OTHERS))
@pytest.mark.parametrize("recipe", ["kivi(bits=4,residual=32)", "think(keys=0.4)+kivi(bits=4,residual=32)", "balanced"])
def test_layers_are_compressed_by_the_prompts_queries(
    family: str, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the cache holds is what comes of the keys, values and queries that attention saw."""
    model, ids = make_model(family), make_ids(300)
    seen: list[Layer] = []
    interface = transformers.AttentionInterface
    computed = interface._global_mapping["sdpa"]

    def attention(module: Any, queries: Any, keys: Any, values: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(Layer(keys[0].clone(), values[0].clone(), queries[0, :, -32:].clone()))
        return computed(module, queries, keys, values, *arguments, **options)

    with ThinkCompressCache(model, recipe) as cache:
        with monkeypatch.context() as patch, torch.no_grad():
            patch.setitem(interface._global_mapping, "sdpa", attention)
            model(ids, past_key_values=cache)
        windows = [layer.sliding_window for layer in cache.layers]
        held = [
            layer if window is None else Layer(layer.keys[:, -window:], layer.values[:, -window:], layer.queries)
            for layer, window in zip(seen, windows, strict=True)
        ]
        expected = Cache.compress(held, recipe)
        assert cache.compressed is not None
        assert cache.compressed.bits_per_value == expected.bits_per_value < 34
        for index in range(len(held)):
            for own, other in zip(cache.compressed.restore(index), expected.restore(index), strict=True):
                # The queries are computed anew, so that a few roundings and with them bits may differ.
                assert np.mean(np.abs(own - other) > 1e-3) < 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_few_bits_are_near(family: str) -> None:
    model, ids = make_model(family, "float16"), make_ids(600)
    _, logits = generate(model, ids, dynamic(model), count=1)
    following = make_ids(16, seed=2)
    with torch.no_grad():
        full = dynamic(model)
        model(ids, past_key_values=full)
        expected = model(following, past_key_values=full).logits.float()
        errors = []
        for recipe in ("kivi(bits=8,residual=32)", "kivi(bits=2,residual=32)"):
            with ThinkCompressCache(model, recipe) as cache:
                # The prompt's own pass sees all as it is.
                assert torch.equal(model(ids, past_key_values=cache).logits[:, -1].float(), logits)
                own = model(following, past_key_values=cache).logits.float()
                errors.append(float((own - expected).norm() / expected.norm()))
                assert cache.compressed is not None and cache.compressed.token_count == 616
    assert 0 < errors[0] < 0.1 and errors[0] < errors[1] / 4


def test_what_attention_saw_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between passes no tensor of keys or values is left, and in a pass those of one layer."""
    model, ids = make_model("gemma3"), make_ids(150)
    seen: list[weakref.ref[Any]] = []
    interface = transformers.AttentionInterface
    computed = interface._global_mapping["sdpa"]

    def attention(module: Any, queries: Any, keys: Any, values: Any, *arguments: Any, **options: Any) -> Any:
        assert all(tensor() is None for tensor in seen)
        seen.extend(map(weakref.ref, (keys, values)))
        return computed(module, queries, keys, values, *arguments, **options)

    monkeypatch.setitem(interface._global_mapping, "sdpa", attention)
    with ThinkCompressCache(model, "balanced") as cache:
        generate(model, ids, cache, count=4)
        assert len(seen) == 4 * 2 * 6 and all(tensor() is None for tensor in seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_in_pieces(family: str) -> None:
    model, ids = make_model(family, "float16"), make_ids(150)
    expected = generate(model, ids, dynamic(model), prefill_chunk_size=64)[0]
    with ThinkCompressCache(model, "f16") as cache:
        assert generate(model, ids, cache, prefill_chunk_size=64)[0] == expected
    with ThinkCompressCache(model, "balanced") as cache, torch.no_grad():
        for piece in ids.split(70, dim=1):
            model(piece, past_key_values=cache)
        assert cache.get_seq_length() == 150
        assert cache.token_ids is not None and cache.token_ids.tolist() == ids[0].tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("zstd_level", [0, 3])
def test_a_file_and_back(tmp_path: Path, family: str, zstd_level: int) -> None:
    model, ids = make_model(family, "float16"), make_ids(150)
    path = tmp_path / "prompt.tkv"
    with ThinkCompressCache(model, "f16") as cache:
        answer, _ = generate(model, ids, cache)
        cache.save(path, zstd_level=zstd_level)
        with pytest.raises(FileExists):
            cache.save(path)
        cache.save(path, replace=True, zstd_level=zstd_level)
    longer = torch.cat([ids, torch.tensor([answer]), make_ids(20, seed=2)], dim=1)
    expected, logits = generate(model, longer, dynamic(model))
    for tokens in (longer, longer[0], longer[0].tolist(), longer.numpy()):
        with ThinkCompressCache.load(path, model, tokens) as cache:
            assert cache.get_seq_length() == 173
    with ThinkCompressCache.load(path, model, longer) as cache:
        tokens, own = generate(model, longer, cache)
        assert tokens == expected
        assert float((own - logits).norm() / logits.norm()) < 0.01
        assert cache.token_ids is not None and cache.token_ids.tolist() == longer[0].tolist() + tokens[:-1]
    with Snapshot.open(path) as snapshot:
        assert str(snapshot.metadata["producer"]).startswith("think-compress ")
        assert float(str(snapshot.metadata["rope.theta"])) == (1e6 if family == "gemma3" else 1e4)
        scaling = str(snapshot.metadata.get("rope.scaling"))
        assert scaling.startswith('{"full_attention": {"rope_theta": 1000000.0') == (family == "gemma3")


@pytest.mark.parametrize("family", WHOLE)
def test_the_beginning_of_a_file(tmp_path: Path, family: str) -> None:
    model, ids = make_model(family, "float16"), make_ids(150)
    path = tmp_path / "prompt.tkv"
    with ThinkCompressCache(model, "f16") as cache, torch.no_grad():
        model(ids, past_key_values=cache)
        cache.save(path)
    other = torch.cat([ids[:, :100], (ids[:, 100:101] + 1) % 200, ids[:, 101:]], dim=1)
    expected = generate(model, other, dynamic(model))[0]
    with ThinkCompressCache.load(path, model, other) as cache:
        assert cache.get_seq_length() == 100
        assert generate(model, other, cache)[0] == expected
    # The last token is left to be computed.
    for count in (150, 90):
        expected = generate(model, ids[:, :count], dynamic(model))[0]
        with ThinkCompressCache.load(path, model, ids[:, :count]) as cache:
            assert cache.get_seq_length() == count - 1
            assert generate(model, ids[:, :count], cache)[0] == expected
    for tokens in ([(int(ids[0, 0]) + 1) % 200, *ids[0, 1:].tolist()], ids[:, :1], []):
        with pytest.raises(NotFound, match="compute the prompt anew"):
            ThinkCompressCache.load(path, model, tokens)
    assert hook_count(model) == 0


@pytest.mark.parametrize("family", SLIDING)
def test_files_with_sliding_windows_are_used_whole(tmp_path: Path, family: str) -> None:
    model, ids = make_model(family, "float16"), make_ids(150)
    path = tmp_path / "prompt.tkv"
    with ThinkCompressCache(model, "f16") as cache, torch.no_grad():
        model(ids, past_key_values=cache)
        cache.save(path)
    with pytest.raises(WholeOnly, match="150 tokens and can be used whole only, and tokens share 149"):
        ThinkCompressCache.load(path, model, ids)
    with ThinkCompressCache.load(path, model, torch.cat([ids, ids], dim=1)) as cache:
        assert cache.get_seq_length() == 150


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_files_whose_keys_depend_on_the_length_are_used_whole(tmp_path: Path, kind: str) -> None:
    configuration = make_model("llama").config.to_dict()
    factors = {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16, "original_max_position_embeddings": 64}
    rotary = {"rope_type": kind, "factor": 2.0, "rope_theta": 10000.0} | (factors if kind == "longrope" else {})
    configuration |= {"rope_parameters": rotary, "max_position_embeddings": 64 if kind == "dynamic" else 512}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**configuration)).eval()
    path, ids = tmp_path / "prompt.tkv", make_ids(100)
    for count, is_long in ((100, True), (60, False)):
        with ThinkCompressCache(model, "f32") as cache, torch.no_grad():
            model(ids[:, :count], past_key_values=cache)
            cache.save(path, replace=True)
        if is_long:
            with pytest.raises(WholeOnly):
                ThinkCompressCache.load(path, model, ids[:, :50])
        else:
            assert ThinkCompressCache.load(path, model, ids[:, :50]).get_seq_length() == 49
        assert ThinkCompressCache.load(path, model, ids.repeat(1, 2)).get_seq_length() == count
    with Snapshot.open(path) as snapshot:
        assert f'"rope_type": "{kind}"' in str(snapshot.metadata["rope.scaling"])


def test_files_of_other_models_are_refused(tmp_path: Path) -> None:
    model, ids = make_model("llama"), make_ids(60)
    path = tmp_path / "prompt.tkv"
    with ThinkCompressCache(model, "f32", model_id="mine") as cache, torch.no_grad():
        model(ids, past_key_values=cache)
        cache.save(path)
    others: list[tuple[Any, str | None, str]] = [
        (model, None, "its model.id is mine"),
        (model, "another", "its model.id is mine, and not another"),
        (make_model("llama", "float16"), "mine", "its model.dtype is float32, and not float16"),
        (make_model("gemma3"), "mine", "rope.theta|rope.scaling"),
    ]
    for other, model_id, message in others:
        with pytest.raises(OtherModel, match=message):
            ThinkCompressCache.load(path, other, ids, model_id=model_id)
    narrow = transformers.LlamaConfig(**{**model.config.to_dict(), "num_key_value_heads": 1})
    with pytest.raises(OtherModel, match="KV heads of layer 0 is 2, and not 1"):
        ThinkCompressCache.load(path, transformers.LlamaForCausalLM(narrow), ids, model_id="mine")
    assert ThinkCompressCache.load(path, model, ids, model_id="mine").get_seq_length() == 59
    with ThinkCompressCache(model, "f32") as cache, torch.no_grad():
        model(ids, past_key_values=cache)
        cache.save(path, replace=True)
    with pytest.raises(OtherModel, match="of another model: its model"):
        ThinkCompressCache.load(path, make_model("llama", seed=5), ids)
    # The same weights are the same model, whoever loaded them.
    assert ThinkCompressCache.load(path, make_model("llama"), ids).get_seq_length() == 59


def test_token_ids_that_are_not_known(tmp_path: Path) -> None:
    model, ids = make_model("llama"), make_ids(60)
    with ThinkCompressCache(model, "f32") as cache, torch.no_grad():
        with pytest.raises(NotFound, match="no tokens to save"):
            cache.save(tmp_path / "prompt.tkv")
        model(ids, past_key_values=cache)
        model(inputs_embeds=model.get_input_embeddings()(ids[:, :2]), past_key_values=cache)
        assert cache.get_seq_length() == 62 and cache.token_ids is None
        with pytest.raises(NotFound, match="pass input_ids"):
            cache.save(tmp_path / "prompt.tkv")
        assert cache.compressed is not None
        cache.compressed.save(tmp_path / "prompt.tkv")
    with pytest.raises(NotFound, match="doesn't know its tokens"):
        ThinkCompressCache.load(tmp_path / "prompt.tkv", model, ids)


@pytest.mark.parametrize("family", WHOLE)
def test_crop(family: str) -> None:
    model, ids = make_model(family, "float16"), make_ids(150)
    expected = generate(model, ids[:, :101], dynamic(model))[0]
    with ThinkCompressCache(model, "f16") as cache:
        generate(model, ids, cache)
        assert is_croppable(cache)
        cache.crop(0)
        cache.crop(500)
        assert cache.get_seq_length() == 173
        cache.crop(-73)
        assert cache.get_seq_length() == 100
        assert generate(model, ids[:, :101], cache)[0] == expected
        cache.crop(100)
        assert cache.get_seq_length() == 100
        assert generate(model, ids[:, :101], cache)[0] == expected
    # From nothing on the next pass is a prompt's again, with its queries.
    with ThinkCompressCache(model, "think(keys=0.4)") as cache, torch.no_grad():
        model(ids, past_key_values=cache)
        for is_cropped in (True, False):
            if is_cropped:
                cache.crop(-1000)
            else:
                cache.reset()
            assert cache.get_seq_length() == 0 and cache.compressed is None
            model(ids[:, :90], past_key_values=cache)
            assert cache.get_seq_length() == 90


@pytest.mark.parametrize("family", SLIDING)
def test_what_a_sliding_window_has_left_is_dropped(family: str) -> None:
    model, ids = make_model(family), make_ids(700)
    plain = transformers.DynamicCache(config=model.config)
    with ThinkCompressCache(model, "f32") as cache, torch.no_grad():
        for start in range(0, 700, 100):
            new = ids[:, start : start + 100]
            theirs = model(new, past_key_values=plain).logits
            assert torch.equal(model(new, past_key_values=cache).logits, theirs)
        assert cache.compressed is not None
        rows = [cache.compressed.row_count(index) for index in range(len(cache.layers))]
        for layer, count in zip(cache.layers, rows, strict=True):
            # Blocks of a residual window and a page of 256 may be there beside the window.
            assert count == 700 if layer.sliding_window is None else WINDOW <= count < WINDOW + 256 + 32


@pytest.mark.parametrize("family", SLIDING)
def test_sliding_windows_are_not_cropped(family: str) -> None:
    model = make_model(family, "float16")
    with ThinkCompressCache(model, "f16") as cache, torch.no_grad():
        model(make_ids(30), past_key_values=cache)
        cache.crop(-10)
        assert is_croppable(cache) and cache.get_seq_length() == 20
        cache.reset()
        model(make_ids(150), past_key_values=cache)
        assert not is_croppable(cache)
        with pytest.raises(WholeOnly):
            cache.crop(-10)
        assert cache.get_seq_length() == 150


def test_prompt_lookup() -> None:
    model = make_model("llama", "float16")
    ids = make_ids(40).repeat(1, 3)
    # Earlier versions need a token that ends the text.
    options = {"prompt_lookup_num_tokens": 4, "eos_token_id": 1}
    expected = generate(model, ids, dynamic(model), **options)[0]
    with ThinkCompressCache(model, "f16") as cache:
        assert generate(model, ids, cache, **options)[0] == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "recipe"), EXACT[:3])
@pytest.mark.parametrize("with_configuration", [True, False])
def test_conversions(family: str, dtype: str, recipe: str, with_configuration: bool) -> None:
    model, ids = make_model(family, dtype), make_ids(151)
    full = dynamic(model) if with_configuration else transformers.DynamicCache()
    with torch.no_grad():
        model(ids[:, :150], past_key_values=full)
    before = [(layer.keys, layer.values) for layer in full.layers]
    with ThinkCompressCache.from_dynamic_cache(full, model, recipe, tokens=ids[:, :150]) as cache:
        assert cache.get_seq_length() == 150
        back = cache.to_dynamic_cache()
        assert back.get_seq_length() == 150 and len(back.layers) == len(full.layers)
        for layer, (keys, values), own in zip(back.layers, before, cache.layers, strict=True):
            rows = 150 if own.sliding_window is None else WINDOW - 1
            assert layer.get_seq_length() == 150
            assert torch.equal(layer.keys, keys[:, :, -rows:]) and torch.equal(layer.values, values[:, :, -rows:])
        expected = generate(model, ids, full)[0]
        assert generate(model, ids, back)[0] == expected
        assert generate(model, ids, cache)[0] == expected
        assert cache.token_ids is not None and cache.token_ids.tolist()[:151] == ids[0].tolist()


def test_conversions_that_can_not_be() -> None:
    model, ids = make_model("llama"), make_ids(60)
    full = dynamic(model)
    assert ThinkCompressCache.from_dynamic_cache(full, model).get_seq_length() == 0
    assert ThinkCompressCache(model).to_dynamic_cache().get_seq_length() == 0
    with torch.no_grad():
        model(ids.repeat(2, 1), past_key_values=full)
    with pytest.raises(InvalidArgument, match="one sequence"):
        ThinkCompressCache.from_dynamic_cache(full, model)
    full.batch_select_indices(torch.tensor([0]))
    with pytest.raises(InvalidArgument, match="59 ids for 60"):
        ThinkCompressCache.from_dynamic_cache(full, model, tokens=ids[0, :59])
    with pytest.raises(InvalidArgument, match="3 layers, and the model 6"):
        ThinkCompressCache.from_dynamic_cache(full, make_model("gemma3"))
    with pytest.raises(Unsupported, match="score=keys"):
        ThinkCompressCache.from_dynamic_cache(full, model, "think(keys=0.4)")
    ThinkCompressCache.from_dynamic_cache(full, model, "think(keys=0.4,score=keys)")
    with ThinkCompressCache(model, "snapkv(tokens=40)") as cache, torch.no_grad():
        model(ids, past_key_values=cache)
        with pytest.raises(Unsupported, match="dropped"):
            cache.to_dynamic_cache()


def test_tokens_that_a_recipe_dropped_are_not_seen(tmp_path: Path) -> None:
    """As if they were masked: positions go on after all tokens."""
    model, ids = make_model("llama"), make_ids(150)
    following = make_ids(5, seed=2)
    mask = torch.ones((1, 155), dtype=torch.long)
    mask[:, 4:110] = 0
    with torch.no_grad(), ThinkCompressCache(model, "streaming(recent=40)") as cache:
        full = dynamic(model)
        model(ids, past_key_values=full)
        places = torch.arange(150, 155)[None]
        expected = model(following, past_key_values=full, attention_mask=mask, position_ids=places).logits
        model(ids, past_key_values=cache)
        assert cache.get_seq_length() == 150 and cache.layers[0].get_mask_sizes(5) == (49, 106)
        cache.save(tmp_path / "prompt.tkv")
        assert torch.allclose(model(following, past_key_values=cache).logits, expected, atol=1e-4)
        assert cache.get_seq_length() == 155
        with pytest.raises(WholeOnly):
            cache.crop(-1)
        longer = torch.cat([ids, following], dim=1)
        with ThinkCompressCache.load(tmp_path / "prompt.tkv", model, longer) as loaded:
            own = model(following, past_key_values=loaded, attention_mask=torch.ones_like(mask)).logits
            assert torch.allclose(own, expected, atol=1e-4)
    with ThinkCompressCache(model, "h2o(keep=0.5)") as cache:
        generate(model, ids, cache)
        assert cache.compressed is not None and cache.compressed.row_count(0) == 75 + 23
    for family in SLIDING:
        with pytest.raises(Unsupported, match="sliding window"):
            ThinkCompressCache(make_model(family), "snapkv(keep=0.5)+balanced")


def test_hooks_come_and_go() -> None:
    model, ids = make_model("llama"), make_ids(60)
    with ThinkCompressCache(model, "balanced") as cache:
        assert hook_count(model) == 4
        cache.close()
        assert hook_count(model) == 0
        assert repr(cache) == "<ThinkCompressCache: closed>"
        with pytest.raises(InvalidArgument, match="closed"):
            model(ids, past_key_values=cache)
    cache = ThinkCompressCache(model, "kivi(bits=4)")
    assert hook_count(model) == 1
    reference = weakref.ref(cache)
    # By its references alone, without a collection of cycles.
    gc.disable()
    try:
        with torch.no_grad():
            model(ids, past_key_values=cache)
        del cache
        assert reference() is None and hook_count(model) == 0
    finally:
        gc.enable()
    cache = ThinkCompressCache(model, "balanced")
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    with pytest.raises(InvalidArgument, match="model that the cache was made for is gone"):
        cache.fork()
    cache.close()


def test_caches_of_one_model_keep_apart() -> None:
    model, ids, others = make_model("llama", "float16"), make_ids(150), make_ids(90, seed=3)
    expected = generate(model, ids, dynamic(model))[0]
    with ThinkCompressCache(model, "f16") as cache, ThinkCompressCache(model, "balanced") as other:
        with torch.no_grad():
            model(others, past_key_values=other)
            model(others)
            model(ids[:, :100], past_key_values=cache)
            model(others[:, :7], past_key_values=other)
            model(others, past_key_values=dynamic(model))
        assert cache.token_ids is not None and cache.token_ids.tolist() == ids[0, :100].tolist()
        assert other.get_seq_length() == 97
        assert generate(model, ids, cache)[0] == expected


def test_forks() -> None:
    model, ids = make_model("llama", "float16"), make_ids(150)
    expected = generate(model, ids, dynamic(model))[0]
    with ThinkCompressCache(model, "f16") as cache, torch.no_grad():
        assert copy.deepcopy(cache).get_seq_length() == 0
        model(ids[:, :100], past_key_values=cache)
        for fork in (cache.fork(), copy.deepcopy(cache)):
            assert generate(model, ids, fork)[0] == expected
        assert cache.get_seq_length() == 100
        assert generate(model, ids, cache)[0] == expected


@pytest.mark.parametrize("prompt", [True, False])
def test_a_pass_that_breaks_off_leaves_nothing_behind(prompt: bool) -> None:
    model, ids = make_model("llama", "float16"), make_ids(150)
    expected = generate(model, ids, dynamic(model))[0]

    def fail(*arguments: Any) -> None:
        raise RuntimeError("enough")

    with ThinkCompressCache(model, "f16") as cache:
        if not prompt:
            with torch.no_grad():
                model(ids[:, :100], past_key_values=cache)
        handle = model.model.layers[2].register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="enough"):
            generate(model, ids, cache)
        handle.remove()
        assert cache.get_seq_length() == (0 if prompt else 100)
        assert generate(model, ids, cache)[0] == expected


def test_one_sequence_alone() -> None:
    model, ids = make_model("llama"), make_ids(60)
    cache = ThinkCompressCache(model, "kivi(bits=4)")
    calls: list[Callable[[], Any]] = [
        lambda: model(ids.repeat(2, 1), past_key_values=cache),
        lambda: generate(model, ids, cache, num_beams=2),
        lambda: cache.batch_repeat_interleave(2),
        lambda: cache.batch_select_indices(torch.tensor([0, 0])),
        lambda: cache.reorder_cache(torch.tensor([1, 0])),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError, match="holds one"):
            call()
    cache.batch_repeat_interleave(1)
    cache.batch_select_indices(torch.tensor([0]))
    cache.reorder_cache(torch.tensor([0]))
    assert cache.get_seq_length() == 0


def test_models_that_can_not_be() -> None:
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    phi = transformers.Phi3ForCausalLM(
        transformers.Phi3Config(**sizes, intermediate_size=32, num_key_value_heads=1, pad_token_id=0)
    )
    with pytest.raises(NotImplementedError, match="queries, and those of layer 0 of a Phi3ForCausalLM"):
        ThinkCompressCache(phi, "balanced")
    assert hook_count(phi) == 0
    expected = generate(phi, make_ids(40) % 50, dynamic(phi))[0]
    with ThinkCompressCache(phi, "f32") as cache:
        assert generate(phi, make_ids(40) % 50, cache)[0] == expected
    mamba = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, state_size=4)
    )
    with pytest.raises(NotImplementedError, match="DynamicCache"):
        ThinkCompressCache(mamba)
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=50, d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2)
    )
    with pytest.raises(NotImplementedError, match="encoder"):
        ThinkCompressCache(t5)


def test_wrong_use() -> None:
    model, ids = make_model("llama"), make_ids(60)
    with pytest.raises(InvalidArgument, match="int8"):
        ThinkCompressCache(model, dtype="int8")
    with ThinkCompressCache(model, "balanced") as cache:
        with pytest.raises(InvalidArgument, match="pass the cache to the model that it was made for"):
            make_model("llama")(ids, past_key_values=cache)
        keys = torch.zeros((1, 2, 5, 32))
        with pytest.raises(InvalidArgument, match="layer 1 came, and those of layer 0"):
            cache.update(keys, keys, 1)
    # An attention that names its norms otherwise.
    lfm = transformers.Lfm2ForCausalLM(
        transformers.Lfm2Config(
            vocab_size=200, hidden_size=64, intermediate_size=64, num_hidden_layers=1, full_attn_idxs=[0]
        )
    )
    with ThinkCompressCache(lfm, "balanced") as cache, pytest.raises(NotImplementedError, match="layer 0 makes its"):
        lfm(ids, past_key_values=cache)


def test_what_it_says_of_itself() -> None:
    model = make_model("gemma3")
    cache = ThinkCompressCache(model, "kivi(bits=4,residual=32)", dtype=torch.float16)
    assert repr(cache) == (
        "<ThinkCompressCache: kivi(bits=4,residual=32), 6 layers (5 with a sliding window), no tokens yet>"
    )
    with torch.no_grad():
        model(make_ids(300), past_key_values=cache)
    compressed = cache.compressed
    assert compressed is not None and compressed.dtype == "float16"
    assert repr(cache).endswith(
        f"300 tokens, float16, {compressed.bits_per_value:.2f} bits per value, {compressed.nbytes} bytes>"
    )
    assert repr(cache.layers[0]) == f"<ThinkCompressLayer 0: {WINDOW - 1} tokens, sliding window {WINDOW}>"
    assert repr(cache.layers[5]) == "<ThinkCompressLayer 5: 300 tokens>"
    assert len(cache) == 6 and cache.is_sliding == [True] * 5 + [False] and not cache.is_compileable
    assert [layer.get_max_length() for layer in cache.layers] == [WINDOW] * 5 + [-1]
    for kind in (ThinkCompressCache, ThinkCompressLayer):
        members = [getattr(member, "__func__", member) for key, member in vars(kind).items() if key[0] != "_"]
        assert all(member.__doc__ for member in members if callable(member) or isinstance(member, property))


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_what_is_missing_is_named(missing: str) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
import think_compress
try:
    import think_compress.transformers
except ImportError as error:
    assert "pip install torch 'transformers>=5'" in str(error), error
else:
    raise SystemExit("imported")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
