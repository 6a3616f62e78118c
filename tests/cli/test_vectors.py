"""The verb `vectors`: what it says, its exit codes, what is left by a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgepkd.cli.main import app
from tests.clips import encode_clip, moving_scene
from tests.processes import ROOT, started

COMMAND = [sys.executable, "-m", "edgepkd.cli.main", "vectors"]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("EDGEPKD_DEBUG", raising=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate(("a.mp4", "b.mp4")):
        encode_clip(folder / name, moving_scene(30, seed=seed))
    return folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["vectors", *map(str, arguments)])


@pytest.mark.smoke
def test_a_table_on_stdout_and_notes_on_stderr(clips: Path, tmp_path: Path) -> None:
    done = invoke(clips / "a.mp4", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"a\.mp4 +\S+/out +3 +30 +1\.20 ", done.stdout)
    assert re.search(r"\n3 files in \S+/out, 30 frames, \d\.\d MB in \d+\.\d\d s\n", done.stdout)
    assert "a.mp4: mpeg4 96x64 25 fps; native: mpeg4 exports motion vectors" in done.stderr
    assert invoke(clips / "a.mp4", "--out", tmp_path / "q", "-q").stderr == ""


def test_json_lines(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    done = invoke(clips, tmp_path / "bad.mp4", "--out", tmp_path / "out", "--json", "-", "-q",
                  "--per", "clip", "--clip-frames", 24, "--what", "motion")
    assert done.exit_code == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["kind"] for line in lines] == [
        "file", "file", "folder", "file", "file", "folder", "error", "summary"]
    assert lines[0] == {
        "schema_version": 1, "kind": "file", "path": str(tmp_path / "out/a/clip-000000.npz"),
        "bytes": (tmp_path / "out/a/clip-000000.npz").stat().st_size, "file": "clip-000000.npz",
        "start_s": 0.0, "end_s": 0.96, "frames": 24, "gops": 2, "route": "native",
        "motion": "24x8x12x2", "residual": "", "iframe": "", "source": str(clips / "a.mp4")}
    assert (lines[2]["folder"], lines[2]["num_frames"]) == (str(tmp_path / "out/a"), 30)
    assert (lines[-1]["ended"], lines[-1]["num_files"]) == ("source failed", 4)


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "code", "message"), [
    ("{clips}/none.mp4 --out {out}", 1, "does not exist"),
    ("{bad} --out {out}", 1, "cannot be opened"),
    ("{clips}/a.mp4", 2, "--out"),
    ("{clips}/a.mp4 --out {clips}", 2, "holds other things"),
    ("{clips}/a.mp4 --out {out} --what mv", 2, "allowed: one or more of motion, residual, iframe"),
    ("{clips}/a.mp4 --out {out} --gops none", 2, "gops is 'none'; allowed: a number from 1, or"),
    ("{clips}/a.mp4 --out {out} --clips 2", 2, "--clips goes with --per clip"),
    ("{clips}/a.mp4 --out {out} --plot gif", 2, "plot is 'gif'; allowed: png, video"),
    ("{clips}/a.mp4 --out {out} --limit pixels=100", 1, "--limit pixels"),
    ("- --out {out} --plot video", 2, "a second time"),
])
def test_wrong_requests_are_one_error_and_leave_nothing(
    clips: Path, tmp_path: Path, arguments: str, code: int, message: str
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    done = invoke(*arguments.format(clips=clips, out=tmp_path / "x" / "out",
                                    bad=tmp_path / "bad.mp4").split())
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["bad.mp4"]
    assert sorted(os.listdir(clips)) == ["a.mp4", "b.mp4"]


def test_compression_changes_the_size_alone(clips: Path, tmp_path: Path) -> None:
    import numpy as np

    for name in ("compress", "no-compress"):
        assert invoke(clips / "a.mp4", "--out", tmp_path / name, f"--{name}").exit_code == 0
    packed, plain = (tmp_path / name / "gop-000000.npz" for name in ("compress", "no-compress"))
    assert packed.stat().st_size < plain.stat().st_size / 2
    with np.load(packed, allow_pickle=False) as one, np.load(plain, allow_pickle=False) as other:
        assert one.files == other.files
        for key in one.files:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.slow
def test_a_pipe_keeps_each_file_that_is_whole(tmp_path: Path) -> None:
    content = encode_clip(tmp_path / "a.avi", moving_scene(2000)).read_bytes()
    out = tmp_path / "out"
    with started([*COMMAND, "-", "--out", str(out)], stdin=subprocess.PIPE,
                 stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdin is not None
        with suppress(BrokenPipeError):
            os.write(running.stdin.fileno(), content[: len(content) // 2])
            _wait_for(lambda: (out / "gop-000001.npz").exists(), running)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 130
        shown = running.stdout.read() if running.stdout else ""
    rows = (out / "index.csv").read_text().splitlines()[1:]
    assert sorted(os.listdir(out)) == [*(row.split(",")[0] for row in rows), "index.csv"]
    assert f"{len(rows)} files in {out}" in shown
    assert "interrupted" in shown
    assert "gop-000000.npz  12 frames" in shown, "a line a file, as it comes"


@pytest.mark.slow
def test_what_a_killed_run_left_is_swept_by_the_next(clips: Path, tmp_path: Path) -> None:
    source = encode_clip(tmp_path / "long.avi", moving_scene(1500, (160, 128)))
    (tmp_path / "sets").mkdir()
    out = tmp_path / "sets" / "out"
    with started([*COMMAND, str(source), "--out", str(out), "-q"],
                 stdout=subprocess.DEVNULL) as running:
        _wait_for(lambda: any(out.parent.glob(".out.*/*.npz")), running)
        assert not out.exists()
        running.kill()
        assert running.wait() == -signal.SIGKILL
    (left,) = os.listdir(out.parent)
    assert left.startswith(".out.edgepkd-")
    done = subprocess.run([*COMMAND, str(clips / "a.mp4"), "--out", str(out)], cwd=ROOT,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert os.listdir(out.parent) == ["out"]
    assert len(os.listdir(out)) == 4


def _wait_for(happened: object, running: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < until
        assert running.poll() is None
        time.sleep(0.005)
