"""One layer of a cache."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin

from ._store import Store


class ThinkCompressLayer(CacheLayerMixin):
    """One layer of a `ThinkCompressCache`, as `transformers` asks for it."""

    is_compileable = False
    supports_early_init = False

    def __init__(self, store: Store, index: int, window: int | None) -> None:
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
