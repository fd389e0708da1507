"""What the stages of a recipe decide (kivi.md, full-precision.md, think.md).

For writers: no reader needs this. Texts are taken to be right and canonical.
"""

import re
from fractions import Fraction

from . import prune
from .elements import f32
from .plan import FULL, HeadPlan, Run, quantized
from .writer import Cache, Layer, Plan

NUMBERS = {"f16": 1, "bf16": 2, "f32": 3, "kivi": 4, "think": 5}


def _stages(text: str) -> dict:
    """Parameters by stage, such as of `think(keys=0.4)+kivi(bits=2)`."""
    stages = {}
    for part in text.split("+"):
        name, parameters = re.fullmatch(r"([a-z0-9]+)(?:\((.+)\))?", part).groups()
        stages[name] = dict(parameter.split("=") for parameter in (parameters or "").split(",") if parameter)
    return stages


def _floats(rows: list, element_type) -> list:
    return [[element_type.value(x) for x in row] for row in rows]


def decide(cache: Cache, text: str) -> Plan:
    """The plan of a cache that is compressed with a recipe."""
    stages = _stages(text)
    kivi, think = stages.get("kivi"), stages.get("think")
    block_length, residual = 32, 0
    if kivi:
        block_length, residual = int(kivi.get("group", 32)), int(kivi.get("residual", 128))
    if think:
        residual = max(residual, int(think.get("recent", 32)))
    heads, profile = [], []
    for layer in cache.layers:
        heads.append([])
        for head in range(len(layer.keys)):
            q2 = _query_profile(cache, layer, head, think)
            profile += q2 or []
            heads[-1].append(_head_plan(cache, layer, head, kivi, think, q2))
    return Plan(
        heads,
        block_length,
        -(-residual // block_length) * block_length,
        [(NUMBERS[part.partition("(")[0]], part) for part in text.split("+")],
        profile,
    )


def _query_profile(cache: Cache, layer: Layer, head: int, think):
    if not layer.queries:
        return None
    per_head = len(layer.queries) // len(layer.keys)
    group = layer.queries[head * per_head : (head + 1) * per_head]
    observe = int((think or {}).get("observe", 32))
    return prune.query_profile([_floats(rows, cache.type) for rows in group], observe)


def _head_plan(cache: Cache, layer: Layer, head: int, kivi, think, q2) -> HeadPlan:
    channels, means = range(layer.key_dimension), ()
    if think:
        rows = _floats(layer.keys[head], cache.type)
        scored = None if think.get("score") == "keys" else q2
        channels = prune.kept_channels(rows, Fraction(think["keys"]), scored)
        if think.get("restore") == "mean":
            mean = prune.key_means(rows)
            means = tuple(f32(mean[c]) for c in range(len(mean)) if c not in channels)
    keys = values = FULL
    if kivi:
        ranges = 1 if kivi.get("ranges") == "fitted" else 0
        keys, values = (quantized(int(kivi.get("bits") or kivi[part]), ranges) for part in ("keys", "values"))
    return HeadPlan((Run(keys, tuple(channels)),), values if layer.value_dimension else FULL, means)
