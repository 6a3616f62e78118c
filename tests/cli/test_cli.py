"""The command line: what goes to stdout and stderr, exit codes, and what stays unimported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from edgepkd._version import __version__
from edgepkd.bundle.reading import Bundle
from edgepkd.cli.main import app
from edgepkd.cli.output import JsonLines, JsonTarget, json_target
from edgepkd.errors import ModelError, SourceError, StorageError
from edgepkd.libraries import openvino
from edgepkd.video.clips import Clip, ClipReader
from tests import stored_engines
from tests.clips import encode_clip, translating_texture
from tests.processes import started
from tests.runtime.bundles import make_bundle
from tests.runtime.openvino_engines import add_openvino_engines

ROOT = Path(__file__).resolve().parents[2]
VERBS = ("demo", "run", "vectors", "inspect", "doctor", "check", "export", "quantize")
HEAVY = ("torch", "av", "openvino", "numba", "numpy", "rich", "onnx", "PIL")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("EDGEPKD_DEBUG", raising=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    encode_clip(folder / "right.mp4", translating_texture(36, (160, 96), (2, 0)))
    encode_clip(folder / "left.mp4", translating_texture(36, (160, 96), (-2, 0)))
    return folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def process(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edgepkd.cli.main", *map(str, arguments)],
                          capture_output=True, text=True, cwd=ROOT, timeout=120, **settings)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# ---- help


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_imports_nothing_heavy(verb: str) -> None:
    code = f"""
import sys
from edgepkd.cli.main import app
try:
    app([*{[verb] if verb else []!r}, "--help"])
except SystemExit as end:
    assert not end.code, end.code
print("HEAVY", sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
                          timeout=60, check=True)
    assert "HEAVY []" in done.stdout
    assert "Usage:" in done.stdout


def test_help_lists_every_verb() -> None:
    shown = invoke("--help")
    assert shown.exit_code == 0
    for verb in VERBS:
        assert f"\n  {verb} " in shown.stdout


@pytest.mark.smoke
def test_version() -> None:
    assert invoke("--version").stdout == f"edgepkd {__version__}\n"


# ---- run


@pytest.mark.smoke
def test_table_and_summary_on_stdout_notes_on_stderr(clips: Path, bundle: Bundle) -> None:
    done = process("run", clips / "right.mp4", "--model", bundle.path)
    assert done.returncode == 0, done.stderr
    for part in ("right", "mv 1 (1/12)", "0.00-0.96", "all of residual and iframe", "2 clips",
                 "exits taken: mv_1 2"):
        assert part in done.stdout
    assert "native: mpeg4 exports motion vectors" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr, "no colours into a pipe"
    quiet = process("run", clips / "right.mp4", "--model", bundle.path, "--quiet")
    assert quiet.stderr == ""
    assert "mv 1 (1/12)" in quiet.stdout


def test_a_narrow_terminal_gets_whole_rows(
    clips: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke("run", clips / "right.mp4", "--model", bundle.path, "-q")
    (first,) = [line for line in shown.stdout.splitlines() if "0.00-0.96" in line]
    assert all(part in first for part in ("right", "100%", "mv 1", "11 seg."))
    assert max(map(len, shown.stdout.splitlines()[2:])) <= 80


@pytest.mark.smoke
def test_json_to_stdout_is_nothing_but_json(clips: Path, bundle: Bundle) -> None:
    done = process("run", clips / "right.mp4", "--model", bundle.path, "--json", "-", "--top-k", 1)
    first, second, last = lines(done.stdout)
    assert {line["schema_version"] for line in (first, second, last)} == {1}
    assert (first["kind"], second["kind"], last["kind"]) == ("clip", "clip", "summary")
    assert first["label"] == "right"
    assert first["exit"] == {"network": "mv", "exit": 1, "position": 1, "of": 12}
    assert len(first["top_k"]) == 1
    assert set(first["ms"]) == {"read", "decode", "load", "nets", "decision"}
    assert first["decode"]["residuals"] == 0
    assert last["num_clips"] == 2


def test_json_to_a_file_keeps_the_table(clips: Path, bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    shown = invoke("run", clips / "right.mp4", "--model", bundle.path, "--json", out)
    assert shown.exit_code == 0
    assert "mv 1 (1/12)" in shown.stdout
    assert [line["kind"] for line in lines(out.read_text())] == ["clip", "clip", "summary"]
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


@pytest.mark.smoke
def test_several_sources_are_labelled_and_a_bad_one_does_not_stop_the_run(
    clips: Path, bundle: Bundle, tmp_path: Path
) -> None:
    for name in ("left.mp4", "right.mp4"):
        (tmp_path / name).symlink_to(clips / name)
    (tmp_path / "odd [b]name[bold].mp4").write_bytes(b"\0" * 500)
    out = tmp_path / "out.jsonl"
    done = process("run", tmp_path, "--model", bundle.path, "--clips", 1, "--json", out)
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "odd [b]name[bold].mp4 cannot be opened" in done.stderr
    assert done.stdout.index("left.mp4") < done.stdout.index("right.mp4")
    assert "1 of 3 sources failed" in done.stdout
    assert [line["kind"] for line in lines(out.read_text())] == [
        "clip", "error", "clip", "summary"]


def test_static_order_threshold_and_max_exit(clips: Path, bundle: Bundle) -> None:
    def exits(*options: object) -> set[int]:
        done = invoke("run", clips / "right.mp4", "--model", bundle.path, "--json", "-", "-q",
                      *options)
        assert done.exit_code == 0, done.output
        return {line["exit"]["position"] for line in lines(done.stdout)[:-1]}

    assert exits("--static") == {12}
    assert exits("--threshold", 1, "--max-exit", 6) == {6}
    assert exits("--order", "iframe,mv,residual") == {5}
    assert exits() == {1}


def test_a_pipe_answers_line_by_line(clips: Path, bundle: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgepkd.cli.main", "run", "-", "--model", str(bundle.path)],
        input=(clips / "right.mp4").read_bytes(), capture_output=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stdout.decode().splitlines()
    assert "0.00-0.96 s  right" in first
    assert "0.96-1.44 s  right" in second


@pytest.mark.smoke
def test_save(clips: Path, bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    done = invoke("run", clips / "right.mp4", "--model", bundle.path, "--save", out)
    assert done.exit_code == 0
    assert f"saved {out}" in done.stderr
    with av.open(str(out)) as container:
        assert len(list(container.decode(video=0))) == 36


def test_several_arguments_are_several_sources(clips: Path, bundle: Bundle) -> None:
    right, left = clips / "right.mp4", clips / "left.mp4"
    done = invoke("run", right, left.as_uri(), right, "--model", bundle.path, "--json", "-", "-q",
                  "--clips", 1)
    assert done.exit_code == 0, done.output
    assert [line.get("source") for line in lines(done.stdout)] == [
        str(right), str(left), str(right), None]
    saved = invoke("run", right, left, "--model", bundle.path, "--save", clips / "out.mp4")
    assert saved.exit_code == 2
    assert "2 sources; allowed: exactly one" in saved.stderr


def test_what_is_skipped_is_said(clips: Path, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(clips)
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    done = invoke("run", tmp_path, "--model", bundle.path, "--json", "-", "--clips", 1)
    assert done.exit_code == 0
    assert f"skipped: {tmp_path / 'gone'}: a broken link" in done.stderr
    assert [line["kind"] for line in lines(done.stdout)] == ["skipped", "clip", "clip", "summary"]
    assert lines(done.stdout)[0]["path"] == str(tmp_path / "gone")
    quiet = invoke("run", tmp_path, "--model", bundle.path, "--clips", 1, "-q")
    assert quiet.stderr == ""
    shown = invoke("inspect", tmp_path, "--json", "-")
    assert [line["kind"] for line in lines(shown.stdout)] == ["skipped", "video", "video"]


def test_the_rate_of_pictures_is_said(bundle: Bundle, tmp_path: Path) -> None:
    for number, array in enumerate(translating_texture(36, (160, 96), (2, 0))):
        Image.fromarray(array).save(tmp_path / f"{number}.png")
    pattern = tmp_path / "*.png"
    done = invoke("run", pattern, "--model", bundle.path, "--json", "-", "--clips", 1)
    assert "taken as 25 a second; --fps gives another rate" in done.stderr
    assert lines(done.stdout)[0]["end_s"] == pytest.approx(0.96)
    done = invoke("run", pattern, "--model", bundle.path, "--json", "-", "--clips", 1, "--fps", 10)
    assert "a second" not in done.stderr
    assert lines(done.stdout)[0]["end_s"] == pytest.approx(2.4)
    assert "25 a second" in invoke("inspect", pattern).stderr
    (line,) = lines(invoke("inspect", pattern, "--fps", 12.5, "--json", "-").stdout)
    assert line["fps"] == 12.5


@pytest.mark.parametrize("verb", ["run", "inspect"])
def test_limits_are_lowered_and_raised_by_name(clips: Path, bundle: Bundle, verb: str) -> None:
    clip = [verb, clips / "right.mp4", *(["--model", bundle.path] if verb == "run" else [])]
    done = invoke(*clip, "--limit", "pixels=15000", "--limit", "streams=9")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-2:] == [
        f"error: {clips / 'right.mp4'} has pictures of 160x96, too many pixels (15360); allowed: "
        "15000, the limit pixels.", "  next: If you trust the source: --limit pixels=15360."]
    assert invoke(*clip, "--limit", "pixels=15000", "--limit", "pixels=15360").exit_code == 0


@pytest.mark.parametrize("verb", ["run", "inspect"])
def test_playlists_are_opened_if_allowed(
    clips: Path, bundle: Bundle, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "part.mp4").write_bytes((clips / "right.mp4").read_bytes())
    (tmp_path / "lie.mp4").write_text("ffconcat version 1.0\nfile part.mp4\n")
    clip = [verb, tmp_path / "lie.mp4", *(["--model", bundle.path] if verb == "run" else [])]
    done = invoke(*clip)
    assert done.exit_code == 1
    assert "is a concat script, which names other files or addresses" in done.stderr
    assert "next: If you trust all that it names: --allow-playlists." in done.stderr
    assert invoke(*clip, "--allow-playlists").exit_code == 0


# ---- errors


@pytest.mark.parametrize(("options", "code", "message"), [
    (["none.mp4"], 1, "none.mp4 does not exist"),
    (["{clip}", "--model", "none.edgepkd"], 1, "no such folder"),
    (["{clip}", "--clips", "few"], 2, "clips is 'few'"),
    (["{clip}", "--clips", "0"], 2, "clips is 0"),
    (["{clip}", "--fps", "0"], 2, "fps is 0"),
    (["{clip}", "--fps", "nan"], 2, "fps is nan"),
    (["rtsp://admin:hunter2@127.0.0.1:9/x"], 1, "rtsp://***@127.0.0.1:9/x cannot be opened"),
    (["{clip}", "--threshold", "2"], 2, "threshold is 2.0"),
    (["{clip}", "--order", "mv,rgb"], 2, "order is 'mv,rgb'"),
    (["{clip}", "--order", "residual"], 2, "available: iframe; iframe,mv,residual; mv;"),
    (["{clip}", "--max-exit", "13"], 2, "max_exit is 13"),
    (["{clip}", "--static", "--max-exit", "3"], 2, "static goes with"),
    (["{clip}", "--route", "fast"], 2, "route is 'fast'"),
    (["{clip}", "--save", "{clip}"], 2, "is the same file as"),
    (["{clip}", "--save", "out.gif"], 2, "allowed suffixes"),
    (["{clip}", "--limit", "px=9"], 2, "--limit is 'px=9'; allowed: NAME=NUMBER"),
    (["{clip}", "--limit", "pixels=0"], 2, "limit pixels is 0"),
    (["{clip}", "--json", "/nowhere/out.json"], 2, "cannot be written"),
])
def test_errors_are_one_message_and_a_next_step(
    clips: Path, bundle: Bundle, options: list[str], code: int, message: str
) -> None:
    filled = [option.format(clip=clips / "right.mp4") for option in options]
    if "--model" not in filled:
        filled += ["--model", str(bundle.path)]
    done = invoke("run", *filled)
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    # A run that began is summed up.
    began = filled[0].startswith("rtsp")
    assert done.stdout.endswith("1 of 1 source failed\n") if began else done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.smoke
def test_unknown_options_and_verbs_are_usage_errors() -> None:
    assert invoke("run", "x.mp4", "--fast").exit_code == 2
    assert invoke("walk").exit_code == 2
    assert invoke("run").exit_code == 2


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPKD_DEBUG", "1")
    done = invoke("inspect", "none.mp4")
    assert "Traceback" in done.stderr
    assert done.exit_code == 1


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


def test_a_setting_that_the_only_video_cannot_take_is_a_usage_error(
    bundle: Bundle, tmp_path: Path
) -> None:
    clip = encode_clip(tmp_path / "a.avi", translating_texture(12, (64, 48), (1, 0)),
                       codec="mjpeg", pix_fmt="yuvj420p")
    done = invoke("run", clip, "--model", bundle.path, "--route", "native", "-q")
    assert done.exit_code == 2
    assert done.stderr.count("error: route is 'native'") == 1


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


# ---- JSON lines


def test_json_file_is_whole_or_absent(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with suppress(RuntimeError), JsonLines(target(out)) as sink:
        sink.write("clip", {"a": 1})
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with JsonLines(target(out)) as sink:
        sink.write("clip", {"a": 1})
        assert not out.exists()
    assert lines(out.read_text()) == [{"schema_version": 1, "kind": "clip", "a": 1}]


def test_json_of_a_camera_is_there_as_it_comes(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with suppress(KeyboardInterrupt), JsonLines(target(out), stream=True) as sink:
        sink.write("clip", {"a": 1})
        assert len(lines(out.read_text())) == 1
        raise KeyboardInterrupt
    assert len(lines(out.read_text())) == 1


def test_json_of_a_camera_replaces_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("of yesterday\n" * 99)
    there = target(out, force=True)
    with JsonLines(there, stream=True) as sink:
        assert out.read_text().startswith("of yesterday"), "as long as there is nothing new"
        sink.write("clip", {"a": 1})
    assert len(lines(out.read_text())) == 1
    other = tmp_path / "other"
    other.write_text("of another process")
    there = target(out, force=True)
    other.replace(out)
    with (pytest.raises(StorageError, match="another file has this name by now"),
          JsonLines(there, stream=True) as sink):
        sink.write("clip", {"a": 1})
    assert out.read_text() == "of another process"


def target(out: Path, *, force: bool = False) -> JsonTarget:
    return json_target(str(out), force=force)


# ---- demo, inspect, doctor


@pytest.mark.parametrize(("expected", "code", "verdict"), [
    ("right", 0, "The answer is right (2 of 2 clips)."),
    ("left", 1, "The answer is NOT right (0 of 2 clips)."),
])
def test_demo(
    clips: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    expected: str, code: int, verdict: str,
) -> None:
    facts = {"clip": str(clips / "right.mp4"), "expected_label": expected,
             "attribution": "A. Person, CC BY 4.0"}
    (tmp_path / "demo.json").write_text(json.dumps(facts))
    monkeypatch.setattr("edgepkd.pipeline.demo.DEMO_FACTS", tmp_path / "demo.json")
    monkeypatch.setattr("edgepkd.runtime.model.DEMO_BUNDLE", bundle.path)
    done = invoke("demo")
    assert done.exit_code == code
    for part in (verdict, f"Expected: {expected}.", "A. Person, CC BY 4.0", "mv 1 (1/12)",
                 "skipped: 22 of 24 segments"):
        assert part in done.stdout


@pytest.fixture
def shipped(
    clips: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip and a bundle of the test's in place of those that ship."""
    facts = {"clip": str(clips / "right.mp4"), "expected_label": "right",
             "attribution": "A. Person"}
    (tmp_path / "demo.json").write_text(json.dumps(facts))
    monkeypatch.setattr("edgepkd.pipeline.demo.DEMO_FACTS", tmp_path / "demo.json")
    monkeypatch.setattr("edgepkd.runtime.model.DEMO_BUNDLE", bundle.path)


@pytest.mark.usefixtures("shipped")
def test_demo_takes_the_options_of_run(tmp_path: Path) -> None:
    done = invoke("demo", "--json", "-", "--static", "--order", "iframe,mv,residual", "--threads",
                  1, "--backend", "openvino", "--save", tmp_path / "saved.mp4")
    assert done.exit_code == 1, done.output  # still pictures alone do not tell it
    *answers, summary = lines(done.stdout)
    assert [answer["exit"]["position"] for answer in answers] == [12, 12]
    assert (summary["exit_rule"], summary["order"][0]) == ("static", "iframe")
    assert (tmp_path / "saved.mp4").stat().st_size > 0
    for part in ("The answer is NOT right (0 of 2 clips).", "Expected: right.", "saved "):
        assert part in done.stderr
    limited = invoke("demo", "--json", tmp_path / "lines.json", "--threshold", 1, "--max-exit", 3,
                     "-q")
    assert limited.stderr == ""
    assert "The answer is " in limited.stdout
    assert "Expected" not in limited.stdout
    answers = lines((tmp_path / "lines.json").read_text())[:-1]
    assert [answer["exit"]["position"] for answer in answers] == [3, 3]
    assert invoke("demo", "--json", "-", "-q").stderr == ""


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(("options", "message"), [
    (["--static", "--max-exit", "2"], "static goes with threshold or max_exit"),
    (["--threshold", "2"], "threshold is 2.0"), (["--order", "mv,sound"], "order"),
])
def test_demo_refuses_what_run_refuses(options: list[str], message: str) -> None:
    done = invoke("demo", *options)
    assert done.exit_code == 2
    assert message in done.stderr


def test_inspect_bundle(bundle: Bundle) -> None:
    shown = invoke("inspect", bundle.path)
    assert shown.exit_code == 0
    for part in ("left, right", "15 files", "every SHA-256 is right", "segments/residual_2.onnx",
                 "mv,residual,iframe", "0.0600"):
        assert part in shown.stdout
    (line,) = lines(invoke("inspect", bundle.path, "--json", "-").stdout)
    assert (line["kind"], line["schema_version"], line["manifest_schema_version"]) == (
        "bundle", 1, 2)


def test_inspect_says_whose_engines_there_are(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    folder = add_openvino_engines(bundle)
    version = openvino.version()
    assert f"12 plans, openvino {version}, built here by this user" in invoke(
        "inspect", bundle.path).stdout
    stored_engines.edit(folder, lambda values: values.update(precision="auto"), listed=False)
    assert f"12 plans, openvino {version}, not built here by this user: run uses them only" in \
        invoke("inspect", bundle.path).stdout
    (folder / "engines.json").write_text('{"schema_version": 1}')
    (line,) = lines(invoke("inspect", bundle.path, "--json", "-").stdout)
    (found,) = line["engines"]
    assert (found["target"], found["is_covered"], found["num_plans"]) == ("openvino", False, None)
    assert found["error"].startswith("engines.json: key target, built_on, precision, plans is")


def test_run_uses_engines_from_elsewhere_only_with_trust(clips: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    stored_engines.edit(add_openvino_engines(bundle),
                        lambda values: values.update(precision="auto"), listed=False)
    asked = ("run", clips / "right.mp4", "--model", bundle.path)
    told = invoke(*asked)
    assert told.exit_code == 0
    assert "were not built here by this user" in told.stderr
    assert "--trust-engines" in told.stderr
    (line,) = [line for line in lines(invoke(*asked, "--trust-engines", "--json", "-").stdout)
               if line["kind"] == "summary"]
    assert line["backend"].endswith("with engines/openvino")


def test_inspect_tampered_bundle(bundle: Bundle, tmp_path: Path) -> None:
    broken = make_bundle(tmp_path)
    (broken.path / "wise.json").write_text("{}")
    shown = invoke("inspect", broken.path)
    assert shown.exit_code == 1
    assert "wise.json has 2 bytes" in shown.stderr


@pytest.mark.smoke
def test_inspect_videos(clips: Path) -> None:
    shown = invoke("inspect", clips / "right.mp4")
    for part in ("mpeg4", "160x96", "25 fps", "12 frames", "native: mpeg4 exports"):
        assert part in shown.stdout
    got = lines(invoke("inspect", clips, "--json", "-").stdout)
    assert [line["verdict"]["route"] for line in got] == ["native", "native"]
    assert {line["kind"] for line in got} == {"video"}


def test_inspect_goes_on_after_a_bad_file(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no")
    (tmp_path / "b.mp4").symlink_to(clips / "right.mp4")
    shown = invoke("inspect", tmp_path)
    assert shown.exit_code == 1
    assert "a.mp4" in shown.stderr
    assert "native" in shown.stdout


@pytest.mark.smoke
def test_doctor() -> None:
    shown = invoke("doctor")
    assert shown.exit_code == 0
    for part in (__version__, "backend openvino", "CPU", "kernels", "numpy", "next: "):
        assert part in shown.stdout
    assert "those built here are noted in" in shown.stdout
    (line,) = lines(invoke("doctor", "--json", "-").stdout)
    assert line["kind"] == "machine"
    assert line["packages"]["av"]
