"""The process that builds: bytes go in and come out, and however it ends is told."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from edgepkd.bundle.reading import Bundle
from edgepkd.engines.builder import Settings, Shapes
from edgepkd.engines.child import Job
from edgepkd.engines.process import Died, ask
from edgepkd.errors import MissingExtraError, ModelError
from tests.engines.builders import FOLDER, SPEC
from tests.engines.builds import build
from tests.engines.segments import conv_bundle, convolution


def job(exit: int, *, timing_cache: bytes = b"") -> Job:
    frame = (2 if exit == 1 else 4, 64 >> exit, 64 >> exit)
    return Job(builder=SPEC, source=convolution(exit, quantized=True, width=4),
               timing_cache=timing_cache, precisions=("fp32",), settings=Settings(),
               shapes=Shapes(frame, min_frames=1, opt_frames=1, max_frames=2))


def test_a_missing_library_is_the_childs_error(tmp_path: Path) -> None:
    bundle = conv_bundle(tmp_path, width=4)
    builder = "tests.engines.builders:without_library"
    with pytest.raises(MissingExtraError, match=r"gpu: .*edgepkd\[tensorrt\]"):
        build(bundle, builder=builder)


@pytest.mark.slow
def test_nothing_in_the_current_folder_is_imported(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("json", "numpy", "signal", "edgepkd", "sitecustomize", "_optional"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w')\n")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", ["", ".", *sys.path])
    build(bundle, precision="fp16")
    assert not (tmp_path / "RAN").exists()


def test_blocks_of_any_bytes_go_in_and_come_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    cache = bytes(range(256)) * 5000  # more than a pipe holds
    values, blocks = job(2, timing_cache=cache).request()
    done, (plan, known) = ask(values, "mv_2", blocks=blocks)
    assert done["precision"] == "fp32"
    assert plan == b"mv_2 fp32 (2, 4, 16, 16)"
    assert known == cache + b"mv_2"


def test_the_version_is_what_a_builder_alone_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert ask({"builder": SPEC}, "gpu") == ({"version": "10.3.0"}, ())


@pytest.mark.slow
@pytest.mark.parametrize(("act", "what", "number"), [
    ("SIGKILL", "crashed (SIGKILL)", signal.SIGKILL), ("bug", "crashed (exit code 1)", None)])
def test_a_child_that_dies_says_how_and_what_it_printed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, what: str, number: int | None
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    (tmp_path / "script.json").write_text(f'{{"mv_1": "{act}"}}')
    values, blocks = job(1).request()
    with pytest.raises(Died) as caught:
        ask(values, "mv_1", blocks=blocks)
    assert (caught.value.what, caught.value.signal) == (what, number)
    assert caught.value.said_last == (
        "" if number else "ZeroDivisionError: a bug in the builder")


def test_an_error_of_the_product_comes_back_as_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    (tmp_path / "script.json").write_text('{"mv_1": "no tactic"}')
    values, blocks = job(1).request()
    with pytest.raises(ModelError, match=r"^mv_1: no tactic$"):
        ask(values, "mv_1", blocks=blocks)
