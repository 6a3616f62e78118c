"""Standard output and error that are full, closed or left: one line and the right code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgepkd.bundle.reading import Bundle
from edgepkd.cli.output import JsonLines, json_target
from edgepkd.logits.clip_logits import save_logits
from tests.clips import encode_clip, translating_texture
from tests.logits.made_logits import make_logits
from tests.processes import ROOT, started
from tests.runtime.bundles import make_bundle

pytestmark = pytest.mark.slow

VERBS = {
    "help": "--help", "version": "--version", "help of a verb": "run --help",
    "doctor": "doctor", "doctor json": "doctor --json -", "check": "check {bundle}",
    "inspect": "inspect {clip}", "inspect json": "inspect {clip} --json -",
    "inspect bundle": "inspect {bundle}", "run": "run {clip} --model {bundle}",
    "run json": "run {clip} --model {bundle} --json -",
    "vectors": "vectors {clip} --out {folder}/vectors --force",
    "vectors json": "vectors {clip} --out {folder}/vectors --force --json -",
    "wise fit": "wise fit {logits} --out {folder}/fit --force",
    "data verify": "data verify {set} --jobs 1", "data synth":
        "data synth {folder}/new-{number} --classes 2 --clips 8 --clip-frames 4",
}
CLOSED = "error: standard output cannot be written: it is closed.\n"
FULL = "error: standard output cannot be written: No space left on device.\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streams")


@pytest.fixture(scope="module")
def places(folder: Path) -> dict[str, object]:
    bundle: Bundle = make_bundle(folder)
    save_logits(make_logits(), folder / "calibration.npz")
    data = folder / "set"
    done = run_in_shell(f"data synth {data} --classes 2 --clips 8 --clip-frames 4", "")
    assert done.returncode == 0, done.stderr
    clip = encode_clip(folder / "right.mp4", translating_texture(24, (160, 96), (2, 0)))
    return {"folder": folder, "bundle": bundle.path, "clip": clip, "set": data,
            "logits": folder / "calibration.npz"}


def run_in_shell(arguments: str, redirected: str) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m edgepkd.cli.main {arguments} {redirected}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT,
                          timeout=120)


def filled(verb: str, places: dict[str, object], number: object = 0) -> str:
    return VERBS[verb].format(**places, number=number)


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return [line for line in done.stderr.splitlines(keepends=True) if line.startswith("error")]


def left(places: dict[str, object]) -> list[str]:
    return [path.name for path in Path(str(places["folder"])).rglob(".*.edgepkd-*")]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("redirected", "message"), [
    (">&-", CLOSED), ("> /dev/full", FULL)])
def test_answers_that_cannot_be_written_are_one_error(
    places: dict[str, object], verb: str, redirected: str, message: str
) -> None:
    done = run_in_shell(filled(verb, places, redirected.replace(" ", "").replace("/", "")),
                        redirected)
    assert errors(done) == [message]
    assert done.returncode == 1
    assert left(places) == []


@pytest.mark.parametrize("verb", VERBS)
def test_who_stops_reading_ends_the_command_quietly(places: dict[str, object], verb: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "edgepkd.cli.main", *filled(verb, places, "pipe").split()],
        stdout=write_end, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=120)
    os.close(write_end)
    assert errors(done) == []
    assert done.returncode == 141
    assert left(places) == []


@pytest.mark.parametrize("redirected", ["2>&-", "2> /dev/full", "2>&1 > /dev/null | true",
                                        "<&-", "<&- 2>&-"])
def test_notes_that_cannot_be_written_are_lost_and_nothing_else_is(
    places: dict[str, object], redirected: str
) -> None:
    for verb, code in (("run", 0), ("run json", 0), ("inspect", 0)):
        done = run_in_shell("", f"--version > /dev/null; {sys.executable} -m edgepkd.cli.main "
                                f"{filled(verb, places)} {redirected}; exit ${{PIPESTATUS[0]}}")
        assert done.returncode == code
        assert errors(done) == []
        assert "right" in done.stdout or "| true" in redirected
    for arguments, code in (("run nowhere.mp4", 1), ("run", 2), ("--bogus", 2)):
        done = run_in_shell(arguments, f"{redirected}; exit ${{PIPESTATUS[0]}}")
        assert done.returncode == code
        assert "Traceback" not in done.stdout + done.stderr


def test_everything_closed_has_the_right_code(places: dict[str, object]) -> None:
    for arguments, code in ((filled("doctor", places), 1), ("run nowhere.mp4", 1), ("--bogus", 2)):
        for redirected in (">&- 2>&-", "<&- >&- 2>&-", "> /dev/full 2> /dev/full"):
            done = run_in_shell(arguments, redirected)
            assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_no_output_file_takes_the_place_of_what_is_closed(
    places: dict[str, object], tmp_path: Path
) -> None:
    """The next file that is opened has the lowest number that is free."""
    arguments = f"run {places['clip']} --model {places['bundle']} --json {tmp_path}/out.jsonl" \
                f" --save {tmp_path}/out.mp4"
    for redirected, code in ((">&-", 1), ("2>&-", 0), ("<&- >&- 2>&-", 1)):
        done = run_in_shell(f"{arguments} --force", redirected)
        assert done.returncode == code, done.stderr
        lines = (tmp_path / "out.jsonl").read_text().splitlines()
        assert all(line.startswith('{"schema_version": 1, "kind": ') for line in lines)
        assert run_in_shell(f"inspect {tmp_path}/out.mp4", "").returncode == 0
        assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.mp4"]


def test_a_pipe_that_does_not_wait_gets_everything(places: dict[str, object]) -> None:
    code = "import os, sys; os.set_blocking(1, False); os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-m", "edgepkd.cli.main", "inspect", *[str(places["bundle"])] * 60,
               "--json", "-"]
    with started([sys.executable, "-c", code, *command], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        out = child.stdout.read()
        assert child.wait(timeout=60) == 0
    assert out.count("\n") == 60
    assert len(out) > 2**16, "more than a pipe holds"


def test_a_json_pipe_that_nobody_reads_any_more(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with JsonLines(json_target(str(tmp_path / "pipe"), force=False)) as lines:
        lines.write("clip", {"a": 1})
        assert os.read(reader, 99) == b'{"schema_version": 1, "kind": "clip", "a": 1}\n'
        os.close(reader)
        with pytest.raises(SystemExit) as end:
            lines.write("clip", {"a": 2})
    assert end.value.code == 141
    assert os.listdir(tmp_path) == ["pipe"]
