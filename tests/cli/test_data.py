"""`edgepkd data`: tables and JSON, exit codes, errors, and going on after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.progress import Progress, TaskID
from typer.testing import Result

from edgepkd.datasets.layouts import SourceSpec
from edgepkd.pipeline import prepare, verify
from tests.cli.calling import invoke, lines
from tests.clips import encode_clip, moving_scene
from tests.datasets.sets import FakePool, make_folder_set
from tests.processes import started

HEAVY = ("torch", "av", "openvino", "numba", "numpy", "rich", "onnx", "PIL", "ray")


def data(*arguments: object) -> Result:
    return invoke("data", *arguments)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder_set(tmp_path_factory.mktemp("cli") / "source")
    (folder / "run" / "[b]odd[bold].avi").write_bytes(b"\0" * 900)
    return folder


@pytest.mark.slow
def test_prepare_verify_and_a_second_time(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (prepare, verify):
        monkeypatch.setattr(module, "LocalPool", lambda jobs: FakePool())
    folder = tmp_path / "set"
    done = data("prepare", source, folder, "--jobs", 1, "--max-failures", 0.2,
                  "--test-share", 0.25, "--calibration-share", 0.34)
    assert done.exit_code == 0, done.output
    assert "8 clips in" in done.stdout
    assert "8 made, 0 kept, 1 left out" in done.stdout
    assert "folder: 9 clips, 2 labels" in done.stderr
    assert "left out: run/[b]odd[bold].avi: " in done.stderr
    step = f"next: edgepkd train backbone runs/set --data {folder}\n"
    assert done.stderr.endswith(step)
    checked = data("verify", folder, "--decode", "--jobs", 1)
    assert checked.exit_code == 0
    assert checked.stderr.endswith(step)
    assert "8 clips checked and decoded (2 calibration, 2 test, 4 train): all is well" in (
        checked.stdout)
    again = data("prepare", source, folder, "--jobs", 1, "--max-failures", 0.2, "--test-share",
                   0.25, "--calibration-share", 0.34, "--json", "-", "--quiet")
    *clips, summary = lines(again.stdout)
    assert again.stderr == ""
    assert sorted(clip["status"] for clip in clips) == ["failed", *["kept"] * 8]
    assert (summary["kind"], summary["num_kept"], summary["folder"]) == ("summary", 8, str(folder))
    (folder / "videos" / "run" / "g0.mp4").unlink()
    wrong = data("verify", folder, "--jobs", 1)
    assert wrong.exit_code == 1
    assert "videos/run/g0.mp4: is absent" in wrong.stdout
    (line,) = lines(data("verify", folder, "--jobs", 1, "--json", "-").stdout)
    assert line["problems"] == [["videos/run/g0.mp4", "is absent"]]


def test_what_is_skipped_is_counted_and_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "LocalPool", lambda jobs: FakePool())
    linked = tmp_path / "linked"
    linked.mkdir()
    for label in ("run", "walk"):
        (linked / label).symlink_to(source / label)
    (linked / "self").symlink_to(".")
    for number in range(5):
        (linked / f"{number}.txt").touch()
    done = data("prepare", linked, tmp_path / "set", "--jobs", 1, "--max-failures", 0.2)
    assert done.exit_code == 0, done.output
    assert "8 clips in" in done.stdout
    for line in ("note: 5 skipped, its suffix is not that of a video: 0.txt, 1.txt, 2.txt, ...",
                 "note: 1 skipped, a link to a folder that it lies in: self"):
        assert line in done.stderr
        assert line in done.stdout


def test_how_to_name_groups_is_said_before_the_work_and_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "LocalPool", lambda jobs: FakePool())
    for row, label in enumerate(("bend", "jump")):
        (tmp_path / "source" / label).mkdir(parents=True)
        for number, person in enumerate(("anna", "bob", "cleo")):
            encode_clip(tmp_path / "source" / label / f"{person}_{label}.avi",
                        moving_scene(4, seed=10 * row + number))
    done = data("prepare", tmp_path / "source", tmp_path / "set", "--jobs", 1)
    assert done.exit_code == 0, done.output
    for text in (done.stdout, done.stderr):
        assert ("--group-pattern '^([A-Za-z]+)_[A-Za-z]+\\d*$' finds 3 groups: "
                "anna, bob, cleo") in text
        assert "note: no calibration part is drawn: " in text


def test_verify_counts_towards_a_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "LocalPool", lambda jobs: FakePool())
    seen: list[float | None] = []
    real = Progress.advance

    def advance(bar: Progress, task: TaskID) -> None:
        seen.append(bar.tasks[0].total)
        real(bar, task)

    data("synth", tmp_path / "set", "--classes", 2, "--clips", 8, "--clip-frames", 3)
    monkeypatch.setattr(Progress, "advance", advance)
    assert data("verify", tmp_path / "set", "--jobs", 1).exit_code == 0
    assert seen == [8.0] * 8


def test_synth(tmp_path: Path) -> None:
    done = data("synth", tmp_path / "set", "--classes", 2, "--clips", 8, "--clip-frames", 3)
    assert done.exit_code == 0, done.output
    assert "8 clips in" in done.stdout
    assert "synth: 8 clips, 2 labels" in done.stderr
    assert done.stderr.endswith(f"next: edgepkd train backbone runs/set --data {tmp_path}/set\n")


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["prepare", "nowhere", "{out}"], 1, "nowhere is not a folder"),
    (["prepare", "{source}", "{source}/set"], 1, "lies in"),
    (["prepare", "{source}", "{out}", "--layout", "zip"], 2, "layout is 'zip'"),
    (["prepare", "{source}", "{out}", "--jobs", "0"], 2, "jobs is 0"),
    (["prepare", "{source}", "{out}", "--test-share", "2"], 2, "test_share is 2.0"),
    (["prepare", "{source}", "{out}", "--split", "5"], 2, "split is 5"),
    (["prepare", "{source}", "{out}", "--layout", "ucf101"], 1, "no split files of ucf101"),
    (["prepare", "{source}", "{out}", "--index", "no.csv"], 1, "index no.csv cannot be read"),
    (["verify", "{out}"], 1, "index.csv cannot be read"),
    (["synth", "{out}", "--classes", "1"], 2, "classes is 1"),
])
def test_errors_are_one_message(
    source: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = data(*(a.format(source=source, out=tmp_path / "out") for a in arguments))
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_killed_run_is_gone_on_with(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for label in ("run", "walk"):
        (source / label).mkdir(parents=True)
        for number in range(8):
            encode_clip(source / label / f"{label}{number}.avi",
                        moving_scene(48, seed=number + 50 * (label == "run")))
    command = [sys.executable, "-m", "edgepkd.cli.main", "data", "prepare", str(source)]
    progress = tmp_path / "set" / "progress.jsonl"
    with started([*command, str(tmp_path / "set"), "--jobs", "1", "-q"],
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while not progress.exists() or progress.read_bytes().count(b"\n") < 3:
            assert running.poll() is None
            time.sleep(0.005)
    assert running.returncode == -signal.SIGKILL
    assert not (tmp_path / "set" / "index.csv").exists()
    resumed = data("prepare", source, tmp_path / "set", "--jobs", 1, "--json", "-")
    assert lines(resumed.stdout)[-1]["num_kept"] >= 3
    list(prepare.prepare(prepare.PrepareConfig(SourceSpec(source), tmp_path / "other"),
                         pool=FakePool()))
    indexes = [(tmp_path / name / "index.csv").read_bytes() for name in ("set", "other")]
    assert indexes[0] == indexes[1]
