"""A run's folder: what it holds after a run, after a kill, and where a package is missing."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from edgepkd.errors import MissingExtraError, StorageError
from edgepkd.training.loop import Log, Silent
from edgepkd.training.runlog import Logs, ProgressLog, RunLog


def results(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def train(log: Log, epochs: range) -> None:
    for epoch in epochs:
        log.row(epoch=epoch, loss=1 / (epoch + 1), loss_calibration=2.0,
                accuracy_calibration=0.1 * epoch, learning_rate=1e-3, seconds=0.5)


@pytest.mark.smoke
def test_a_run_leaves_its_log_its_results_and_plots(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mv"
    with RunLog(folder) as log:
        log.event("start", seed=1, path=Path("a"))
        train(log, range(3))
    assert sorted(p.name for p in folder.iterdir()) == [
        "accuracy.png", "learning_rate.png", "log.jsonl", "loss.png", "results.csv"]
    [start] = events(folder)
    assert start.pop("time", "").endswith("+00:00")  # type: ignore[attr-defined]
    assert start == {"schema_version": 1, "kind": "start", "seed": 1, "path": "a"}
    rows = results(folder)
    assert list(rows[0]) == ["epoch", "loss", "loss_calibration", "accuracy_calibration",
                             "learning_rate", "seconds"]
    assert [float(row["loss"]) for row in rows] == [1, 1 / 2, 1 / 3]


def test_everything_is_on_disk_before_the_end(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.event("start")
    train(log, range(2))
    assert (len(events(tmp_path)), len(results(tmp_path))) == (1, 2)


def test_a_resumed_run_has_no_epoch_twice(tmp_path: Path) -> None:
    killed = RunLog(tmp_path)
    killed.event("start")
    train(killed, range(5))
    with (tmp_path / "results.csv").open("a") as file:
        file.write("5,0.1")  # a kill in the middle of a line
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "ha')
    with RunLog(tmp_path, resume=True) as log:
        log.event("resume", epochs_done=3)
        log.row(epoch=3, loss=9.0)
        log.row(epoch=4, loss=8.0)
    rows = results(tmp_path)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["loss"] for row in rows[2:]] == [str(1 / 3), "9.0", "8.0"]
    assert (tmp_path / "results.csv").read_text().count("epoch") == 1
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(lines[i])["kind"] for i in (0, 2)] == ["start", "resume"]


@pytest.mark.slow
def test_a_row_that_a_kill_cut_short_is_no_row(tmp_path: Path) -> None:
    train(RunLog(tmp_path), range(2))
    with (tmp_path / "results.csv").open("a") as file:
        file.write("2,0.1")
    with RunLog(tmp_path, resume=True) as log:
        train(log, range(3, 4))
    assert [row["epoch"] for row in results(tmp_path)] == ["0", "1", "3"]


def test_a_new_run_in_the_same_folder_starts_its_results_anew(tmp_path: Path) -> None:
    train(RunLog(tmp_path), range(5))
    train(RunLog(tmp_path), range(1))
    assert len(results(tmp_path)) == 1


def test_a_column_may_come_later_or_stay_away(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log.row(epoch=0, loss=1.0)
        log.row(epoch=1, loss=0.5, note="a, b")
        log.row(epoch=2, loss=0.4)
    assert [row["note"] for row in results(tmp_path)] == ["", "a, b", ""]


def test_numbers_that_are_not_finite_are_kept_and_stay_valid_json(tmp_path: Path) -> None:
    nan, infinity = float("nan"), float("inf")
    with RunLog(tmp_path) as log:
        log.event("bad", loss=nan, parts=[infinity, {"x": nan}])
        log.row(epoch=0, loss=nan)
    assert events(tmp_path)[0]["loss"] == "nan"
    assert events(tmp_path)[0]["parts"] == ["inf", {"x": "nan"}]
    assert results(tmp_path)[0]["loss"] == "nan"
    assert not (tmp_path / "loss.png").exists()  # nothing to draw


@pytest.mark.slow
def test_a_run_that_fails_says_so_and_is_drawn(tmp_path: Path) -> None:
    def interrupted() -> None:
        with RunLog(tmp_path) as log:
            train(log, range(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert events(tmp_path)[-1]["kind"] == "stopped"
    assert (tmp_path / "loss.png").is_file()


def test_without_matplotlib_the_log_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with RunLog(tmp_path) as log:
        train(log, range(2))
    [skipped] = events(tmp_path)
    assert skipped["kind"] == "plots_skipped"
    assert "edgepkd[report]" in str(skipped["hint"])
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.slow
def test_tensorboard_gets_the_numbers_and_forgets_what_a_kill_left(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, tensorboard=True)
    train(log, range(5))
    log.close()
    with RunLog(tmp_path, tensorboard=True, resume=True) as log:
        log.row(epoch=3, loss=9.0, note="text is left out")
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    loss = [(point.step, round(point.value, 4)) for point in read.Scalars("loss")]
    assert loss == [(0, 1), (1, 0.5), (2, 0.3333), (3, 9)]
    assert "note" not in read.Tags()["scalars"]


def test_without_tensorboard_the_extra_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"edgepkd\[tensorboard\]"):
        RunLog(tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"results\.csv cannot be written"):
        RunLog(tmp_path / "file" / "run")
    log = RunLog(tmp_path)
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"log\.jsonl cannot be written"):
        log.event("start")


def test_outside_a_terminal_progress_is_a_line_every_few_epochs() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120)
    with ProgressLog(console, title="mv", epochs=25, every_epochs=10) as log:
        log.event("resume", epochs_done=9)
        train(log, range(9, 25))
    assert [line.split()[:2] for line in out.getvalue().splitlines()] == [
        ["mv", "10/25"], ["mv", "20/25"], ["mv", "25/25"]]
    assert "loss 0.100  loss calibration 2.000  accuracy calibration 0.900" in out.getvalue()


def test_in_a_terminal_progress_is_a_bar_with_loss_and_time_left() -> None:
    out = io.StringIO()
    console = Console(file=out, width=140, force_terminal=True, color_system=None)
    with ProgressLog(console, title="mv", epochs=4) as log:
        log.event("resume", epochs_done=1)
        train(log, range(1, 4))
    last = out.getvalue().split("mv ")[-1]
    assert "4/4" in last
    assert last.index("left") < last.index("loss 0.250")


def test_several_logs_hear_the_same(tmp_path: Path) -> None:
    both = Logs(RunLog(tmp_path / "a"), Silent(), RunLog(tmp_path / "b"))
    both.event("start")
    train(both, range(2))
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert [event["kind"] for event in events(tmp_path / "b")] == ["start"]
