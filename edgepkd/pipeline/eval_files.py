"""Files of an evaluation: two tables and two plots; each names split and views protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepkd.cascade import order_key
from edgepkd.errors import MissingExtraError
from edgepkd.files import csv_bytes, write_atomically
from edgepkd.logits.clip_logits import ClipLogits
from edgepkd.logits.evaluate import Evaluation, Score
from edgepkd.plots import BarRow, bars_with_intervals, confusion

EXITS_CSV, EXITS_PNG = "exits.csv", "exits.png"
CONFUSION_CSV, CONFUSION_PNG = "confusion.csv", "confusion.png"

COLUMNS = (
    "run", "split", "views", "order", "kind", "name", "weights", "temperature", "num_clips",
    "num_groups", "top1", "top1_low", "top1_high", "top5", "ece", "nll", "gmac", "share",
)
CONFUSION_COLUMNS = ("run", "split", "views", "answers_of", "true_label")
"""Then one a label."""


@dataclass(frozen=True)
class Heading:
    """What every file says about the numbers in it."""

    run: str
    split: str
    views: str

    def __str__(self) -> str:
        return f"{self.run}, {self.split} split\n{self.views}"


def write_tables(folder: Path, evaluation: Evaluation, answered: ClipLogits, *,
                 heading: Heading) -> None:
    """Write exits.csv (a row a score) and confusion.csv (a row a true label).

    Raises:
        StorageError: `folder` cannot be written to.
    """
    facts = [heading.run, heading.split, heading.views]
    rows = [[*facts, order_key(evaluation.order), *_cells(score)] for score in evaluation.scores]
    write_atomically(folder / EXITS_CSV, csv_bytes(COLUMNS, rows))
    write_atomically(folder / CONFUSION_CSV, csv_bytes(
        (*CONFUSION_COLUMNS, *_label_columns(answered.label_names)),
        [[*facts, evaluation.confusion_of, name, *counts] for name, counts
         in zip(answered.label_names, evaluation.confusion.tolist(), strict=True)]))


def _label_columns(labels: Sequence[str]) -> list[str]:
    """A column for each label: its name, or 'answer NAME' where another column has that."""
    taken = {*CONFUSION_COLUMNS, *labels}
    columns = []
    for label in labels:
        column = label
        while column in CONFUSION_COLUMNS or (column != label and column in taken):
            column = f"answer {column}"
        columns.append(column)
    return columns


def draw_plots(folder: Path, evaluation: Evaluation, answered: ClipLogits, *, heading: Heading,
               floor: float) -> str | None:
    """Draw exits.png and confusion.png; returns why not where matplotlib is missing.

    Raises:
        StorageError: `folder` cannot be written to.
    """
    try:
        confusion(folder / CONFUSION_PNG, evaluation.confusion, answered.label_names,
                  title=f"{evaluation.confusion_of}: {heading}")
        bars_with_intervals(folder / EXITS_PNG, _bars(evaluation), y_label="top-1 accuracy, %",
                            title=f"Accuracy of each exit: {heading}", floor=100 * floor)
    except MissingExtraError as error:
        return f"no plots: {error.message} {error.hint}"
    return None


def _bars(evaluation: Evaluation) -> list[BarRow]:
    """Each exit alone beside all exits up to it."""
    rows = []
    for score in evaluation.scores:
        if score.kind in ("exit", "prefix"):
            together = "WISE up to here" if score.weights == "wise" else "sums up to here"
            rows.append(BarRow(score.name, "alone" if score.kind == "exit" else together,
                               100 * score.top1.value, 100 * score.top1.low,
                               100 * score.top1.high))
    return rows


def _cells(score: Score) -> list[object]:
    top1 = score.top1
    return [score.kind, score.name, score.weights, _cell(score.temperature), top1.num_clips,
            top1.num_groups, _cell(top1.value), _cell(top1.low), _cell(top1.high),
            _cell(score.top5), _cell(score.ece), _cell(score.nll), _cell(score.gmac),
            _cell(score.share)]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
