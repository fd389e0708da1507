"""What a model's configuration and weights say of its caches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from .._cache import LayerShape

_SAMPLED = 64
"""Numbers of each weight that a model is told by."""


@dataclass(frozen=True)
class Place:
    """A layer of a model that holds keys and values."""

    shape: LayerShape
    window: int | None
    """Tokens that a query sees, its own included; None for all."""

    def row_count(self, tokens: int) -> int:
        """The newest of so many tokens that the next one sees."""
        return tokens if self.window is None else min(tokens, self.window - 1)


def model_places(config: Any) -> list[Place | None]:
    """The layers of a model's configuration; None for those that hold nothing."""
    # transformers' own cache knows which layer is of which kind.
    kinds = DynamicCache(config=config).layers
    configs = getattr(config, "per_layer_config", None) or [config] * config.num_hidden_layers
    places: list[Place | None] = []
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
        places.append(Place(shape, getattr(kind, "sliding_window", None)))
    return places


def model_identity(model: Any, config: Any) -> str:
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


def rotary_metadata(config: Any) -> dict[str, str]:
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


def keys_depend_on_length(config: Any, tokens: int) -> bool:
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
