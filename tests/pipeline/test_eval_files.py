"""Tables and plots of an evaluation: every row says whose numbers it has."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edgepkd.errors import MissingExtraError
from edgepkd.logits.evaluate import Evaluation, evaluate_logits
from edgepkd.pipeline import eval_files
from edgepkd.pipeline.eval_files import Heading, draw_plots, write_tables
from tests.logits.answered import NAMES, make_logits

HEADING = Heading("a run", "calibration", "3 segments")
ANSWERED = make_logits()


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate_logits(ANSWERED, order=("mv", "iframe"), fitted={},
                           gmac={"mv": (0.1,) * 4, "iframe": (1.0,) * 4})


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_row_for_each_score_under_one_heading(evaluation: Evaluation, tmp_path: Path) -> None:
    write_tables(tmp_path, evaluation, ANSWERED, heading=HEADING)
    table = rows(tmp_path / "exits.csv")
    assert tuple(table[0]) == eval_files.COLUMNS
    assert len(table) == len(evaluation.scores)
    assert {(row["run"], row["split"], row["views"], row["order"]) for row in table} == {
        ("a run", "calibration", "3 segments", "mv,iframe")}
    for row, score in zip(table, evaluation.scores, strict=True):
        assert (row["kind"], row["name"]) == (score.kind, score.name)
        assert float(row["top1"]) == pytest.approx(score.top1.value, rel=1e-5)
        assert row["share"] == ("" if score.share is None else f"{score.share:.6g}")


def test_confusion_counts_every_clip_under_its_true_label(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    write_tables(tmp_path, evaluation, ANSWERED, heading=HEADING)
    table = rows(tmp_path / "confusion.csv")
    assert [row["true_label"] for row in table] == list(NAMES)
    assert [sum(int(row[name]) for name in NAMES) for row in table] == [20, 20, 20]
    assert {row["answers_of"] for row in table} == {evaluation.confusion_of}


def test_plots_are_drawn_or_it_is_said_why_not(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn() -> str | None:
        return draw_plots(tmp_path, evaluation, ANSWERED, heading=HEADING, floor=1 / 3)

    assert drawn() is None
    assert {path.name for path in tmp_path.iterdir()} == {"exits.png", "confusion.png"}

    def absent(*_: object, **__: object) -> None:
        raise MissingExtraError("Drawing needs 'matplotlib'.", hint="Install it.")

    monkeypatch.setattr(eval_files, "confusion", absent)
    assert drawn() == "no plots: Drawing needs 'matplotlib'. Install it."
