"""Engines are put together in the bundle alone, by one export at a time, and stay whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepkd.bundle import Bundle, trust
from edgepkd.bundle.engines import damaged, engine_targets, outdated, read_engines
from edgepkd.bundle.folder import Folder
from edgepkd.engines.build import Request, Waiting, build_engines
from edgepkd.errors import BundleError
from tests.engines.builders import FOLDER, SPEC
from tests.engines.segments import conv_bundle
from tests.engines.test_build import GPU, build, script
from tests.processes import started


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return conv_bundle(tmp_path, width=4)


def _precious(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("thesis.tex", "timing.cache", "mv_1.engine", "mv_1.log", "engines.json"):
        (folder / name).write_text("precious")
    return folder


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "engines": lambda engines, out: engines.symlink_to(out),
    "partial": lambda engines, out: _linked(engines, ".gpu.partial", out),
    "target": lambda engines, out: _linked(engines, "gpu", out),
    "sidecar": lambda engines, out: _linked(engines, "gpu/engines.json", out / "engines.json"),
    "timing cache": lambda engines, out: _linked(engines, "gpu/timing.cache", out / "new"),
}


def _linked(engines: Path, name: str, to: Path) -> None:
    (engines / name).parent.mkdir(parents=True, exist_ok=True)
    (engines / name).symlink_to(to)


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("force", [False, True])
def test_a_link_is_refused_before_anything_is_touched(
    bundle: Bundle, tmp_path: Path, kind: str, force: bool
) -> None:
    out = _precious(tmp_path)
    LINKS[kind](bundle.path / "engines", out)
    with pytest.raises(BundleError, match="is a link; allowed: a plain"):
        build(bundle, precision="fp16", force=force)
    assert {path.name: path.read_text() for path in out.iterdir()} == dict.fromkeys(
        ("thesis.tex", "timing.cache", "mv_1.engine", "mv_1.log", "engines.json"), "precious")


def test_links_within_the_partial_folder_go_as_links(bundle: Bundle, tmp_path: Path) -> None:
    out = _precious(tmp_path)
    partial = bundle.path / "engines/.gpu.partial"
    partial.mkdir(parents=True)
    for name in ("mv_1.log", "timing.cache", "mv_1.engine", "mv_1.record.json"):
        (partial / name).symlink_to(out / name)
    os.link(out / "thesis.tex", partial / "mv_2.engine")
    (partial / "sub").symlink_to(out)
    build(bundle, precision="fp16")
    assert {path.read_text() for path in out.iterdir()} == {"precious"}
    assert not (bundle.path / "engines/.gpu.partial").exists()


def test_a_fifo_as_sidecar_is_refused_unopened(bundle: Bundle) -> None:
    (bundle.path / "engines/gpu").mkdir(parents=True)
    os.mkfifo(bundle.path / "engines/gpu/engines.json")
    with pytest.raises(BundleError, match="neither a file nor a folder"):
        build(bundle, precision="fp16")


def test_what_another_user_has_begun_is_not_gone_on_with(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(bundle, mv_3="SIGSEGV")
    with pytest.raises(Exception, match="crashed"):
        build(bundle, precision="fp16")
    plan = bundle.path / "engines/.gpu.partial/mv_1.engine"
    record = plan.with_name("mv_1.record.json")
    values = json.loads(record.read_text())
    plan.write_bytes(b"not from here")
    values["plan"].update(sha256=hashlib.sha256(b"not from here").hexdigest(), bytes=13)
    record.write_text(json.dumps(values))
    script(bundle)
    build(bundle, precision="fp16", resume=True)
    built = (tmp_path / "built.txt").read_text().split()
    assert built.count("mv_1") == 2  # a record that is not on the list does not count
    assert built.count("mv_2") == 1
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other-user"))
    assert not read_engines(bundle.path, "gpu").is_covered
    build(bundle, precision="fp16")
    assert read_engines(bundle.path, "gpu").is_covered


def test_a_timing_cache_from_elsewhere_is_not_used(bundle: Bundle) -> None:
    build(bundle, precision="fp16")
    cache = bundle.path / "engines/gpu/timing.cache"
    own = cache.read_bytes()
    cache.write_bytes(b"poison")
    build(bundle, precision="fp16", force=True)
    assert cache.read_bytes() == own
    build(bundle, precision="fp16", force=True)
    assert cache.read_bytes().startswith(own)  # one of its own is gone on with


def test_without_a_private_folder_engines_are_built_and_need_trust(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    *_, built = build_engines(Request(bundle, GPU), builder=SPEC)
    assert "--trust-engines" in built.notes[0]  # type: ignore[union-attr]
    assert not read_engines(bundle.path, "gpu").is_covered


def test_a_list_that_others_can_write_to_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert trust.add("a" * 64)
    assert trust.is_listed("a" * 64)
    (tmp_path / "edgepkd/engines").chmod(0o777)
    assert not trust.is_listed("a" * 64)
    assert not trust.add("b" * 64)
    shutil.rmtree(tmp_path / "edgepkd")
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "real" / ("a" * 64)).touch()
    (tmp_path / "edgepkd").mkdir()
    (tmp_path / "edgepkd/engines").symlink_to(tmp_path / "real")
    assert not trust.is_listed("a" * 64)


# ---- two at once


EXPORT = """
import sys
from edgepkd.bundle import read_bundle
from edgepkd.engines.build import Request, build_engines
from tests.engines.test_build import GPU
for event in build_engines(Request(read_bundle(sys.argv[1]), GPU), builder=sys.argv[2]):
    print(type(event).__name__, flush=True)
"""


def test_the_second_export_waits_and_finds_all_done(bundle: Bundle, tmp_path: Path) -> None:
    events: list[str] = []
    first = build_engines(Request(bundle, GPU), builder=SPEC)
    assert type(next(first)).__name__ == "SegmentStarted"  # it holds the folder now

    def second() -> None:
        events.extend(type(event).__name__
                      for event in build_engines(Request(bundle, GPU), builder=SPEC))

    thread = threading.Thread(target=second)
    thread.start()
    time.sleep(0.5)
    assert not events or events == [Waiting.__name__]
    list(first)
    thread.join(timeout=60)
    assert events == ["Waiting", "EnginesBuilt"]
    assert (tmp_path / "built.txt").read_text().count("mv_1") == 1
    assert sorted(os.listdir(bundle.path / "engines")) == ["gpu"]


def test_exports_in_two_processes_end_with_whole_engines(bundle: Bundle) -> None:
    command = [sys.executable, "-c", EXPORT, str(bundle.path), SPEC]
    with started(command, stdout=subprocess.PIPE) as one, started(
            command, stdout=subprocess.PIPE) as other:
        assert {one.wait(timeout=120), other.wait(timeout=120)} == {0}
    engines = read_engines(bundle.path, "gpu")
    assert damaged(bundle.path, engines) == ()
    assert outdated(engines, bundle.manifest) == ()


# ---- kills


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_leaves_whole_engines_or_none(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    """SIGKILL in each step of the swap, with and without an exchange of names."""
    build(bundle, precision="fp16")
    before = read_engines(bundle.path, "gpu")
    for step in range(1, 8):
        code = f"""
import os, signal
import edgepkd.bundle.folder as folder
from tests.engines.test_place import EXPORT
steps = {step}
def counted(real):
    def call(*arguments, **settings):
        global steps
        names = [str(one) for one in arguments]
        if any(name.endswith((".partial", ".old")) or name == "gpu" for name in names):
            steps -= 1
            if steps == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **settings)
    return call
os.rename, os.rmdir = counted(os.rename), counted(os.rmdir)
if not {exchange}:
    folder._exchange = lambda *names: False
import sys
sys.argv = ["", {str(bundle.path)!r}, {SPEC!r}]
exec(EXPORT.replace("GPU), b", "GPU, precision='fp32'), force=True, b"))
"""
        with started([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as child:
            code_ = child.wait(timeout=60)
        if code_ == 0:
            break
        assert code_ == -signal.SIGKILL
        build(bundle, precision="fp16")
        engines = read_engines(bundle.path, "gpu")
        assert engines.precision == "fp16"
        assert damaged(bundle.path, engines) == ()
        # What --resume could go on with may be left, and nothing else.
        assert set(os.listdir(bundle.path / "engines")) <= {"gpu", ".gpu.partial"}
    else:
        pytest.fail("the export never came to its end")
    assert step > 1
    assert before.target == "gpu"


def test_a_folder_that_was_set_aside_comes_back(bundle: Bundle) -> None:
    build(bundle, precision="fp16")
    engines = bundle.path / "engines"
    (engines / "gpu").rename(engines / ".gpu.0000.old")
    assert engine_targets(bundle.path) == ()
    *_, built = build_engines(Request(bundle, GPU, precision="fp16"), builder=SPEC)
    assert built.up_to_date  # type: ignore[union-attr]
    assert sorted(os.listdir(engines)) == ["gpu"]


def test_folder_replace_survives_what_cannot_be_renamed(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(bundle, precision="fp16")
    monkeypatch.setattr("edgepkd.bundle.folder._exchange", lambda *names: False)
    real = Folder.rename

    def failing(self: Folder, old: str, new: str) -> None:
        if old == ".gpu.partial":
            raise OSError(13, "Permission denied")
        real(self, old, new)

    monkeypatch.setattr(Folder, "rename", failing)
    with pytest.raises(Exception, match="Permission denied"):
        build(bundle, precision="fp32", force=True)
    assert read_engines(bundle.path, "gpu").precision == "fp16"


# ---- children


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
