from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DIMENSION, HEADS, QUERY_HEADS

import think_compress
from think_compress import (
    Cache,
    Cancelled,
    Compressor,
    Damaged,
    FileError,
    FileExists,
    FileNotFound,
    InternalError,
    InvalidArgument,
    Layer,
    LayerShape,
    NotFound,
    OtherModel,
    OutOfMemory,
    Recipe,
    RecipeError,
    Snapshot,
    ThinkCompressError,
    Unsupported,
    UnsupportedValue,
    WholeOnly,
    Workers,
    _library,
)
from think_compress._errors import BY_STATUS

MakeLayer = Callable[..., Layer]


def test_exceptions_are_of_pythons_kinds() -> None:
    kinds = {
        InvalidArgument: ValueError,
        RecipeError: ValueError,
        UnsupportedValue: ValueError,
        OutOfMemory: MemoryError,
        FileError: OSError,
        FileExists: FileExistsError,
        FileNotFound: FileNotFoundError,
        OtherModel: ValueError,
        NotFound: LookupError,
    }
    for kind, builtin in kinds.items():
        assert issubclass(kind, ThinkCompressError) and issubclass(kind, builtin)
    names = [name.decode() for number in range(1, 20) if (name := _library.library.tc_status_name(number)) is not None]
    assert len(names) == len(BY_STATUS) == 14
    for name, kind in zip(names, BY_STATUS.values(), strict=True):
        words = name.removeprefix("TC_").split("_")
        expected = {"INVALID_RECIPE": "RecipeError", "INTERNAL": "InternalError"}
        assert kind.__name__ == expected.get("_".join(words), "".join(word.title() for word in words))


def test_each_kind(tmp_path: Path, cache: Cache, make_layer: MakeLayer) -> None:
    path = tmp_path / "prompt.tkv"
    with pytest.raises(RecipeError, match="kivi"):
        Recipe("kivvi(bits=4)")
    with pytest.raises(InvalidArgument, match="301"):
        cache.truncate(301)
    with pytest.raises(Unsupported, match="queries"):
        Cache.compress([make_layer()], "think(keys=0.25)")
    layer = make_layer()
    for number in (np.nan, np.inf):
        layer.keys[1, 20, 3] = number
        with pytest.raises(UnsupportedValue, match="layer 0"):
            Cache.compress([layer], "kivi(bits=4)")
    window = Cache.compress([make_layer(300), make_layer(64)], "f32")
    with pytest.raises(WholeOnly):
        window.truncate(100)
    with pytest.raises(FileNotFoundError, match="prompt"):
        Snapshot.open(path)
    with pytest.raises(FileError):
        Snapshot.open(tmp_path)
    cache.save(path)
    with pytest.raises(FileExists, match="exists"):
        cache.save(path)
    Cache.compress([make_layer()], "exact").save(path, replace=True)
    with Snapshot.open(path) as snapshot, pytest.raises(NotFound):
        snapshot.digests  # noqa: B018
    path.write_bytes(b"no snapshot")
    with pytest.raises(Damaged):
        Snapshot.open(path)
    for status, kind in ((6, OutOfMemory), (7, Cancelled), (12, InternalError), (99, InternalError)):
        with pytest.raises(kind):
            _library.check(status)


def test_arguments_that_do_not_fit(random: np.random.Generator, cache: Cache, make_layer: MakeLayer) -> None:
    queries = random.standard_normal((QUERY_HEADS, 1, DIMENSION)).astype(np.float32)
    two = [make_layer(2), make_layer(2)]
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: cache.attend(2, queries), "layer"),
        (lambda: cache.attend(-1, queries), "layer"),
        (lambda: cache.attend(2**70, queries), "layer"),
        (lambda: cache.attend(0, queries[:3]), "head"),
        (lambda: cache.attend(0, queries[..., :32]), "queries has shape"),
        (lambda: cache.attend(0, queries[:, :0]), "query_count"),
        (lambda: cache.attend(0, queries[0]), "queries has shape"),
        (lambda: cache.attend(0, queries, scale=0), "scale"),
        (lambda: cache.attend(0, queries, scale=float("nan")), "scale"),
        (lambda: cache.attend(0, queries, soft_cap=-1), "cap"),
        (lambda: cache.attend(0, queries, sliding_window=0), "sliding_window"),
        (lambda: cache.attend(0, queries, sliding_window=-1), "sliding_window"),
        (lambda: cache.attend(0, queries, newer=make_layer(0)), "tokens"),
        (lambda: cache.attend(0, queries, newer=Layer(queries, queries)), "newer.keys"),
        (lambda: cache.append(two[:1]), "layers has 1"),
        (lambda: cache.append([make_layer(1), make_layer(2)]), "different numbers"),
        (lambda: cache.append(two, tokens=[1]), "1 ids for 2"),
        (lambda: cache.append([make_layer(2, "float16"), make_layer(2, "float16")]), "F16"),
        (lambda: cache.restore(0, dtype="int8"), "dtype"),
        (lambda: cache.truncate(-1), "token_count"),
        (lambda: cache.save("a\0b"), "path"),
        (lambda: cache.save("x", zstd_level=20), "zstd_level"),
        (lambda: cache.save("x", zstd_level=-1), "zstd_level"),
        (lambda: Workers(-1), "threads"),
        (lambda: Workers(10**6), "threads"),
        (lambda: Cache.compress([], "f32"), "layer"),
        (lambda: Cache.compress([(queries, queries)], "f32"), "tuple, must be a Layer"),  # type: ignore[list-item]
        (lambda: Recipe("\ud800"), "UTF-8"),
    ]
    for call, message in calls:
        with pytest.raises(InvalidArgument, match=message):
            call()
    assert cache.token_count == 300


def test_use_after_closing(tmp_path: Path, cache: Cache, make_layer: MakeLayer) -> None:
    cache.save(tmp_path / "prompt.tkv")
    snapshot = Snapshot.open(tmp_path / "prompt.tkv")
    workers = Workers(1)
    queries = np.zeros((QUERY_HEADS, 1, DIMENSION), np.float32)
    for handle in (snapshot, workers):
        handle.close()
        handle.close()
    for call in (lambda: snapshot.load(), lambda: snapshot.token_count, lambda: snapshot.metadata):
        with pytest.raises(InvalidArgument, match="this Snapshot is closed"):
            call()
    with pytest.raises(InvalidArgument, match="this Workers is closed"):
        cache.attend(0, queries, workers=workers)
    with cache:
        pass
    calls: list[Callable[[], Any]] = [
        lambda: cache.token_count,
        lambda: cache.token_ids,
        lambda: cache.fork(),
        lambda: cache.attend(0, queries),
        lambda: cache.restore(0),
        lambda: cache.append([make_layer(1), make_layer(1)]),
        lambda: cache.truncate(1),
        lambda: cache.save(tmp_path / "other.tkv"),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument, match="this Cache is closed"):
            call()
    assert repr(cache) == "<think_compress.Cache: closed>"
    assert repr(snapshot).endswith("prompt.tkv': closed>")


def test_progress(tmp_path: Path, cache: Cache, make_layer: MakeLayer) -> None:
    told: list[float] = []
    layers = [make_layer(1000) for _ in range(3)]
    Cache.compress(layers, "kivi(bits=4)", threads=2, progress=told.append)
    assert told == sorted(told) and told[-1] == 1 and told[0] >= 0
    thread = threading.get_ident()
    seen: set[int] = set()
    cache.save(tmp_path / "prompt.tkv", progress=lambda fraction: seen.add(threading.get_ident()))
    assert seen == {thread}


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_in_progress_ends_the_call(
    tmp_path: Path, cache: Cache, make_layer: MakeLayer, kind: type[BaseException]
) -> None:
    error = kind("enough")

    def progress(fraction: float) -> None:
        raise error

    path = tmp_path / "prompt.tkv"
    calls: list[Callable[[], Any]] = [
        lambda: Cache.compress([make_layer(1000)], "kivi(bits=4)", progress=progress),
        lambda: cache.save(path, progress=progress),
    ]
    for call in calls:
        with pytest.raises(kind) as raised:
            call()
        assert raised.value is error and error.__context__ is None
    assert not path.exists()
    cache.save(path)
    with Snapshot.open(path) as snapshot:
        with pytest.raises(kind):
            snapshot.verify(progress=progress)
        with pytest.raises(kind):
            snapshot.load(progress=progress)
        snapshot.verify()


def test_control_c_ends_a_call(make_layer: MakeLayer) -> None:
    layers = [make_layer(4096)] * 50
    # Shells start what runs in the background with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            while time.monotonic() - start < 10:
                Cache.compress(layers, "kivi(bits=4)")
        timer.join()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_handler_of_the_programs_is_left_alone(make_layer: MakeLayer) -> None:
    seen: list[int] = []

    def interrupt(fraction: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        cache = Cache.compress([make_layer()], "f32", progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen[0] == signal.SIGINT
    assert cache.token_count == 300


def test_a_wrong_layer_may_be_added_again(make_layer: MakeLayer) -> None:
    layer = make_layer(300)

    def cancel(fraction: float) -> None:
        raise RuntimeError

    with Compressor("kivi(bits=4)", [think_compress.LayerShape(0, HEADS, DIMENSION, DIMENSION)], 300) as compressor:
        with pytest.raises(RuntimeError):
            compressor.add(layer, progress=cancel)
        compressor.add(layer)
        assert compressor.finish().token_count == 300


def test_handles_that_live_until_the_interpreter_ends() -> None:
    program = """
import numpy as np, think_compress as tc
array = np.ones((1, 8, 64), np.float32)
cache = tc.Cache.compress([tc.Layer(array, array)], "f32")
cache.itself = cache
workers, recipe = tc.Workers(2), tc.Recipe("f32")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="Tools/Python/build"):
        _library.load(tmp_path)
    name = "libthink_compress.dylib" if sys.platform == "darwin" else "libthink_compress.so"
    (tmp_path / name).write_bytes(b"no library")
    with pytest.raises(ImportError, match="OpenBLAS"):
        _library.load(tmp_path)


def test_everything_public_is_described() -> None:
    for name in think_compress.__all__:
        thing = getattr(think_compress, name)
        assert thing.__doc__
        if inspect.isclass(thing):
            members = [member for key, member in vars(thing).items() if not key.startswith("_")]
            members = [getattr(member, "__func__", member) for member in members]
            assert all(member.__doc__ for member in members if callable(member) or isinstance(member, property))


def test_progress_that_raises_after_the_work_is_done(make_layer: MakeLayer) -> None:
    layer = make_layer()
    compressor = Compressor("kivi(bits=4)", [LayerShape(0, HEADS, DIMENSION, DIMENSION)], 300)
    compressor.add(layer)
    with pytest.raises(ZeroDivisionError):
        compressor.finish(progress=lambda fraction: 1 / 0)
    # It has handed out its cache, which nobody took.
    with pytest.raises(InvalidArgument, match="closed"):
        compressor.finish()


def test_handles_are_null_where_nothing_works() -> None:
    script = (
        "from ctypes import byref, c_void_p\n"
        "from think_compress import _library\n"
        "handle = c_void_p(1)\n"
        "print(_library.library.tc_recipe_parse(b'f16', byref(handle)), handle.value, _library.kernels())"
    )
    environment = {**os.environ, "THINK_COMPRESS_KERNELS": "abacus"}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "3 None None\n"
