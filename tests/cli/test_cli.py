"""The command line: what goes to stdout and stderr, exit codes, and what stays unimported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import pytest
from typer.testing import CliRunner, Result

from edgepkd import __version__, pipeline
from edgepkd.bundle import Bundle
from edgepkd.cli.main import app
from edgepkd.cli.output import JsonLines
from edgepkd.errors import UsageError
from tests.clips import encode_clip, translating_texture
from tests.processes import started
from tests.runtime.bundles import make_bundle

ROOT = Path(__file__).resolve().parents[2]
VERBS = ("demo", "run", "inspect", "doctor", "check", "export", "quantize")
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


# ---- errors


@pytest.mark.parametrize(("options", "code", "message"), [
    (["none.mp4"], 1, "none.mp4 does not exist"),
    (["{clip}", "--model", "none.edgepkd"], 1, "no such folder"),
    (["{clip}", "--clips", "few"], 2, "clips is 'few'"),
    (["{clip}", "--clips", "0"], 2, "clips is 0"),
    (["{clip}", "--threshold", "2"], 2, "threshold is 2.0"),
    (["{clip}", "--order", "mv,rgb"], 2, "order is 'mv,rgb'"),
    (["{clip}", "--order", "residual"], 2, "available: iframe; iframe,mv,residual; mv;"),
    (["{clip}", "--max-exit", "13"], 2, "max_exit is 13"),
    (["{clip}", "--static", "--max-exit", "3"], 2, "static goes with"),
    (["{clip}", "--route", "fast"], 2, "route is 'fast'"),
    (["{clip}", "--save", "{clip}"], 2, "is the source itself"),
    (["{clip}", "--save", "out.gif"], 2, "allowed suffixes"),
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
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


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


def test_ctrl_c_ends_with_130_and_leaves_nothing(
    clips: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgepkd.runtime.annotate._Writer.finish", interrupted)
    done = invoke("run", clips / "right.mp4", "--model", bundle.path, "--json",
                  tmp_path / "out.jsonl", "--save", tmp_path / "out.mp4")
    assert done.exit_code == 130
    assert list(tmp_path.iterdir()) == []


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
    with suppress(RuntimeError), JsonLines(str(out)) as sink:
        sink.write("clip", {"a": 1})
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with JsonLines(str(out)) as sink:
        sink.write("clip", {"a": 1})
        assert not out.exists()
    assert lines(out.read_text()) == [{"schema_version": 1, "kind": "clip", "a": 1}]


def test_json_of_a_camera_is_there_as_it_comes(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with suppress(KeyboardInterrupt), JsonLines(str(out), stream=True) as sink:
        sink.write("clip", {"a": 1})
        assert len(lines(out.read_text())) == 1
        raise KeyboardInterrupt
    assert len(lines(out.read_text())) == 1


def test_json_to_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        JsonLines(str(tmp_path))


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
    monkeypatch.setattr(pipeline.device, "DEMO_FACTS", tmp_path / "demo.json")
    monkeypatch.setattr(pipeline.device, "DEMO_BUNDLE", bundle.path)
    done = invoke("demo")
    assert done.exit_code == code
    for part in (verdict, f"Expected: {expected}.", "A. Person, CC BY 4.0", "mv 1 (1/12)",
                 "skipped: 22 of 24 segments"):
        assert part in done.stdout


def test_inspect_bundle(bundle: Bundle) -> None:
    shown = invoke("inspect", bundle.path)
    assert shown.exit_code == 0
    for part in ("left, right", "15 files", "every SHA-256 is right", "segments/residual_2.onnx",
                 "mv,residual,iframe", "0.0600"):
        assert part in shown.stdout
    (line,) = lines(invoke("inspect", bundle.path, "--json", "-").stdout)
    assert (line["kind"], line["schema_version"], line["manifest_schema_version"]) == (
        "bundle", 1, 2)


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
    for part in (__version__, "backend openvino", "CPU", "numpy", "next: "):
        assert part in shown.stdout
    (line,) = lines(invoke("doctor", "--json", "-").stdout)
    assert line["kind"] == "machine"
    assert line["packages"]["av"]
