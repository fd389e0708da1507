"""What the package says twice, compared: the library's functions and the example of its page."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from think_compress import kernels, version
from think_compress._library import PROTOTYPES

ROOT = Path(__file__).resolve().parents[3]


def test_every_function_of_the_library_is_declared() -> None:
    functions = subprocess.run([ROOT / "Tools/CLibrary/functions"], capture_output=True, check=True, text=True)
    assert sorted(PROTOTYPES) == functions.stdout.split()


def test_declarations_have_as_many_arguments_as_the_header() -> None:
    header = (ROOT / "Sources/CThinkCompress/include/think_compress.h").read_text()
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    for name, (_, arguments) in PROTOTYPES.items():
        found = re.search(rf"[ *]{name}\((.*?)\);", header, re.DOTALL)
        assert found is not None, name
        declared = [] if found[1] == "void" else found[1].split(",")
        assert len(declared) == len(arguments), name


def test_version_and_kernels() -> None:
    header = (ROOT / "Sources/CThinkCompress/include/think_compress.h").read_text()
    assert f'#define TC_VERSION "{version()}"' in header
    assert kernels()


def run_example(number: int, lines: int) -> None:
    code = (ROOT / "Library.md").read_text().split("```python\n")[number].split("```")[0]
    assert len(code.strip().splitlines()) <= lines
    exec(compile(code, "Library.md", "exec"), {})


def test_the_pages_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    run_example(1, lines=10)
    assert capsys.readouterr().out.startswith("<think_compress.Cache: 256 tokens, 1 layers, float32, ")
    assert (tmp_path / "prompt.tkv").stat().st_size > 0


@pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
def test_the_example_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers", minversion="5")
    monkeypatch.chdir(tmp_path)
    run_example(2, lines=15)
    # Random weights may end the text before all new tokens are there.
    assert re.search(r"think\(bits=2.5,values=2.25\), 2 layers, 60\d tokens, ", capsys.readouterr().out)
    assert (tmp_path / "chat.tkv").stat().st_size > 0
