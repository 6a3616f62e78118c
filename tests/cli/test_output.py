"""Text of others on a terminal: no name moves the cursor, forges a line or loses markup."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgepkd.bundle.reading import Bundle
from edgepkd.bundle.writing import write_bundle
from edgepkd.cli import output
from edgepkd.cli.main import app
from edgepkd.cli.output import JsonLines, JsonTarget, json_target
from edgepkd.errors import StorageError
from edgepkd.pipeline import inspect as pipeline
from tests.cli.calling import lines
from tests.clips import encode_clip, moving_scene, translating_texture
from tests.processes import ROOT, started
from tests.runtime.bundles import make_manifest, make_policy, make_segments, make_wise

pytestmark = pytest.mark.slow

# Colour, clipboard (OSC 52), title, clear screen; C1 controls; turned direction; nothing seen.
EVIL = ("a\x1b[31m\x07[bold]x[b]\n\rFORGED\x7f\x9b\u202e"
        "\x1b]52;c;aGk\x07\x1b]0;t\x07\x1b[2J\x85\x9d2;t\x9c\u2066\u200b")
SEEN = (r"a\x1b[31m\x07[bold]x[b]\n\rFORGED\x7f\x9b\u202e"
        r"\x1b]52;c;aGk\x07\x1b]0;t\x07\x1b[2J\x85\x9d2;t\x9c\u2066\u200b")
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LABELS = ("चलना " + EVIL, "[red]right[/red] walk 🚶 " + EVIL)


def make_evil_bundle(folder: Path) -> Bundle:
    return write_bundle(
        folder / f"{EVIL}.edgepkd", wise=make_wise(), policy=make_policy(),
        segments=make_segments(), model_card="# tiny\n", manifest=make_manifest(
            name=EVIL, labels=LABELS, provenance={"made_by": EVIL, EVIL: [EVIL]}))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_evil_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip and a damaged file; the names of all three are hostile."""
    folder = tmp_path_factory.mktemp("clips") / EVIL
    folder.mkdir()
    made = encode_clip(folder / "a.mp4", translating_texture(36, (160, 96), (2, 0)))
    made.rename(folder / f"{EVIL}.mp4")
    (folder / f"{EVIL}-bad.mp4").write_bytes(b"\0" * 999)
    return folder


def process(*arguments: object, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command, where nothing in them is obeyed."""
    done = subprocess.run(
        [sys.executable, "-m", "edgepkd.cli.main", *map(str, arguments)], capture_output=True,
        cwd=ROOT, timeout=120, env={**os.environ, "COLUMNS": "400", **environment})
    texts = done.stdout.decode(), done.stderr.decode()
    check(*texts)
    return done.returncode, *texts


def check(*texts: str) -> None:
    for text in texts:
        assert OBEYED.findall(text) == []
        assert not re.search("(?m)^FORGED", text), "a forged line"
        assert "Traceback" not in text


def test_run(folder: Path, bundle: Bundle) -> None:
    code, out, err = process("run", folder, "--model", bundle.path)
    assert code == 1
    assert f"{SEEN}.mp4" in out
    assert f"[red]right[/red] walk 🚶 {SEEN}" in out
    assert f"; {SEEN} on openvino" in out
    assert f"{SEEN}.mp4: mpeg4" in err
    assert f"{SEEN}-bad.mp4 cannot be opened" in err


def test_run_of_a_pipe(folder: Path, bundle: Bundle) -> None:
    with (folder / f"{EVIL}.mp4").open("rb") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "edgepkd.cli.main", "run", "-", "--model", str(bundle.path),
             "--json", "/dev/null"], stdin=stream, capture_output=True, cwd=ROOT, timeout=120)
    assert OBEYED.findall(done.stdout.decode()) == []
    assert f"s  [red]right[/red] walk 🚶 {SEEN}" in done.stdout.decode()


def test_json_holds_the_text_itself_and_no_control_character(folder: Path, bundle: Bundle) -> None:
    _, out, _ = process("run", folder, "--model", bundle.path, "--json", "-", "-q")
    found = [json.loads(line) for line in out.splitlines()]
    assert {line["source"] for line in found[:-1]} == {
        str(folder / f"{EVIL}.mp4"), str(folder / f"{EVIL}-bad.mp4")}
    assert LABELS[1] in {line.get("label") for line in found}


def test_inspect(folder: Path, bundle: Bundle) -> None:
    _, out, err = process("inspect", folder)
    assert f"{SEEN}.mp4" in out
    assert f"{SEEN}-bad.mp4 cannot be opened" in err
    code, out, _ = process("inspect", bundle.path)
    assert code == 0
    for part in (f"{SEEN} (", f"[red]right[/red] walk 🚶 {SEEN}", f"provenance {SEEN}"):
        assert part in out
    _, out, _ = process("inspect", bundle.path, "--json", "-")
    assert out.count("\n") == 1


@pytest.mark.parametrize("plot", ["png", "video"])
def test_vectors(folder: Path, tmp_path: Path, plot: str) -> None:
    code, out, err = process("vectors", folder, "--out", tmp_path / EVIL, "--gops", 1,
                             "--plot", plot)
    assert code == 1
    assert f"1 file in {tmp_path}/{SEEN}" in out
    assert f"{SEEN}.mp4: mpeg4" in err
    assert f"{SEEN}-bad.mp4 cannot be opened" in err
    check((next((tmp_path / EVIL).rglob("index.csv"))).read_text())


def test_check(bundle: Bundle) -> None:
    code, out, _ = process("check", bundle.path)
    assert code == 0
    assert f"{SEEN}.edgepkd: whole" in out
    assert SEEN in process("check", f"/nowhere/{EVIL}")[1]
    assert SEEN in process("check", bundle.path, "--target", EVIL)[2]


@pytest.mark.parametrize("arguments", [
    ["run", "{evil}"], ["run", "{evil}*"], ["run", "x://{evil}"],
    ["run", "{clip}", "--model", "{evil}"],
    ["run", "{clip}", "--clips", "{evil}"], ["run", "{clip}", "--order", "{evil}"],
    ["run", "{clip}", "--backend", "{evil}"], ["run", "{clip}", "--route", "{evil}"],
    ["run", "{clip}", "--save", "{evil}"], ["run", "{clip}", "--json", "/nowhere/{evil}"],
    ["run", "{clip}", "{evil}"], ["run", "--{evil}"],
    ["vectors", "{evil}", "--out", "/nowhere/x"], ["vectors", "{clip}", "--out", "{clip}/{evil}"],
    ["vectors", "{clip}", "--out", "/nowhere/x", "--what", "{evil}"],
    ["vectors", "{clip}", "--out", "/nowhere/x", "--plot", "{evil}"],
    ["vectors", "{clip}", "--out", "/nowhere/x", "--gops", "{evil}"],
    ["{evil}"], ["--{evil}"], ["inspect", "{evil}"], ["demo", "{evil}"],
    ["doctor", "--json", "/nowhere/{evil}"], ["export", "{evil}", "--target", "openvino"],
    ["export", "{bundle}", "--target", "{evil}"], ["data", "prepare", "{evil}", "/nowhere/x"],
    ["data", "verify", "{evil}"], ["data", "{evil}"], ["eval", "{evil}"], ["quantize", "{evil}"],
    ["train", "backbone", "/nowhere/x", "--set", "{evil}"], ["train", "exits", "{evil}"],
    ["wise", "fit", "{evil}", "--out", "/nowhere/x"],
    ["run", "{clip}", "--json", "{clip}"], ["run", "{clip}", "--save", "{clip}"],
    ["inspect", "{bundle}", "--json", "{bundle}/manifest.json"],
    ["check", "{bundle}", "--json", "{clip}"], ["wise", "fit", "{clip}", "--out", "{bundle}"],
], ids=lambda arguments: " ".join(arguments)[:40])
def test_errors_quote_what_was_typed(
    folder: Path, bundle: Bundle, arguments: list[str]
) -> None:
    filled = [part.format(evil=EVIL, clip=folder / f"{EVIL}.mp4", bundle=bundle.path)
              for part in arguments]
    done = CliRunner().invoke(app, filled)
    check(done.stdout, done.stderr)
    assert done.exit_code in (1, 2), done.output
    assert "error" in done.stderr.lower()
    assert "[bold]x[b]" in done.stderr


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals here")
def test_a_progress_bar_shows_a_name_as_text(folder: Path, bundle: Bundle) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "edgepkd.cli.main", "run", str(folder / f"{EVIL}.mp4"),
               "--model", str(bundle.path)]
    with started(command, stdin=theirs, stdout=theirs, stderr=theirs, env={
            **os.environ, "TERM": "xterm-256color", "NO_COLOR": "1", "COLUMNS": "300"}) as running:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the end of a terminal
            while more := os.read(ours, 65536):
                shown += more
        os.close(ours)
        assert running.wait(timeout=60) == 0
    assert b"\x1b[?25l" in shown, "a bar was drawn"
    assert shown.count(SEEN.encode()) >= 4
    for obeyed in (b"\x1b[31m", b"\x07", b"\x7f", "\x9b".encode(), "\u202e".encode()):
        assert obeyed not in shown


def test_prepare_and_verify(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for label in ("walk", "run"):
        for number in range(4):
            (source / label).mkdir(parents=True, exist_ok=True)
            made = encode_clip(tmp_path / "a.mp4", moving_scene(14, seed=number + len(label) * 9))
            made.rename(source / label / f"{number}{EVIL}.mp4")
    (source / "walk" / f"9{EVIL}.mp4").write_bytes(b"no")
    out_folder = tmp_path / EVIL
    code, out, err = process("data", "prepare", source, out_folder, "--jobs", 1,
                             "--max-failures", 0.5)
    assert code == 0, err
    assert "run" in out
    assert SEEN in out
    assert f"left out: walk/9{SEEN}.mp4" in err
    next(path for path in out_folder.rglob("*.mp4") if path.is_file()).write_bytes(b"damaged")
    code, out, _ = process("data", "verify", out_folder, "--jobs", 1)
    assert code == 1


@pytest.mark.parametrize("environment", [
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
])
def test_a_terminal_without_unicode_shows_escapes(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    own = write_bundle(
        tmp_path / "a.edgepkd", wise=make_wise(), policy=make_policy(), segments=make_segments(),
        model_card="# tiny\n", manifest=make_manifest(labels=("चलना", "walk 🚶")))
    clip = encode_clip(tmp_path / "a.mp4", translating_texture(24, (160, 96), (2, 0)))
    clip = clip.rename(tmp_path / "चलना.mp4")
    code, out, err = process("run", clip, "--model", own.path, **environment)
    assert code == 0, err
    assert r"walk \U0001f6b6" in out
    assert (out + err).isascii()
    for arguments in (("inspect", clip), ("inspect", own.path), ("check", own.path),
                      ("run", clip, "--model", own.path, "--json", "-"), ("doctor",)):
        code, out, err = process(*arguments, **environment)
        assert code == 0, err
        assert (out + err).isascii()


def test_colours_are_not_forced_on_whoever_wants_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    output.stdout().print("[bold]plain[/bold] :smile: 1.5 https://x.y")
    output.stdout().print(output.table(["[b]head[/b]"], [["[b]cell[/b] :smile:"]]))
    output.print_facts(output.stdout(), [("[b]name[/b]", "[b]value[/b]")])
    shown = capsys.readouterr().out
    for part in ("[bold]plain[/bold] :smile:", "[b]head[/b]", "[b]cell[/b] :smile:",
                 "[b]name[/b]", "[b]value[/b]"):
        assert part in shown
    assert "\x1b" not in shown


LONG = "runs/a set of my own/with a long name that/" + 12 * "no-terminal-" + "/mv.json"


@pytest.mark.parametrize("width", [60, 80])
def test_names_of_files_stay_whole_in_a_narrow_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    console = output.stdout()
    console.print(f"written: {LONG}, and more")
    output.print_facts(console, [("bundle", LONG), ("labels", 30 * "walk, ")], whole=["bundle"])
    rows = [("mv", "12", LONG), ("iframe", "3", "b")]
    output.print_table(console, ("network", "s", "file"), rows, paths=["file"], right=["s"])
    found = capsys.readouterr().out.splitlines()
    assert found[0] == f"written: {LONG}, and more"
    assert found[1] == f"bundle {LONG}"
    assert found[2].startswith("labels walk, walk,")
    assert found[3].startswith("       walk,")
    assert all(len(line) <= width for line in found if LONG not in line)
    assert found[-2:] == [f"1  {LONG}", "2  b"]
    assert "1 mv" in " ".join(" ".join(found).split())


def test_a_table_with_room_for_its_names_has_them_in_a_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    output.print_table(output.stdout(), ("network", "file"), [("mv", "runs/mine/mv.json")],
                       paths=["file"])
    row = capsys.readouterr().out.splitlines()[-2]
    assert row.split() == ["mv", "runs/mine/mv.json"]


def test_notes_about_a_video_are_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = next(iter(pipeline.inspect(str(folder / f"{EVIL}.mp4"))))
    assert isinstance(info, pipeline.VideoReport)
    monkeypatch.setattr(pipeline, "inspect", lambda *_, **__: iter([replace(info, notes=(EVIL,))]))
    done = CliRunner().invoke(app, ["inspect", str(folder)])
    check(done.stdout, done.stderr)
    assert f"note: {SEEN}\n" in done.stderr


@pytest.mark.parametrize(("what", "line"), [
    ("warnings.warn(EVIL)", f"warning: UserWarning: {SEEN}"),
    ("raise RuntimeError(EVIL)", f"RuntimeError: {SEEN}"),
    ("raise errors.DataError(EVIL, hint=EVIL)", f"error: {SEEN}"),
])
def test_warnings_and_errors_that_nobody_foresaw(what: str, line: str) -> None:
    code = f"""
import sys, warnings
from edgepkd import errors
import edgepkd.pipeline.doctor as verb
from edgepkd.cli.main import main
EVIL = {EVIL!r}
def doctor():
    {what}
    sys.exit(0)
verb.describe = doctor
sys.argv = ["edgepkd", "doctor"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, timeout=60)
    err = done.stderr.decode()
    assert done.returncode == ("warn(" not in what)
    assert f"{line}\n" in err
    assert OBEYED.findall(err) == []
    assert not re.search("(?m)^FORGED", err)


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
