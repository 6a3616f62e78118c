"""Engines are put together in the bundle alone, by one export at a time, and stay whole."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd import renames
from edgepkd.bundle.engine_files import damaged, engine_targets, read_engines
from edgepkd.bundle.engine_match import outdated
from edgepkd.bundle.folder import Folder
from edgepkd.bundle.reading import Bundle
from edgepkd.engines.build import SegmentBuilt, Waiting, build_engines
from edgepkd.engines.place import Place, open_place
from edgepkd.engines.request import Request
from edgepkd.errors import BundleError, ModelError, StorageError
from tests.engines.builders import SPEC
from tests.engines.builds import GPU, build, script
from tests.processes import started

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", [
    "mv_1.log", "timing.cache", "mv_1.engine", "mv_1.record.json", "engines.json", "sub", "fifo"])
def test_links_within_the_partial_folder_are_refused(
    bundle: Bundle, tmp_path: Path, name: str, resume: bool
) -> None:
    out = _precious(tmp_path)
    partial = bundle.path / "engines/.gpu.partial"
    partial.mkdir(parents=True)
    (partial / "mv_2.engine").write_bytes(b"of an earlier build")
    if name == "fifo":
        os.mkfifo(partial / name)
    else:
        (partial / name).symlink_to(out / name if name != "sub" else out)
    with pytest.raises(BundleError, match="allowed: a plain file"):
        build(bundle, precision="fp16", resume=resume)
    assert {path.read_text() for path in out.iterdir()} == {"precious"}
    assert sorted(os.listdir(partial)) == sorted(["mv_2.engine", name])


def test_what_has_a_name_elsewhere_too_is_not_written_into(bundle: Bundle, tmp_path: Path) -> None:
    out = _precious(tmp_path)
    for folder in (".gpu.partial", "gpu"):
        (bundle.path / "engines" / folder).mkdir(parents=True)
        for name in ("timing.cache", "mv_1.engine", "engines.json"):
            os.link(out / name, bundle.path / "engines" / folder / name)
    build(bundle, precision="fp16")
    assert {path.read_text() for path in out.iterdir()} == {"precious"}
    assert sorted(os.listdir(bundle.path / "engines")) == ["gpu"]


def test_a_refused_bundle_is_left_as_it_was(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.path / "engines").mkdir()
    (bundle.path / "engines/gpu").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="is a link"):
        build(bundle, precision="fp16")
    assert os.listdir(bundle.path / "engines") == ["gpu"]


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


# ---- two at once


EXPORT = """
import sys
from edgepkd.bundle.reading import read_bundle
from edgepkd.engines.build import build_engines
from edgepkd.engines.request import Request
from tests.engines.builds import GPU
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


def test_engines_of_two_targets_are_built_at_once(bundle: Bundle) -> None:
    first = build_engines(Request(bundle, GPU), builder=SPEC)
    next(first)  # it holds the place of gpu
    build(bundle, target=replace(GPU, name="gpu.2"), precision="fp16")
    list(first)
    assert engine_targets(bundle.path) == ("gpu", "gpu.2")
    assert sorted(os.listdir(bundle.path / "engines")) == ["gpu", "gpu.2"]


def test_who_comes_while_old_engines_go_waits_for_that(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the exchange they have the name of the folder that is filled."""
    build(bundle, precision="fp16")
    real, asked = Folder.remove, []

    def remove(self: Folder, name: str) -> None:
        if name == ".gpu.partial" and not asked:
            asked.append(True)
            opening = open_place(bundle.path, "gpu")
            assert next(opening) is None, "it yields: the folder is not free"
            opening.close()
        real(self, name)

    monkeypatch.setattr(Folder, "remove", remove)
    build(bundle, precision="fp32")
    assert asked
    assert sorted(os.listdir(bundle.path / "engines")) == ["gpu"]


def test_without_locks_a_mix_of_two_exports_is_an_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "lock", lambda self, *, wait: True)
    build(bundle, precision="fp16")
    first = build_engines(Request(bundle, GPU, precision="fp32"), builder=SPEC)
    for event in first:
        if isinstance(event, SegmentBuilt) and event.segment == "mv_4":
            break
    (bundle.path / "engines/.gpu.partial/mv_2.engine").write_bytes(b"of another export")
    with pytest.raises(StorageError, match="was changed by another process"):
        list(first)
    engines = read_engines(bundle.path, "gpu")
    assert engines.precision == "fp16"
    assert damaged(bundle.path, engines) == ()


# ---- kills


def _built_here(request: Any, subject: str, *, blocks: Any = ()) -> Any:
    """Instead of a child: what is killed is the export itself."""
    if not blocks:
        return {"version": "10.3.0"}, ()
    done = {"precision": request["precisions"][0], "measured_ms": None, "notes": [], "build_s": 0.1}
    return done, (f"{subject} {request['precisions']}".encode(), b"cache")


def _export_killed(bundle: Bundle, step: int) -> bool:
    """Export for fp32 and die at the step-th change of names in the bundle once all is built; in a
    process of its own. False: it came to its end."""
    pid = os.fork()
    if pid == 0:
        changes = 0

        def counted(real: Any) -> Any:
            def call(*arguments: Any, **settings: Any) -> Any:
                nonlocal changes
                changes += 1
                if changes == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **settings)
            return call

        finish = Place.finish

        def armed(place: Place, engines: Any) -> Any:
            for name in ("rename", "unlink", "rmdir", "fsync"):
                setattr(os, name, counted(getattr(os, name)))
            renames._rename = counted(renames._rename)
            return finish(place, engines)

        Place.finish = armed  # type: ignore[method-assign]
        try:
            list(build_engines(Request(bundle, GPU, precision="fp32"), force=True))
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("again", ["fp16", "fp32"])
def test_a_kill_at_any_moment_leaves_whole_engines(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, exchange: bool, again: Any
) -> None:
    monkeypatch.setattr("edgepkd.engines.build.ask", _built_here)
    if not exchange:
        monkeypatch.setattr(renames, "_rename", lambda *names, **where: False)
    build(bundle, precision="fp16", force=True)
    step, seen = 0, set()
    while _export_killed(bundle, step := step + 1):
        assert step < 100
        assert engine_targets(bundle.path) == ("gpu",)
        engines = read_engines(bundle.path, "gpu")  # as `run` does
        assert engines.is_covered
        assert damaged(bundle.path, engines) == ()
        seen.add(engines.precision)
        build(bundle, precision=again)
        engines = read_engines(bundle.path, "gpu")
        assert (engines.precision, damaged(bundle.path, engines)) == (again, ())
        assert len(os.listdir(bundle.path / "engines/gpu")) == 6
        build(bundle, precision="fp16", force=True)
        assert os.listdir(bundle.path / "engines") == ["gpu"]
    assert seen == {"fp16", "fp32"}, "kills before and after the swap"
    assert step > 15


def test_a_folder_that_was_set_aside_comes_back(bundle: Bundle) -> None:
    other = replace(GPU, name="gpu.beef")
    build(bundle, precision="fp16")
    build(bundle, precision="fp16", target=other)
    engines = bundle.path / "engines"
    (engines / "gpu.beef").rename(engines / ".gpu.beef.00c0ffee.aside")
    assert engine_targets(bundle.path) == ("gpu", "gpu.beef")
    (engines / "gpu").rename(engines / ".gpu.00c0ffee.aside")
    *_, built = build_engines(Request(bundle, GPU, precision="fp16"), builder=SPEC)
    assert built.up_to_date  # type: ignore[union-attr]
    assert sorted(os.listdir(engines)) == ["gpu", "gpu.beef"]


def test_what_an_older_version_has_left_is_swept(bundle: Bundle) -> None:
    build(bundle, precision="fp16")
    engines = bundle.path / "engines"
    for name in (".gpu.123.0a1b2c3d.old", ".gpu.123.0a1b2c3d.tmp", ".gpu.fresh.9.0a1b2c3d.tmp",
                 ".gpu.partial"):
        (engines / name).mkdir()
        (engines / name / "mv_1.engine").write_bytes(b"")
    others = [".gpu.2.partial", ".gpux.123.0a1b2c3d.old", ".gpu.mine.tmp"]
    for name in others:
        (engines / name).mkdir()
    build(bundle, precision="fp16")
    assert sorted(os.listdir(engines)) == sorted([*others, "gpu"])


def test_what_can_be_gone_on_with_is_not_swept(bundle: Bundle, tmp_path: Path) -> None:
    build(bundle, precision="fp16")
    script(bundle, mv_3="SIGSEGV")
    with pytest.raises(ModelError):
        build(bundle, precision="fp32")
    script(bundle)
    build(bundle, precision="fp16")
    (tmp_path / "built.txt").unlink()
    build(bundle, precision="fp32", resume=True)
    assert (tmp_path / "built.txt").read_text().split()[::3] == ["mv_3", "mv_4"]


def test_folder_replace_survives_what_cannot_be_renamed(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(bundle, precision="fp16")
    monkeypatch.setattr(renames, "_rename", lambda *names, **where: False)
    real = os.rename

    def failing(old: str, new: str, **where: Any) -> None:
        if old == ".gpu.partial":
            raise OSError(13, "Permission denied")
        real(old, new, **where)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(StorageError, match="gpu cannot be written: Permission denied"):
        build(bundle, precision="fp32", force=True)
    monkeypatch.undo()
    assert read_engines(bundle.path, "gpu").precision == "fp16"
