"""However a run ends, what was answered is shown, written and summed up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from edgepkd.bundle.reading import Bundle
from edgepkd.errors import ModelError, SourceError
from edgepkd.video.clips import Clip, ClipReader
from tests.cli.calling import invoke, lines
from tests.clips import encode_clip, translating_texture
from tests.processes import ROOT, started

pytestmark = pytest.mark.slow


def test_ctrl_c_while_saving_leaves_no_video_and_keeps_the_answers(
    clips: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgepkd.runtime.video_writer.VideoWriter.finish", interrupted)
    done = invoke("run", clips / "right.mp4", "--model", bundle.path, "--json",
                  tmp_path / "out.jsonl", "--save", tmp_path / "out.mp4")
    assert done.exit_code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    written = lines((tmp_path / "out.jsonl").read_text())
    assert [line["kind"] for line in written] == ["clip", "clip", "summary"]
    assert written[-1]["ended"] == "interrupted"
    assert "2 clips in" in done.stdout
    assert ", interrupted;" in done.stdout


@pytest.mark.parametrize("number", [
    signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.smoke)])
def test_a_stopped_process_leaves_nothing(bundle: Bundle, tmp_path: Path, number: int) -> None:
    clip = encode_clip(tmp_path / "long.mp4", translating_texture(600, (160, 96), (1, 0)))
    command = [sys.executable, "-u", "-m", "edgepkd.cli.main", "run", str(clip), "--model",
               str(bundle.path), "--save", str(tmp_path / "out.mp4"), "--clip-frames", "12"]
    with started(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stderr is not None
        assert "long.mp4" in running.stderr.readline()
        running.send_signal(number)
        running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == ["long.mp4"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("json_to", ["-", "out.jsonl"])
def test_a_stopped_run_keeps_what_was_answered_with_a_summary(
    bundle: Bundle, tmp_path: Path, number: signal.Signals, json_to: str
) -> None:
    clip = encode_clip(tmp_path / "long.mp4", translating_texture(600, (64, 48), (1, 0)))
    out = json_to if json_to == "-" else str(tmp_path / json_to)
    command = [sys.executable, "-c", SLOW_MAIN, "run", str(clip), "--model", str(bundle.path),
               "--clip-frames", "12", "--json", out]
    with started(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stderr is not None
        assert "long.mp4" in running.stderr.readline()
        assert running.stderr.readline() == "two clips\n"
        running.send_signal(number)
        shown, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + number, errors
    assert "Traceback" not in errors
    if json_to == "-":
        *clips, last = lines(shown)
    else:
        *clips, last = lines((tmp_path / json_to).read_text())
        assert f"{len(clips)} clips in" in shown
        assert ", interrupted;" in shown
        assert shown.count("mv 1 (1/12)") == len(clips)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["long.mp4", json_to]
    assert len(clips) >= 2
    assert {line["kind"] for line in clips} == {"clip"}
    assert (last["kind"], last["ended"], last["num_clips"]) == (
        "summary", "interrupted", len(clips))


SLOW_MAIN = """
import sys, time
from edgepkd.cli.main import main
from edgepkd.cli.show_run import RunView

def clip(self, event, show=RunView._clip):
    show(self, event)
    if event.answer.index == 1:
        print("two clips", file=sys.stderr, flush=True)
    time.sleep(0.05)

RunView._clip = clip
main()
"""
"""The command, a little slower, which says when two clips are answered."""


def test_a_stopped_pipe_is_summed_up(clips: Path, bundle: Bundle, tmp_path: Path) -> None:
    encode_clip(tmp_path / "right.mpg", translating_texture(600, (160, 96), (2, 0)),
                codec="mpeg2video")
    command = [sys.executable, "-c", SLOW_MAIN, "run", "-", "--model", str(bundle.path), "--json",
               str(tmp_path / "out.jsonl"), "--clip-frames", "12"]
    with started(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                 stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stderr is not None
        running.stdin.buffer.write((tmp_path / "right.mpg").read_bytes())
        running.stdin.flush()  # and left open: a pipe that says no more
        while running.stderr.readline() != "two clips\n":
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        shown = running.stdout.read() if running.stdout else ""
        assert running.wait(timeout=60) == 130
    *clips_, last = lines((tmp_path / "out.jsonl").read_text())
    assert (last["ended"], last["num_clips"]) == ("interrupted", len(clips_))
    assert f"{len(clips_)} clips in" in shown


def test_the_only_source_fails_with_one_message_and_a_summary(
    clips: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(ClipReader):
        def __iter__(self) -> Iterator[Clip]:
            yield from islice(super().__iter__(), 1)
            raise SourceError("cam went away.", hint="Look for it.")

    monkeypatch.setattr("edgepkd.video.clips.ClipReader", Fails)
    out = tmp_path / "out.jsonl"
    done = invoke("run", clips / "right.mp4", "--model", bundle.path, "--json", out, "-q")
    assert done.exit_code == 1
    assert done.stderr == "error: cam went away.\n  next: Look for it.\n"
    assert "mv 1 (1/12)" in done.stdout
    assert "1 clip in" in done.stdout
    assert ", 1 of 1 source failed;" in done.stdout
    _, error, last = lines(out.read_text())
    assert (error["kind"], error["message"]) == ("error", "cam went away.")
    assert (last["ended"], last["num_clips"]) == ("source failed", 1)


def test_an_error_of_the_model_half_way_keeps_the_answers(
    clips: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(ClipReader):
        def __iter__(self) -> Iterator[Clip]:
            yield from islice(super().__iter__(), 1)
            raise ModelError("mv_1 cannot be run.")

    monkeypatch.setattr("edgepkd.video.clips.ClipReader", Fails)
    out = tmp_path / "out.jsonl"
    done = invoke("run", clips / "right.mp4", "--model", bundle.path, "--json", out, "-q")
    assert (done.exit_code, done.stderr) == (1, "error: mv_1 cannot be run.\n")
    assert ", ended by an error;" in done.stdout
    _, last = lines(out.read_text())
    assert (last["ended"], last["error"]) == ("error", "mv_1 cannot be run.")


def test_warnings_are_shown_written_and_counted(
    clips: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Warns(ClipReader):
        def __iter__(self) -> Iterator[Clip]:
            yield from super().__iter__()
            self.warnings.append("the file is cut off.")

    monkeypatch.setattr("edgepkd.video.clips.ClipReader", Warns)
    out, clip = tmp_path / "out.jsonl", clips / "right.mp4"
    done = invoke("run", clip, "--model", bundle.path, "--json", out, "--quiet")
    assert done.exit_code == 0
    assert done.stderr == ""
    assert f"\nwarning: {clip}: the file is cut off.\n" in done.stdout
    assert ", 1 warning;" in done.stdout
    *_, warning, last = lines(out.read_text())
    assert warning == {"schema_version": 1, "kind": "warning", "source": str(clip),
                       "message": "the file is cut off."}
    assert (last["num_warnings"], last["warnings"]) == (1, ["the file is cut off."])
    done = invoke("run", clip, "--model", bundle.path, "--json", "-", "--quiet")
    assert done.stderr == f"warning: {clip}: the file is cut off.\n"


def test_a_full_disk_is_an_error(clips: Path, bundle: Bundle) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = invoke("run", clips / "right.mp4", "--model", bundle.path, "--json", "/dev/full", "-q")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: /dev/full cannot be written: No space left")
    for options in ((), ("--json", "-")):
        with Path("/dev/full").open("w") as full:
            stopped = subprocess.run(
                [sys.executable, "-m", "edgepkd.cli.main", "run", str(clips / "right.mp4"), "-q",
                 "--model", str(bundle.path), *options],
                stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=120)
        assert stopped.returncode == 1
        assert stopped.stderr.startswith("error: standard output cannot be written: No space left")
        assert "Traceback" not in stopped.stderr


def test_a_closed_pipe_is_quiet(clips: Path, bundle: Bundle) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "edgepkd.cli.main", "run", str(clips / "right.mp4"), "--model",
         str(bundle.path), "--json", "-", "--quiet"],
        stdout=write_end, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=120)
    os.close(write_end)
    assert done.stderr == ""
    assert done.returncode != 0
