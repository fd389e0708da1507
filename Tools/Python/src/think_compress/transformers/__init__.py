"""A cache for `transformers` models that stays compressed between the steps of generation.

    cache = ThinkCompressCache(model, "kivi(bits=4)")
    output = model.generate(**inputs, past_key_values=cache)
    cache.save("prompt.tkv")

Memory is saved at rest, not in the step. The attention of `transformers`, eager or not, takes whole tensors of keys and
values. So each layer's are restored to the model's type when its attention asks for them, and are gone when it is done:
one layer at a time is there in full, and all others are compressed. It saves no time: restoring takes some.
"""

try:
    import torch  # noqa: F401
    import transformers
    from transformers.cache_utils import CacheLayerMixin  # noqa: F401
except ImportError as error:
    raise ImportError(
        "think_compress.transformers needs torch, and transformers 5 or later: pip install torch 'transformers>=5'"
    ) from error
if int(transformers.__version__.split(".")[0]) < 5:
    raise ImportError(f"think_compress.transformers needs transformers 5 or later; this is {transformers.__version__}")

from ._cache import ThinkCompressCache
from ._layer import ThinkCompressLayer

__all__ = ["ThinkCompressCache", "ThinkCompressLayer"]
