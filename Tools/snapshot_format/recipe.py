"""Recipes: the stages of RECIPE and their parameters (snapshot.md, RECIPE; kivi.md and
think.md, Parameters)."""

import re
from fractions import Fraction
from typing import NamedTuple

CODECS = {1: "f16", 2: "bf16", 3: "f32", 4: "kivi", 5: "think"}
NUMBERS = {name: number for number, name in CODECS.items()}


class RecipeError(Exception):
    pass


class Stage(NamedTuple):
    codec: str
    text: str  # canonical parameters
    values: dict  # all parameters, defaults filled in

    def __str__(self) -> str:
        return f"{self.codec}({self.text})" if self.text else self.codec


def _integer(text: str, low: int, high: int) -> int:
    if not re.fullmatch("0|[1-9][0-9]{0,9}", text) or not low <= int(text) <= high:
        raise RecipeError(f"'{text}' is not a whole number of {low}...{high}")
    return int(text)


def _choice(text: str, choices) -> str:
    if text not in choices:
        raise RecipeError(f"'{text}' is none of {', '.join(choices)}")
    return text


def _ratio(text: str) -> Fraction:
    """Exact, so that floor(D * RATIO) does not depend on binary rounding."""
    if not re.fullmatch(r"0|0\.(?=[0-9]{1,6}$)[0-9]*[1-9]", text):
        raise RecipeError(f"'{text}' is not a decimal number from 0 to below 1")
    return Fraction(text)


def _kivi(given: dict) -> dict:
    both = "bits" not in given
    values = {
        "keys": int(_choice(given.pop("keys" if both else "bits", ""), ("2", "4", "8"))),
        "group": int(_choice(given.pop("group", "32"), ("32", "64", "128"))),
        "residual": _integer(given.pop("residual", "128"), 0, 65536),
    }
    values["values"] = int(_choice(given.pop("values", ""), ("2", "4", "8"))) if both else values["keys"]
    if values["residual"] % values["group"]:
        raise RecipeError("residual is not a multiple of group")
    return values


def _kivi_text(values: dict) -> list:
    if values["keys"] == values["values"]:
        text = [f"bits={values['keys']}"]
    else:
        text = [f"keys={values['keys']}", f"values={values['values']}"]
    return text + [f"{n}={values[n]}" for n, default in (("group", 32), ("residual", 128)) if values[n] != default]


def _think(given: dict) -> dict:
    ratio = given.pop("keys", "")
    return {
        "keys": _ratio(ratio),
        "ratio": ratio,
        "observe": _integer(given.pop("observe", "32"), 1, 65536),
        "recent": _integer(given.pop("recent", "32"), 0, 65536),
        "restore": _choice(given.pop("restore", "none"), ("none", "mean")),
        "score": _choice(given.pop("score", "queries"), ("queries", "keys")),
    }


def _think_text(values: dict) -> list:
    defaults = (("observe", 32), ("recent", 32), ("restore", "none"), ("score", "queries"))
    return [f"keys={values['ratio']}"] + [f"{n}={values[n]}" for n, default in defaults if values[n] != default]


def parse_stage(codec: str, text: str) -> Stage:
    """A stage from its canonical parameters; any other text is refused."""
    given = {}
    for part in text.split(",") if text else []:
        name, equals, value = part.partition("=")
        if not equals or name in given:
            raise RecipeError(f"'{part}' is not a parameter of {codec}")
        given[name] = value
    if codec == "kivi":
        values = _kivi(given)
        canonical = _kivi_text(values)
    elif codec == "think":
        values = _think(given)
        canonical = _think_text(values)
    else:
        values, canonical = {}, []
    if given:
        raise RecipeError(f"{codec} has no parameter '{next(iter(given))}'")
    if text != ",".join(canonical):
        raise RecipeError(f"'{text}' is not canonical, '{','.join(canonical)}' is")
    return Stage(codec, text, values)


def parse(text: str) -> list:
    """The stages of a recipe's text such as `think(keys=0.4)+kivi(bits=2)`."""
    stages = []
    for part in text.split("+"):
        match = re.fullmatch(r"([a-z0-9]+)(?:\((.+)\))?", part)
        if not match or match[1] not in NUMBERS:
            raise RecipeError(f"'{part}' is not a stage")
        stages.append(parse_stage(match[1], match[2] or ""))
    return stages
