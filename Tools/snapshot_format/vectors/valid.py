"""The valid files (Formats/Vectors/README.md)."""

from ..elements import BF16, F16, F32, f32
from ..plan import FULL, ComponentHead, Components, HeadPlan, Run, compact, quantized
from .. import selection
from ..recipe import decide, select_tokens
from ..writer import assemble, encode, raw
from .caches import (
    METADATA_PAIRS, NO_CACHE, Generator, Shape, any_bits, equal_channels, far_from_means, few_values, full_mantissas,
    hard_groups, large_first_rows, make_cache,
)


class Valid:
    """A valid file. `heads` are plans by hand, `stages` what RECIPE has instead of the recipe's
    stages; if not `reproducible` no recipe, or not every zstd, makes the same bytes."""

    def __init__(
        self, name, recipe, element_type, tokens, d=0, layers=1, heads=1, query_heads=0, shapes=None, plans=None,
        stages=None, zstd=False, unknown=False, appendable=True, **more,
    ):
        self.name = name
        shapes = shapes or [Shape(heads, d, d, query_heads=query_heads)] * layers
        self.cache = make_cache(name, element_type, tokens, shapes, **more)
        kept = select_tokens(self.cache, recipe)
        plan = decide(kept, recipe)
        if plans is not None:
            plan = plan._replace(heads=plans)
        if stages is not None:
            plan = plan._replace(recipe=stages)
        header, sections = encode(kept, plan, zstd)
        if unknown:
            sections[65536] = raw(b"readers pass over this")
        self.data = assemble(header, sections)
        self.manifest = {
            "name": name,
            "recipe": "+".join(text for _, text in plan.recipe),
            "reproducible": plans is None and stages is None and not zstd and not unknown,
        }
        sinks = max(shape.sinks for shape in shapes)
        # Recipes of a selection, which keeps sinks, say themselves how many there are.
        if sinks and not recipe.startswith(selection.NAMES):
            self.manifest["sinks"] = sinks
        if not appendable:
            self.manifest["appendable"] = False


def mixed_plans() -> list:
    """Two heads of 20 channels whose runs, values and blocks differ."""
    means = tuple(f32(0.1 * c) for c in range(6))
    runs = (
        Run(quantized(4), (0, 3, 4, 7, 9, 12, 15)), Run(quantized(2), (2, 6, 8, 14, 18)), Run(FULL, (1, 19)),
    )
    first = HeadPlan(runs, quantized(2), means)
    runs = (
        Run(quantized(2), (5, 6, 7, 8, 9)), Run(FULL, (0,)), Run(quantized(4), (1, 2, 3)), Run(quantized(8), (18, 19)),
    )
    return [[first, HeadPlan(runs, quantized(4), ())]]


def all_widths(means: bool, values) -> HeadPlan:
    """12 channels in runs of 2, 4 and 8 bits and full precision; channels 3 and 10 are pruned."""
    runs = (
        Run(quantized(2), (0, 5, 6)), Run(quantized(4), (1, 11)), Run(quantized(8), (2, 4, 7, 8)), Run(FULL, (9,)),
    )
    return HeadPlan(runs, values, (f32(0.3), -2.5) if means else ())


def two_of_a_width(ranges: int) -> HeadPlan:
    """Runs that differ in nothing but how their ranges were chosen, in 6 channels."""
    runs = (Run(quantized(4), (1, 2, 5)), Run(quantized(4, ranges), (0, 3, 4)))
    return HeadPlan(runs, quantized(4, ranges), ())


def odd_widths(means: bool, values) -> HeadPlan:
    """20 channels in runs of 1, 3 and 5 bits and full precision; channels 4 and 13 are pruned."""
    runs = (
        Run(quantized(3), (0, 2, 3, 5, 11)), Run(quantized(1), (1, 6, 7)), Run(FULL, (19,)),
        Run(quantized(5), (8, 9, 10, 12, 14, 15, 16, 17, 18)),
    )
    return HeadPlan(runs, values, (1.5, f32(-0.7)) if means else ())


def compact_plans() -> list:
    """Five heads of 20 channels and 6 values: all widths, and runs that differ in scales alone."""
    def means(count: int) -> tuple:
        return tuple(f32(0.1 * c - 1) for c in range(count))

    heads = [
        (
            (
                Run(compact(1), (0, 5, 6)), Run(compact(3), (1, 2, 11, 12, 13)), Run(FULL, (9, 19)),
                Run(compact(5, 1), (4, 8)),
            ),
            compact(1), 18,
        ),
        (
            (
                Run(compact(8), (3,)), Run(compact(4), (0, 1, 2, 4, 5)), Run(quantized(4), (6, 7)),
                Run(compact(2), (10, 11, 12)),
            ),
            compact(3, 1, 1), 18,
        ),
        ((Run(FULL, (1, 2)), Run(compact(3, 1), tuple(range(3, 20)))), compact(5, 0, 1), 18),
        ((Run(quantized(3), tuple(range(1, 20))),), compact(8), 0),
        ((Run(compact(2), tuple(range(20))),), quantized(5, 1), 20),
    ]
    return [[HeadPlan(runs, values, means(count), means(6) if values.compact else ()) for runs, values, count in heads]]


def two_values_of_six(values, value_means: tuple) -> HeadPlan:
    return HeadPlan((Run(quantized(4), (0, 2, 3)),), values, (), value_means, (1, 4))


def large_means() -> list:
    """Heads of 6 channels and 4 values with the largest means that there may be: where no run is
    compact any number stands in for a pruned channel."""
    large = (65504.0, -65504.0, 65000.0, -60000.0)
    runs = Run(compact(4), (1, 2)), Run(compact(2), (5,)), Run(FULL, (4,))
    first = HeadPlan(runs, compact(4), large + (0.5,), large)
    second = HeadPlan((Run(quantized(4), (0, 5)),), compact(3, 0, 1), (1e6, -7e4, 65504.0, f32(-1e30)), large)
    return [[first, second]]


def valid_files():
    tail = "residual=0"
    unicode_pairs = {
        **METADATA_PAIRS,
        "note": "",
        "note.\uff5e": "before \U0001f600 in UTF-8, after it in UTF-16",
        "note.\U0001f600": "naïve ☃ \"quoted\"\n",
    }
    yield Valid("f16", "f16", F16, 40, 8, layers=2, heads=2, numbers=any_bits, metadata=unicode_pairs)
    yield Valid("bf16", "bf16", BF16, 37, 12, heads=2, numbers=any_bits, positions=[3 * t + 7 for t in range(37)])
    yield Valid("f32", "f32", F32, 64, 6, numbers=any_bits, token_ids=False)
    yield Valid("one-token", "kivi(bits=2)", F16, 1, 16, layers=2, token_ids=False, metadata={})
    yield Valid("kivi-2-tail", f"kivi(bits=2,{tail})", F16, 39, 40)
    yield Valid("kivi-4-group-64", "kivi(bits=4,group=64)", BF16, 195, 12)
    yield Valid("kivi-keys-4-values-2", "kivi(keys=4,values=2)", F16, 165, 12)
    yield Valid("kivi-8-group-128", "kivi(bits=8,group=128)", F16, 260, 6)
    yield Valid("kivi-2-dimension-80", f"kivi(bits=2,group=64,{tail})", F16, 65, 80)
    yield Valid("kivi-4-dimension-96", f"kivi(bits=4,{tail})", F16, 35, 96)
    yield Valid("kivi-2-dimension-128", f"kivi(bits=2,{tail})", BF16, 33, 128)
    yield Valid("kivi-8-dimension-256", f"kivi(bits=8,{tail})", F16, 32, shapes=[Shape(1, 256, 24)])
    yield Valid("kivi-2-dimension-5", f"kivi(bits=2,{tail})", F32, 70, 5)
    yield Valid("kivi-2-hard-f16", f"kivi(bits=2,{tail})", F16, 32, 32, heads=2, numbers=hard_groups)
    yield Valid("kivi-4-hard-f32", f"kivi(bits=4,{tail})", F32, 32, 32, heads=2, numbers=hard_groups)
    yield Valid("kivi-8-hard-bf16", f"kivi(bits=8,{tail})", BF16, 32, 32, heads=2, numbers=hard_groups)
    yield Valid("kivi-2-fitted", f"kivi(bits=2,{tail},ranges=fitted)", F16, 39, 40)
    yield Valid("kivi-4-fitted-hard-f32", f"kivi(bits=4,{tail},ranges=fitted)", F32, 32, 32, heads=2, numbers=hard_groups)
    yield Valid("kivi-8-fitted-dimension-5", f"kivi(bits=8,{tail},ranges=fitted)", F16, 35, 5)
    recipe = f"kivi(keys=4,values=2,group=64,{tail},sinks=4,ranges=fitted)"
    yield Valid("kivi-sinks-fitted-bf16", recipe, BF16, 70, shapes=[Shape(2, 6, 80, sinks=4)], numbers=large_first_rows)
    yield Valid("kivi-queries", f"kivi(bits=2,{tail})", F16, 37, 8, query_heads=2, queries=36)
    yield Valid("think", "think(keys=0.4)", F16, 70, 12, heads=2, query_heads=4, queries=32)
    yield Valid("think-mean-bf16", "think(keys=0.25,restore=mean)", BF16, 64, 8, layers=2, query_heads=1, queries=32)
    yield Valid("think-mean-f32", "think(keys=0.5,restore=mean)", F32, 70, 10, query_heads=1, queries=8, numbers=full_mantissas)
    yield Valid("think-kivi-2", "think(keys=0.4)+kivi(bits=2,residual=32)", F16, 71, 12, heads=2, query_heads=4, queries=40)
    yield Valid("think-mean-kivi-4", "think(keys=0.5,restore=mean)+kivi(bits=4,residual=32)", F16, 101, 10, heads=2, query_heads=2, queries=20)
    yield Valid("think-keys", "think(keys=0.3,score=keys)", F16, 70, 20, numbers=equal_channels)
    yield Valid("think-observe", f"think(keys=0.35,observe=16,recent=0)+kivi(bits=2,{tail})", F32, 37, 10, query_heads=2, queries=24)
    yield Valid("think-values", "think(keys=0.4,values=0.2)", F16, 70, 12, heads=2, query_heads=4, queries=32)
    shapes = [Shape(2, 10, 35, query_heads=2, sinks=4)]
    recipe = f"think(keys=0.5,values=0.4,recent=0,restore=mean)+kivi(bits=2,{tail},sinks=4,scales=compact,rotate=values)"
    yield Valid("think-values-rotated", recipe, F16, 37, shapes=shapes, queries=8)
    yield Valid("two-chunks", f"kivi(bits=2,{tail})", F16, 329, shapes=[Shape(2, 2, 3)] * 2, positions=list(range(329)))
    yield Valid("mixed-widths", f"kivi(keys=4,values=2,{tail})", F16, 37, 20, heads=2, plans=mixed_plans())
    yield Valid("zstd", f"kivi(bits=2,{tail})", F16, 300, 8, zstd=True, numbers=few_values)
    yield Valid("unknown-section", f"kivi(bits=2,{tail})", F16, 33, 8, unknown=True)
    yield from valid_odd_widths()
    yield from valid_compact()
    yield from valid_rotated()
    yield from valid_soft()
    yield from valid_plans()
    yield from valid_layers()
    yield from valid_sinks()
    yield from valid_states()
    yield from valid_selections()
    yield from valid_components()


def valid_plans():
    """Runs of several codings, and recipes that say nothing to a reader."""
    kivi = "kivi(bits=2,residual=0)"
    shapes = [Shape(2, 12, 6)]
    plans = [[all_widths(True, quantized(8)), all_widths(False, FULL)]]
    yield Valid("runs-f16", kivi, F16, 70, shapes=shapes, plans=plans)
    plans = [[all_widths(False, quantized(2)), all_widths(True, quantized(4))]]
    yield Valid("runs-bf16-group-64", "kivi(bits=2,group=64,residual=0)", BF16, 65, shapes=shapes, plans=plans)
    shapes, plans = [Shape(1, 12, 3)], [[all_widths(True, FULL)]]
    yield Valid("runs-f32-group-128", "kivi(bits=2,group=128,residual=0)", F32, 129, shapes=shapes, plans=plans)
    yield Valid("no-recipe", kivi, F16, 35, 6, stages=[])
    stages = [(77, "wavelet(levels=3)"), (4, "kivi of another kind, 2 ~ bits"), (2**32 - 1, " ")]
    yield Valid("unknown-recipe", kivi, F16, 35, 6, stages=stages)
    yield Valid("ranges-7", kivi, F16, 70, 6, plans=[[two_of_a_width(7)]], appendable=False)


def valid_odd_widths():
    """1, 3 and 5 bits with scales in f16."""
    tail = "residual=0"
    yield Valid("kivi-1-dimension-20", f"kivi(bits=1,{tail})", F16, 35, 20)
    yield Valid("kivi-3-group-64", f"kivi(bits=3,group=64,{tail})", BF16, 64, shapes=[Shape(1, 20, 5)])
    yield Valid("kivi-5-group-128", f"kivi(bits=5,group=128,{tail})", F16, 128, shapes=[Shape(1, 5, 3)])
    yield Valid("kivi-keys-5-values-1", f"kivi(keys=5,values=1,{tail})", BF16, 33, shapes=[Shape(1, 5, 36)])
    yield Valid("kivi-keys-1-values-3-fitted", f"kivi(keys=1,values=3,{tail},ranges=fitted)", F16, 35, 20)
    yield Valid("kivi-keys-3-values-1-fitted", f"kivi(keys=3,values=1,{tail},ranges=fitted)", BF16, 35, 20)
    yield Valid("kivi-3-hard-bf16", f"kivi(bits=3,{tail})", BF16, 32, 16, numbers=hard_groups)
    yield Valid("kivi-5-fitted-hard-f16", f"kivi(bits=5,{tail},ranges=fitted)", F16, 32, 16, numbers=hard_groups)
    plans = [[odd_widths(True, quantized(3)), odd_widths(False, quantized(1))]]
    yield Valid("runs-odd-widths", f"kivi(bits=3,{tail})", F16, 37, shapes=[Shape(2, 20, 6)], plans=plans)


def valid_compact():
    tail = "residual=0,scales=compact"
    yield Valid("compact-1-group-128", f"kivi(bits=1,group=128,{tail})", BF16, 128, shapes=[Shape(1, 6, 5)])
    recipe = f"kivi(keys=3,values=5,{tail})"
    yield Valid("compact-keys-3-values-5", recipe, F16, 35, shapes=[Shape(1, 5, 68)], numbers=full_mantissas)
    for width, element_type in ((3, F16), (8, BF16)):
        name, recipe = f"compact-{width}-hard-{element_type.name}", f"kivi(bits={width},{tail})"
        yield Valid(name, recipe, element_type, 32, 16, numbers=hard_groups)
    for width, element_type in ((1, F32), (2, BF16), (4, F16), (5, BF16)):
        name = f"compact-{width}-fitted-hard-{element_type.name}"
        recipe = f"kivi(bits={width},residual=0,ranges=fitted,scales=compact)"
        yield Valid(name, recipe, element_type, 32, 16, numbers=hard_groups)
    yield Valid("compact-far-from-means", f"kivi(bits=4,{tail})", F16, 40, 6, numbers=far_from_means)
    recipe = "kivi(keys=2,values=4,residual=0,sinks=4,ranges=fitted,scales=compact)"
    yield Valid("compact-sinks", recipe, F16, 70, shapes=[Shape(1, 6, 4, sinks=4)], numbers=large_first_rows)
    # No row after the sinks: all means are 0.
    recipe = "kivi(bits=2,residual=0,sinks=40,scales=compact)"
    yield Valid("compact-sinks-alone", recipe, F16, 33, shapes=[Shape(1, 6, 4, sinks=40)], numbers=large_first_rows)
    shapes = [Shape(1, 5, 3, rows=50), Shape(2, 4, 4, rows=36, listed=True, sinks=3), Shape(1, 2, 0, sinks=3), NO_CACHE]
    yield Valid("compact-layers", "kivi(bits=3,residual=0,sinks=3,scales=compact)", BF16, 70, shapes=shapes)
    recipe = f"think(keys=0.4,recent=0)+kivi(bits=2,{tail})"
    yield Valid("compact-think", recipe, F16, 37, 12, query_heads=2, queries=8)
    shapes = [Shape(1, 10, 4, query_heads=1, sinks=4)]
    recipe = f"think(keys=0.5,recent=0,restore=mean)+kivi(bits=4,{tail})"
    yield Valid("compact-think-mean", recipe, F32, 37, shapes=shapes, queries=8, numbers=full_mantissas)
    plans = compact_plans()
    yield Valid("runs-compact", f"kivi(bits=2,{tail})", F16, 33, shapes=[Shape(5, 20, 6)], plans=plans)
    plans, recipe = [plans[0][:1]], f"kivi(bits=2,group=64,{tail})"
    yield Valid("runs-compact-group-64", recipe, BF16, 65, shapes=[Shape(1, 20, 6)], plans=plans)
    plans = [[two_values_of_six(*head) for head in ((FULL, ()), (quantized(3), (f32(0.1), 7e4, 0, -1)))]]
    yield Valid("runs-values", "kivi(bits=4,residual=0)", F16, 35, shapes=[Shape(2, 6, 6)], plans=plans)
    yield Valid("means-large", f"kivi(bits=4,{tail})", F16, 33, shapes=[Shape(2, 6, 4)], plans=large_means())


def valid_rotated():
    tail = "residual=0,scales=compact,rotate=values"
    yield Valid("rotated-dimension-20", f"kivi(bits=2,{tail})", F16, 37, shapes=[Shape(1, 4, 20)])
    yield Valid("rotated-dimension-5-f32", f"kivi(bits=3,{tail})", F32, 33, shapes=[Shape(1, 4, 5)])
    yield Valid("rotated-dimension-64", f"kivi(keys=4,values=1,{tail})", F16, 33, shapes=[Shape(1, 2, 64)])
    recipe = "kivi(keys=5,values=3,residual=0,sinks=4,ranges=fitted,scales=compact,rotate=values)"
    yield Valid("rotated-dimension-96", recipe, BF16, 34, shapes=[Shape(1, 2, 96, sinks=4)], numbers=large_first_rows)
    recipe = "kivi(bits=4,residual=0,ranges=fitted,scales=compact,rotate=values)"
    yield Valid("rotated-hard-f32", recipe, F32, 32, shapes=[Shape(1, 2, 32)], numbers=hard_groups)
    yield Valid("rotated-hard-bf16", f"kivi(bits=8,{tail})", BF16, 32, shapes=[Shape(1, 2, 24)], numbers=hard_groups)
    yield Valid("rotated-far-from-means", f"kivi(bits=5,{tail})", F16, 35, shapes=[Shape(1, 2, 32)], numbers=far_from_means)


def valid_soft():
    def shape(heads: int, keys: int, values: int, sinks: int = 4, **more) -> Shape:
        return Shape(heads, keys, values, sinks=sinks, query_heads=2, **more)

    yield Valid("soft", "think(bits=2.5)", F16, 161, shapes=[shape(1, 20, 1)], queries=4)
    yield Valid("soft-two-heads", "think(bits=2,recent=0,sinks=0)", BF16, 33, shapes=[shape(2, 20, 1, 0)], queries=20)
    recipe = "think(bits=3.125,widths=0|1|3|5|8,recent=0,sinks=0)"
    yield Valid("soft-widths", recipe, BF16, 33, shapes=[shape(1, 36, 1, 0)], queries=6)
    recipe = "think(bits=3.7,widths=2|4,observe=3,recent=0,sinks=0)"
    yield Valid("soft-none-pruned", recipe, F16, 33, shapes=[shape(2, 18, 1, 0)], queries=6)
    yield Valid("soft-few-bits", "think(bits=0.5,recent=0,sinks=0)", F16, 32, shapes=[shape(1, 64, 1, 0)], queries=2)
    # Too few rows to lose anything of.
    yield Valid("soft-few-tokens", "think(bits=2.5)", F16, 20, shapes=[shape(1, 20, 1)], queries=4)
    recipe = "think(bits=2.25,recent=0,score=keys,sinks=0)"
    yield Valid("soft-keys", recipe, F32, 32, shapes=[Shape(1, 20, 1)], numbers=full_mantissas)
    recipe = "think(bits=2.5,recent=0,sinks=40)+kivi(bits=3,group=64,residual=0)"
    yield Valid("soft-kivi-group-64", recipe, F16, 129, shapes=[shape(1, 12, 1, 40)], queries=4, numbers=large_first_rows)
    recipe = "think(bits=2.5,recent=0)+kivi(bits=2,residual=0,sinks=4,ranges=fitted,scales=compact,rotate=values)"
    yield Valid("soft-kivi-rotated", recipe, F16, 66, shapes=[shape(1, 20, 12)], queries=4, numbers=large_first_rows)
    recipe = "think(bits=2.5,values=2.75,recent=0)"
    yield Valid("soft-values", recipe, F16, 66, shapes=[shape(1, 20, 32)], queries=4, numbers=large_first_rows)
    recipe = "think(bits=4,values=5.5,recent=0,sinks=0)"
    yield Valid("soft-values-wide", recipe, BF16, 33, shapes=[shape(2, 32, 48, 0)], queries=4)
    layers = [shape(1, 20, 2), shape(1, 20, 2, 0, rows=50), shape(1, 16, 0, rows=66, listed=True), NO_CACHE]
    recipe = "think(bits=2.5,recent=0)+kivi(keys=2,values=4,residual=0,scales=compact)"
    yield Valid("soft-layers", recipe, BF16, 70, shapes=layers, queries=4)
    recipe = "think(bits=2.5,recent=0,sinks=0)"
    yield Valid("soft-hard", recipe, F32, 33, shapes=[shape(1, 32, 1, 0)], queries=4, numbers=hard_groups)


def valid_layers():
    """Layers of their own shape, and layers that do not hold all tokens."""
    kivi = "kivi(bits=4,residual=0)"
    yield Valid("layers-of-own-shape", kivi, F16, 37, shapes=[Shape(1, 8, 8), Shape(2, 4, 6), Shape(3, 5, 1)])
    yield Valid("dimensions-20-40", "kivi(bits=2,residual=0)", F16, 35, shapes=[Shape(1, 20, 40)])
    yield Valid("dimensions-24-6-f32", "f32", F32, 33, shapes=[Shape(1, 24, 6)], numbers=any_bits)
    yield Valid("no-values", kivi, F16, 70, shapes=[Shape(1, 18, 0), Shape(1, 6, 2)])
    yield Valid("no-values-bf16", "bf16", BF16, 40, shapes=[Shape(2, 5, 0)], numbers=any_bits)
    # 70 tokens, 32 of them in blocks: the window begins at place 32.
    shapes = [Shape(), Shape(rows=20), Shape(rows=38), Shape(rows=1)]
    yield Valid("last-in-window", "kivi(bits=4,residual=32)", F16, 70, shapes=shapes)
    # Of 100 tokens 96 are in blocks; 60 rows begin within block 1, 36 with block 2, 4 with the window.
    yield Valid("last-part-of-block", kivi, F16, 100, shapes=[Shape(), Shape(2, 5, 3, rows=60)])
    yield Valid("last-at-boundary", kivi, F16, 100, shapes=[Shape(rows=36), Shape(rows=4), Shape()])
    yield Valid("last-f32", "f32", F32, 50, shapes=[Shape(1, 3, 5, rows=27), Shape(1, 2, 2, rows=49)], numbers=any_bits)
    yield Valid("last-group-64", "kivi(bits=2,group=64,residual=0)", BF16, 200, shapes=[Shape(1, 8, 4, rows=100)])
    # Chunk 0 has no slab with bytes, chunk 1 one of layer 1, chunk 2 those of layers 0 and 1.
    shapes = [Shape(rows=50), Shape(2, 3, 1, rows=330), Shape(rows=10)]
    yield Valid("last-without-first-chunks", kivi, F16, 600, shapes=shapes)
    shapes = [Shape(1, 8, 8, rows=40, query_heads=2), Shape(2, 8, 4, query_heads=2), Shape(2, 4, 4, rows=90, query_heads=4)]
    recipe = "think(keys=0.5,observe=4,recent=0,restore=mean)+kivi(bits=4,residual=0)"
    yield Valid("last-think", recipe, F16, 100, shapes=shapes, queries=6)
    shapes = [Shape(2, 6, 4, rows=70, listed=True), Shape(rows=20, listed=True)]
    yield Valid("listed", "kivi(bits=4,residual=32)", F16, 300, shapes=shapes)
    shapes = [Shape(2, rows=64, listed=True), Shape(), Shape(rows=41, listed=True), Shape(rows=80)]
    yield Valid("listed-and-others", "kivi(bits=2,residual=0)", F16, 90, shapes=shapes)
    yield Valid("listed-all-tokens", "f16", F16, 40, shapes=[Shape(1, 3, 3, rows=40, listed=True)], numbers=any_bits)
    yield Valid("layer-without-cache", kivi, F16, 40, shapes=[NO_CACHE, Shape(), NO_CACHE, Shape(rows=39), NO_CACHE])
    sliding = Shape(1, 8, 8, rows=40, query_heads=2)
    shapes = [sliding] * 5 + [Shape(2, 4, 4, query_heads=4)]
    pairs = {**METADATA_PAIRS, "model.architecture": "gemma3"}
    recipe = "think(keys=0.25)+kivi(bits=4,residual=32)"
    yield Valid("gemma-3", recipe, BF16, 100, shapes=shapes, queries=8, metadata=pairs)


def valid_sinks():
    kivi = "kivi(bits=2,residual=0)"
    yield Valid("sinks-4", kivi, F16, 70, shapes=[Shape(2, 6, 4, sinks=4)] * 2, numbers=large_first_rows)
    yield Valid("sinks-f32", "f32", F32, 40, shapes=[Shape(1, 3, 5, sinks=1)], numbers=any_bits)
    yield Valid("sinks-40", kivi, F16, 70, shapes=[Shape(1, 6, 4, sinks=40)], numbers=large_first_rows)
    yield Valid("sinks-64-f16", "f16", F16, 97, shapes=[Shape(1, 3, 3, sinks=64)], numbers=any_bits)
    yield Valid("sinks-beyond-blocks", kivi, F16, 60, shapes=[Shape(1, 6, 4, sinks=50)], numbers=large_first_rows)
    yield Valid("sinks-in-window", "kivi(bits=2)", F16, 20, shapes=[Shape(1, 6, 4, sinks=4)], numbers=large_first_rows)
    shapes = [Shape(2, 4, 4, rows=70, listed=True, sinks=4), Shape(rows=33, listed=True, sinks=4), Shape(rows=20)]
    yield Valid("sinks-listed", kivi, F16, 120, shapes=shapes, numbers=large_first_rows)
    # Nothing but sinks: those of the block, all of it stand-ins, and one in the window.
    shapes = [Shape(2, 6, 4, rows=33, listed=True, sinks=33)]
    yield Valid("sinks-of-all-listed", kivi, F16, 50, shapes=shapes, numbers=large_first_rows)
    shapes = [Shape(1, 8, 0, sinks=3), Shape(2, 4, 2, sinks=3), NO_CACHE, Shape(rows=50)]
    recipe = "think(keys=0.25,restore=mean,score=keys)+kivi(bits=8,group=64,residual=64)"
    yield Valid("sinks-of-own-shape", recipe, BF16, 150, shapes=shapes)


def valid_states():
    """What layers keep beside keys and values."""
    def item(name: str, length: int) -> bytes:
        generator = Generator(name)
        return bytes(generator.integer(256) for _ in range(length))

    shapes = [
        Shape(state={"convolution": item("a", 64), "recurrence": item("b", 100)}),
        NO_CACHE._replace(state={"S": item("c", 1), "empty": b"", "\u00e9tat \U0001f600": item("d", 65)}),
        NO_CACHE,
        Shape(state={"last": b""}),
    ]
    yield Valid("state", "kivi(bits=4,residual=0)", F16, 40, shapes=shapes)
    shapes = [NO_CACHE._replace(state={"s": item("e", 7)})]
    yield Valid("state-alone", "f16", F16, 5, shapes=shapes, stages=[], token_ids=False, metadata={})
    yield Valid("tokens-alone", "f16", F16, 300, shapes=[NO_CACHE, NO_CACHE], stages=[])
    shapes = [
        Shape(rows=50), Shape(1, 5, 2, rows=330), Shape(rows=290, listed=True, sinks=4),
        NO_CACHE._replace(state={"s": bytes(300)}),
    ]
    yield Valid("zstd-of-all", "kivi(bits=2,residual=0)", F16, 600, shapes=shapes, zstd=True, numbers=few_values)


def valid_selections():
    """Tokens that stages drop, of layers that hold all, the last ones and listed ones."""
    kivi = "kivi(bits=2,residual=0)"
    yield Valid("streaming", f"streaming(recent=40)+{kivi}", F16, 70, 8, layers=2)
    shapes = [
        Shape(2, 6, 4, query_heads=4), Shape(2, 6, 4, query_heads=4, rows=50), NO_CACHE,
        Shape(2, 4, 0, query_heads=2, rows=60, listed=True), Shape(1, 6, 4, query_heads=1, rows=34),
    ]
    recipe = f"snapkv(keep=0.6,observe=8,kernel=3)+think(keys=0.4,recent=0)+{kivi}"
    yield Valid("snapkv-layers", recipe, F16, 75, shapes=shapes, queries=32, numbers=full_mantissas)
    yield Valid("snapkv-f32", "snapkv(tokens=40)", F32, 90, 5, heads=2, query_heads=2, queries=20)
    recipe = "keydiff(keep=0.55,recent=8)+kivi(keys=4,values=2,residual=32)"
    yield Valid("keydiff-layers", recipe, BF16, 75, shapes=[shape._replace(query_heads=0) for shape in shapes])
    yield Valid("keydiff-equal", "keydiff(tokens=34,kernel=1)", F16, 50, 4, numbers=few_values)
    yield Valid("keydiff-pooled", "keydiff(tokens=30,recent=5,kernel=5)", F32, 60, 4)
    shapes = [Shape(2, 16, 16, query_heads=4, sinks=4), Shape(2, 16, 16, query_heads=4, rows=60)]
    soft = "think(bits=3,values=3,recent=0)"
    yield Valid("snapkv-sinks", f"snapkv(tokens=48,observe=8)+{soft}", F16, 90, shapes=shapes, queries=16)
    shapes = [Shape(1, 8, 8, sinks=5)]
    yield Valid("streaming-sinks", "streaming(sinks=2,recent=40)+kivi(bits=2,residual=0,sinks=5)", F16, 70, shapes=shapes)
    shapes = [Shape(2, 8, 8, query_heads=2, sinks=3)]
    pairs = METADATA_PAIRS | {
        "recipe.rationale": "h2o added up the attention of the queries that came with the cache, not of all"
    }
    recipe = "h2o(keep=0.5)+kivi(bits=4,residual=0,sinks=3)"
    yield Valid("h2o", recipe, F16, 80, shapes=shapes, queries=30, metadata=pairs)
    yield Valid("h2o-recent", "h2o(tokens=36,recent=5)", BF16, 75, 6, query_heads=2, queries=40, metadata=pairs)
    yield Valid("selection-of-all", f"snapkv(tokens=64)+{kivi}", F16, 64, 6)


def components(name: str, channels: int, runs: tuple) -> Components:
    """Rows of a Hadamard matrix, whose order is a power of two, with numbers that are a little off."""
    generator = Generator(name)
    count = sum(number for _, number in runs)
    order = 1 << (channels - 1).bit_length()
    matrix = tuple(
        tuple(
            (-1 if (component & channel).bit_count() % 2 else 1) * (110 + generator.integer(9))
            for channel in range(channels)
        )
        for component in range(count)
    )
    scales = tuple(f32((1 + 0.02 * (k % 3)) / 114 / order**0.5) for k in range(count))
    weights = tuple(f32(2 / (1 + c)) for c in range(channels))
    means = tuple(f32(0.25 * c - 0.6) for c in range(channels))
    return Components(runs, matrix, scales, weights, means)


def valid_components():
    """Components of bases: versions of files that have them are 3."""
    four, three = (compact(4, 1), 4), (compact(3, 1), 3)
    two, one = (compact(2, 1), 2), (compact(1, 1), 1)
    recipe = "kivi(bits=2,group=64,residual=0)"
    heads = [
        ComponentHead(components("a", 8, (four,)), components("b", 16, (four, three, two, one))),
        ComponentHead(components("c", 8, (three, (compact(5), 2), one)), components("d", 16, ((compact(2), 13),))),
    ]
    yield Valid("components", recipe, F16, 70, shapes=[Shape(2, 8, 16, sinks=4)], plans=[heads], numbers=large_first_rows)
    plans = [
        [ComponentHead(components("e", 4, (two, one)), components("f", 2, (one,)))],
        [HeadPlan((Run(quantized(4), (0, 2)),), quantized(2), ())],
        [ComponentHead(components("g", 8, ((quantized(8), 1), (quantized(2, 1), 7))), None)],
    ]
    shapes = [Shape(1, 4, 2, rows=40), Shape(1, 3, 2), Shape(1, 8, 0)]
    yield Valid("components-layers-f32", "kivi(bits=2,residual=0)", F32, 70, shapes=shapes, plans=plans)
    head = ComponentHead(components("h", 4, (four,)), components("i", 8, ((compact(1), 5), three)))
    recipe = "kivi(bits=2,group=128,residual=0)"
    yield Valid("components-group-128", recipe, BF16, 129, shapes=[Shape(1, 4, 8)], plans=[[head]], numbers=full_mantissas)
