"""What the stages of a recipe decide (kivi.md, full-precision.md, think.md, selection.md).

For writers: no reader needs this. Texts are taken to be right and canonical.
"""

import re
from fractions import Fraction

from . import prune, selection
from .plan import FULL, Coding, HeadPlan, Run
from .writer import Cache, Layer, Plan

NUMBERS = {"f16": 1, "bf16": 2, "f32": 3, "kivi": 4, "think": 5, "streaming": 8, "snapkv": 9, "keydiff": 10, "h2o": 11}


def _stages(text: str) -> dict:
    """Parameters by stage, such as of `think(keys=0.4)+kivi(bits=2)`."""
    stages = {}
    for part in text.split("+"):
        name, parameters = re.fullmatch(r"([a-z0-9]+)(?:\((.+)\))?", part).groups()
        stages[name] = dict(parameter.split("=") for parameter in (parameters or "").split(",") if parameter)
    return stages


def _floats(rows: list, element_type) -> list:
    return [[element_type.value(x) for x in row] for row in rows]


def select_tokens(cache: Cache, text: str) -> Cache:
    """The cache of the tokens that a recipe keeps."""
    for name, parameters in _stages(text).items():
        if name in selection.NAMES:
            cache = selection.selected(cache, name, parameters)
    return cache


def decide(cache: Cache, text: str) -> Plan:
    """The plan of a cache of what stays that is compressed with a recipe."""
    stages = _stages(text)
    kivi, think = stages.get("kivi"), stages.get("think")
    block_length, residual = 32, 0
    if kivi:
        block_length, residual = int(kivi.get("group", 32)), int(kivi.get("residual", 128))
    if think:
        residual = max(residual, int(think.get("recent", 128 if "bits" in think else 32)))
    heads, profile = [], []
    for layer in cache.layers:
        q2 = [_query_profile(cache, layer, head, think) for head in range(len(layer.keys))]
        profile += [x for numbers in q2 for x in numbers or []]
        heads.append(_head_plans(cache, layer, block_length, kivi, think, q2))
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


def _head_plans(cache: Cache, layer: Layer, block_length: int, kivi, think, q2: list) -> list:
    if not layer.keys:
        return []
    d, heads = layer.key_dimension, [_floats(rows, cache.type) for rows in layer.keys]
    key_coding, value_coding = _codings(kivi) if kivi else (FULL, FULL)
    means = [{} for _ in heads]  # those decided so far, by channel
    if think and think.get("score") == "keys":
        q2 = [None] * len(heads)
    if think and "bits" in think:
        bits = Fraction(think["bits"])
        widths = list(map(int, think.get("widths", "0|2|3|4|5").split("|")))
        weights = [weight or [1.0] * d for weight in q2]
        means = [dict(enumerate(prune.channel_means(rows[layer.sinks :], d))) for rows in heads]
        runs = prune.soft_runs(heads, weights, widths, layer.sinks, block_length, bits)
        if "values" in think and layer.value_dimension:
            width = prune.value_width(layer.value_dimension, Fraction(think["values"]), block_length)
            value_coding = Coding(width, 2, 1, 1)
    elif think:
        ratio = Fraction(think.get("keys", 0))
        kept = [prune.kept_channels(rows, ratio, weight) if ratio else [*range(d)] for rows, weight in zip(heads, q2)]
        runs = [(Run(key_coding, tuple(channels)),) for channels in kept]
        if think.get("restore") == "mean":
            for rows, channels, known in zip(heads, kept, means):
                known.update((c, x) for c, x in enumerate(prune.channel_means(rows, d)) if c not in channels)
    else:
        runs = [(Run(key_coding, tuple(range(d))),)] * len(heads)
    if not layer.value_dimension:
        value_coding = FULL
    plans = []
    for rows, values, head_runs, known in zip(heads, layer.values, runs, means):
        plan, rows_of_values = HeadPlan(head_runs, value_coding, ()), _floats(values, cache.type)
        pruned_means = {}
        if think and "values" in think and "bits" not in think and layer.value_dimension:
            kept = prune.kept_channels(rows_of_values, Fraction(think["values"]), None)  # no model is at hand
            if len(kept) < layer.value_dimension:
                plan = plan._replace(value_channels=tuple(kept))
                if think.get("restore") == "mean":
                    of_rows = enumerate(prune.channel_means(rows_of_values, layer.value_dimension))
                    pruned_means = {c: x for c, x in of_rows if c not in kept}
        if plan.compact_keys():
            of_rows = prune.channel_means(rows[layer.sinks :], d)
            kept = plan.kept()
            known = {c: of_rows[c] if c in kept else known.get(c, 0.0) for c in plan.channels_of_means(d)}
        value_means = pruned_means
        if value_coding.compact:
            of_rows = prune.channel_means(rows_of_values[layer.sinks :], layer.value_dimension)
            value_means |= {c: of_rows[c] for c in plan.kept_values(layer.value_dimension)}
        means, value_means = (tuple(x for _, x in sorted(part.items())) for part in (known, value_means))
        plans.append(plan._replace(means=means, value_means=value_means))
    return plans


def _codings(kivi: dict):
    """Those of keys and of values."""
    scales = 2 if kivi.get("scales") == "compact" else 1
    ranges = 1 if kivi.get("ranges") == "fitted" else 0
    rotation = 1 if kivi.get("rotate") == "values" else 0
    widths = [int(kivi.get("bits") or kivi[part]) for part in ("keys", "values")]
    return Coding(widths[0], scales, ranges, 0), Coding(widths[1], scales, ranges, rotation)
