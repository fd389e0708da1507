"""What recipes cost a real model through `ThinkCompressCache`, and what `think-compress eval` says: on request.

THINK_COMPRESS_MODEL names the model, a folder or a GGUF file, such as Tools/DemoModel or what Tools/fetch-model prints.
THINK_COMPRESS_COMMAND is the command, by default that of `swift build --configuration release`, and THINK_COMPRESS_TEXT
the text. Paths are relative to the repository. `pytest -s tests/test_divergence.py` shows the figures.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from think_compress import Snapshot

if "THINK_COMPRESS_MODEL" not in os.environ:
    pytest.skip("THINK_COMPRESS_MODEL names no model", allow_module_level=True)

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers", minversion="5")

from think_compress.transformers import ThinkCompressCache  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / os.environ["THINK_COMPRESS_MODEL"]
COMMAND = ROOT / os.environ.get("THINK_COMPRESS_COMMAND", ".build/release/think-compress")
TEXT = ROOT / os.environ.get("THINK_COMPRESS_TEXT", "Tools/DemoModel/text/postgresql-manual.txt")

RECIPES = [
    "kivi(bits=4)",
    "kivi(bits=2)",
    "think(keys=0.4)",
    "think(keys=0.4)+kivi(bits=4)",
    "think(keys=0.4)+kivi(bits=2)",
    "balanced",
    "snapkv(keep=0.5)",
]
PREFIX, CONTINUATION, TRIALS = 1024, 64, 4
# A prompt of so many characters is one that the model has positions for, and so a snapshot, which has its tokens.
CHARACTERS = 9000


def run(*arguments: str) -> str:
    return subprocess.run([COMMAND, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def model() -> Any:
    options = {"gguf_file": MODEL.name} if MODEL.is_file() else {}
    folder = MODEL.parent if MODEL.is_file() else MODEL
    # The command computes in float32, too.
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, **options
    ).eval()


def test_divergence_is_what_eval_reports(tmp_path: Path, model: Any) -> None:
    text, file = tmp_path / "text.txt", tmp_path / "text.tkv"
    text.write_text(TEXT.read_text(encoding="utf-8")[:CHARACTERS], encoding="utf-8")
    # transformers takes none of a GGUF file's pre-tokenizers, so the tokens are the command's.
    run("snapshot", "--model", str(MODEL), "--prompt-file", str(text), "--codec", "kivi(bits=2)", "-o", str(file))
    with Snapshot.open(file) as snapshot:
        ids = snapshot.token_ids
    assert ids is not None
    tokens = torch.from_numpy(ids).long()[None]
    measured = json.loads(
        run(
            *("eval", "text", "--model", str(MODEL), "--text", str(text), "--codecs", ";".join(RECIPES), "--json"),
            *("--prefix", str(PREFIX), "--continuation", str(CONTINUATION), "--trials", str(TRIALS)),
        )
    )
    # Full precision comes first: float16.
    told = {recipe["recipe"]: recipe["kl"] for recipe in measured["recipes"]}
    # What begins every text, such as a token for its beginning.
    first = int(ids[0] == model.config.bos_token_id)
    own = dict.fromkeys(told, 0.0)
    for trial in range(TRIALS):
        length = PREFIX - first + CONTINUATION + 1
        # As Evaluator+Text.swift chooses places.
        start = first + int((tokens.shape[1] - first - length) * ((trial + 1) * 0.618033988749895 % 1))
        prompt = torch.cat([tokens[:, :first], tokens[:, start : start + PREFIX - first]], dim=1)
        following = tokens[:, start + PREFIX - first :][:, :CONTINUATION]
        rows = {}
        for recipe in told:
            with ThinkCompressCache(model, recipe, dtype="float16") as cache, torch.no_grad():
                model(prompt, past_key_values=cache, logits_to_keep=1)
                rows[recipe] = model(following, past_key_values=cache).logits[0].double().log_softmax(-1)
            full = rows["f16"]
            own[recipe] += float((full.exp() * (full - rows[recipe])).sum()) / CONTINUATION / TRIALS
    print()
    for recipe, divergence in own.items():
        if recipe != "f16":
            ratio = divergence / told[recipe]
            print(f"{recipe:34} KL {divergence:.5f}, by eval {told[recipe]:.5f}, ratio {ratio:.3f}")
    for recipe, divergence in own.items():
        assert divergence == pytest.approx(told[recipe], rel=0.1, abs=1e-5), recipe


def test_the_commands_snapshot_goes_on_here(tmp_path: Path, model: Any) -> None:
    """What comes next after a snapshot of the command's is what comes after a cache of our own."""
    text, file = tmp_path / "text.txt", tmp_path / "text.tkv"
    text.write_text(TEXT.read_text(encoding="utf-8")[: CHARACTERS // 4], encoding="utf-8")
    run("snapshot", "--model", str(MODEL), "--prompt-file", str(text), "--codec", "kivi(bits=4)", "-o", str(file))
    with Snapshot.open(file) as snapshot:
        ids, name = snapshot.token_ids, snapshot.metadata["model.id"]
    assert ids is not None
    tokens = torch.from_numpy(ids).long()[None]
    with ThinkCompressCache.load(file, model, tokens, model_id=name) as loaded, torch.no_grad():
        assert loaded.get_seq_length() == tokens.shape[1] - 1
        theirs = model(tokens[:, -1:], past_key_values=loaded).logits[0, -1].log_softmax(-1)
    with ThinkCompressCache(model, "kivi(bits=4)", dtype="float16") as cache, torch.no_grad():
        model(tokens, past_key_values=cache)
        cache.crop(-1)
        ours = model(tokens[:, -1:], past_key_values=cache).logits[0, -1].log_softmax(-1)
    assert float((ours.exp() * (ours - theirs)).sum()) < 1e-3
