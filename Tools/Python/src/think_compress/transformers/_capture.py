"""The queries of a pass."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch

from .._errors import InvalidArgument


class Capture:
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
            and Capture._rotation(module) is not None
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
