"""Tables of an evaluation: one column for each thing, whatever labels are called."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.errors import MissingExtraError
from edgepkd.logits.evaluate import evaluate_logits
from edgepkd.pipeline import eval_files
from edgepkd.pipeline.eval_files import CONFUSION_CSV, EXITS_CSV, Heading, draw_plots, write_tables
from tests.logits.made_logits import make_logits

HEADING = Heading("a run", "test", "segments mv 3; 1 crop")
COST = {"mv": (1.0, 2.0, 3.0, 4.0)}


def written(folder: Path, *labels: str) -> None:
    answered = replace(make_logits(), label_names=labels)
    evaluation = evaluate_logits(answered, order=("mv",), gmac=COST)
    write_tables(folder, evaluation, answered, heading=HEADING)


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_a_row_a_true_label_and_a_column_an_answer(tmp_path: Path) -> None:
    written(tmp_path, "bend", "jump", "walk")
    head, *rows = rows_of(tmp_path / CONFUSION_CSV)
    assert head == ["run", "split", "views", "answers_of", "true_label", "bend", "jump", "walk"]
    assert [row[:5] for row in rows] == [
        ["a run", "test", "segments mv 3; 1 crop", "plain sums of all exits", name]
        for name in ("bend", "jump", "walk")]
    assert [sum(map(int, row[5:])) for row in rows] == [20, 20, 20]


@pytest.mark.parametrize(("labels", "columns"), [
    (("run", "split", "walk"), ["answer run", "answer split", "walk"]),
    (("run", "answer run", "walk"), ["answer answer run", "answer run", "walk"])])
def test_a_label_called_like_a_column_has_one_of_its_own(
    tmp_path: Path, labels: tuple[str, ...], columns: list[str]
) -> None:
    written(tmp_path, *labels)
    head, *rows = rows_of(tmp_path / CONFUSION_CSV)
    assert head[5:] == columns
    assert len(set(head)) == len(head) == 8
    assert [row[4] for row in rows] == list(labels)
    assert {row[0] for row in rows} == {"a run"}


def test_a_row_a_score_with_its_interval(tmp_path: Path) -> None:
    written(tmp_path, "bend", "jump", "walk")
    with (tmp_path / EXITS_CSV).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["name"]) for row in rows] == [
        *(("exit", f"mv_{k}") for k in (1, 2, 3, 4)), ("modality", "mv"),
        *(("prefix", f"mv_{k}") for k in (1, 2, 3, 4))]
    assert {(row["split"], row["num_clips"], row["num_groups"]) for row in rows} == {
        ("test", "60", "5")}
    assert all(float(row["top1_low"]) < float(row["top1"]) < float(row["top1_high"])
               for row in rows)


@pytest.mark.slow
def test_plots_are_drawn_or_it_is_said_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = make_logits()
    evaluation = evaluate_logits(answered, order=("mv",), gmac=COST)

    def drawn() -> str | None:
        return draw_plots(tmp_path, evaluation, answered, heading=HEADING, floor=1 / 3)

    assert drawn() is None
    assert {path.name for path in tmp_path.iterdir()} == {"exits.png", "confusion.png"}

    def absent(*_: object, **__: object) -> None:
        raise MissingExtraError("Drawing needs 'matplotlib'.", hint="Install it.")

    monkeypatch.setattr(eval_files, "confusion", absent)
    assert drawn() == "no plots: Drawing needs 'matplotlib'. Install it."
