"""Which clips `--data` and `--dataset` name: the same for every verb that works on a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgepkd.datasets.index import Sample, read_index
from edgepkd.datasets.prepared import INDEX
from edgepkd.errors import DataError
from edgepkd.training.recipe import TrainRecipe
from edgepkd.training.runs import Run


@dataclass(frozen=True)
class ClipSet:
    """Clips to work on."""

    index: Path
    dataset: str
    """Of `index`, the rows with this value in column `dataset`; empty: all."""
    samples: tuple[Sample, ...]


def clips_to_train_on(data: Path, *, recipe: TrainRecipe) -> ClipSet:
    """Clips that `data` names for a run with `recipe`.

    Raises:
        DataError: as `read_index`.
    """
    return _read(_index_of(data, recipe), recipe.dataset)


def clips_of_run(run: Run, data: Path | None, dataset: str | None) -> ClipSet:
    """Clips that `data` names, with labels that the run knows; None: those it was trained with.

    `dataset` None: that of the run, where the index is the run's; else all rows.

    Raises:
        DataError: as `read_index`; a label that the run does not know.
    """
    index = run.index if data is None else _index_of(data, run.recipe)
    is_own = index.resolve() == run.index.resolve()
    named = (run.recipe.dataset if is_own else "") if dataset is None else dataset
    clips = _read(index, named)
    if unknown := sorted({s.label for s in clips.samples} - set(run.labels)):
        raise DataError(f"clips are labelled {', '.join(unknown)}, which the networks do not know; "
                        f"allowed: {', '.join(run.labels)}.",
                        hint="If the index holds several sets, choose one with --dataset.")
    return clips


def _index_of(data: Path, recipe: TrainRecipe) -> Path:
    """`data` itself, or the index in that folder: the one that the recipe names, or index.csv."""
    if not data.is_dir():
        return data if data.exists() or data.suffix else data / recipe.index
    named = data / recipe.index
    return named if named.exists() else data / INDEX


def _read(index: Path, dataset: str) -> ClipSet:
    return ClipSet(index, dataset, read_index(index, dataset=dataset or None))
