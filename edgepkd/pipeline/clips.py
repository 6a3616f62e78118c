"""Which clips `--data` and `--dataset` name: the same for every verb that works on a run.

`--data` is an index, or a folder with one in it; a run brings its own where none is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from torch import distributed as dist

from edgepkd.datasets.folds import spread_folds
from edgepkd.datasets.index import Sample, check_no_leak, read_index
from edgepkd.datasets.prepared import INDEX
from edgepkd.datasets.splits import (
    SPLITS,
    SYNONYMS,
    Splits,
    assign_splits,
    check_splits,
    split_three,
)
from edgepkd.errors import DataError
from edgepkd.training.cache import CacheSpec, cache_spec, cached_clip, decode_all
from edgepkd.training.execution import rank, world_size
from edgepkd.training.loader import LabelledClips
from edgepkd.training.recipe import TrainRecipe
from edgepkd.training.runlog import ProgressLog
from edgepkd.training.runs import FoldOf, Run, write_skipped

Split = Literal["test", "calibration", "train"]


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


def clips_in_splits(run: Run, data: Path | None, dataset: str | None) -> ClipSet:
    """As `clips_of_run`, each clip in the split that training cuts the same index into.

    Of a fold's own index, calibration is what the fold holds out.

    Raises:
        DataError: as `clips_of_run` and `assign_splits`.
    """
    clips = clips_of_run(run, data, dataset)
    if run.fold and clips.index.resolve() == run.index.resolve():
        return replace(clips, samples=_in_fold(assign_splits(clips.samples), run.fold))
    if len({s.group for s in clips.samples if s.split in ("train", "")}) >= 2:
        return replace(clips, samples=assign_splits(clips.samples))
    # An index of test clips alone has nothing that calibration could be drawn from.
    return replace(clips, samples=tuple(replace(s, split=SYNONYMS.get(s.split, s.split))
                                        for s in clips.samples))


def splits_of_run(run: Run, samples: Sequence[Sample]) -> Splits:
    """`samples` of the run's index as it is trained on them; of a fold as in `clips_in_splits`.

    Raises:
        DataError: as `split_three` and `spread_folds`.
    """
    cut = split_three(samples)
    if run.fold is None:
        return cut
    named = _in_fold((*cut.train, *cut.calibration, *cut.test), run.fold)
    return Splits(*(tuple(s for s in named if s.split == name) for name in SPLITS))


def _in_fold(samples: Sequence[Sample], fold: FoldOf) -> tuple[Sample, ...]:
    """`samples` with splits as a fold has them: the held-out part of train is its calibration.

    The calibration clips of the whole run are left out: they are answered by its own networks.
    """
    folds = spread_folds([s for s in samples if s.split == "train"], num_folds=fold.of,
                         seed=fold.seed)
    return (*folds[fold.index].fit,
            *(replace(s, split="calibration") for s in folds[fold.index].held_out),
            *(s for s in samples if s.split == "test"))


def of_split(clips: ClipSet, split: Split) -> tuple[Sample, ...]:
    """Clips of one split, none of whose groups was trained on.

    Raises:
        DataError: there is none, or a group is in the training split too.
    """
    chosen = tuple(s for s in clips.samples if s.split == split)
    if not chosen:
        there = ", ".join(f"{name} {count}" for name, count in
                          sorted(Counter(s.split for s in clips.samples).items()))
        raise DataError(f"{clips.index} has no clip in split {split!r}; there are: {there}.",
                        hint="Choose one of these (eval: --split), or name other clips: --data.")
    if split != "train":
        check_no_leak({"train": [s for s in clips.samples if s.split == "train"], split: chosen})
    return chosen


def refuse_trained_on(samples: Sequence[Sample], run: Run) -> None:
    """Refuse clips that another index calls held out and this run was trained on.

    Raises:
        DataError: names the first.
    """
    try:
        own = clips_in_splits(run, None, None).samples
    except DataError:
        return  # the data it was trained on is gone
    if shared := _shared_content([s for s in own if s.split == "train"], samples):
        raise DataError(f"{len(shared)} of these clips were trained on (equal SHA-256), the first: "
                        f"{shared[0].path}.", hint="Evaluate on clips that the run has not seen.")


def refuse_other_sides(samples: Sequence[Sample], run: Run) -> None:
    """Refuse clips that are held out in one of two indices and trained on in the other.

    Raises:
        DataError: names the first; or as `split_three`.
    """
    try:
        old = split_three(_own_samples(run))
    except DataError:
        return  # the data that the run was trained with is gone
    new = split_three(samples)
    for trained, held_out in ((old.train, (*new.calibration, *new.test)),
                              (new.train, (*old.calibration, *old.test))):
        if shared := _shared_content(trained, held_out):
            raise DataError(f"{len(shared)} clips are held out in one of two indices and trained"
                            f" on in the other, the first: {shared[0].path}.",
                            hint="Keep the splits of the index that the run was trained with.")


def _own_samples(run: Run) -> tuple[Sample, ...]:
    return read_index(run.index, dataset=run.recipe.dataset or None)


def _shared_content(seen: Sequence[Sample], samples: Sequence[Sample]) -> list[Sample]:
    """Those of `samples` whose content, by SHA-256, is that of one of `seen`."""
    known = {s.sha256 for s in seen} - {""}
    return [s for s in samples if s.sha256 in known]


def _index_of(data: Path, recipe: TrainRecipe) -> Path:
    """`data` itself, or the index in that folder: the one that the recipe names, or index.csv."""
    if not data.is_dir():
        return data if data.exists() or data.suffix else data / recipe.index
    for path in (data / recipe.index, data / INDEX):
        if path.exists():
            return path
    raise DataError(f"{data} has no {INDEX}, which says what its clips show.",
                    hint=f"Make a set of it: edgepkd data prepare {data} NEW-FOLDER; then name that"
                         " folder.")


def _read(index: Path, dataset: str) -> ClipSet:
    return ClipSet(index, dataset, read_index(index, dataset=dataset or None))


# ---- decoded


@dataclass(frozen=True)
class Clips:
    """Samples of a run that can be read, in splits."""

    train: tuple[Sample, ...]
    calibration: tuple[Sample, ...]
    run: Run
    cache: Path

    @property
    def spec(self) -> CacheSpec:
        """What is kept of a clip."""
        return cache_spec(self.run.recipe)

    def load(self, samples: Sequence[Sample]) -> LabelledClips:
        """Arrays and label indices of `samples`."""
        return LabelledClips(
            [cached_clip(s, spec=self.spec, folder=self.cache) for s in samples],
            [self.run.labels.index(s.label) for s in samples])

    def keys(self, samples: Sequence[Sample]) -> list[str]:
        """Names of `samples` by content and decoding."""
        return [self.spec.key(s.sha256 or str(s.path), s.form) for s in samples]


def decoded_clips(
    run: Run, samples: tuple[Sample, ...], *, folder: Path, jobs: int, console: Console | None
) -> Clips:
    """Clips that can be read, in splits, kept in `folder`; RUN/skipped.csv lists the others.

    A fold has no calibration clips here: what it holds out chooses nothing.

    Raises:
        DataError: none can be read, or a split is empty or leaks.
    """
    named = splits_of_run(run, samples)
    used = (*named.train, *(() if run.fold else named.calibration))
    clips = Clips(named.train, named.calibration, run, folder)
    if rank() == 0:
        with _counter(console, "decode", len(used)) as count:
            _, reasons = decode_all(used, spec=clips.spec, folder=folder, jobs=jobs, on_clip=count)
        write_skipped(run, reasons)
    if world_size() > 1:
        dist.barrier()
        _, reasons = decode_all(used, spec=clips.spec, folder=folder, jobs=1)
    if len(reasons) == len(used):
        raise DataError(f"none of {len(used)} clips can be read; the first: "
                        f"{next(iter(reasons.values()))}")
    if reasons and console and rank() == 0:
        console.print(f"{len(reasons)} of {len(used)} clips cannot be read and are left "
                      f"out; {run.folder / 'skipped.csv'} says why.")
    kept = replace(clips, train=tuple(s for s in clips.train if s not in reasons),
                   calibration=tuple(s for s in clips.calibration if s not in reasons))
    check_splits((*kept.train, *kept.calibration, *named.test))
    return replace(kept, calibration=()) if run.fold else kept


@contextmanager
def _counter(
    console: Console | None, title: str, total: int
) -> Iterator[Callable[[int], None] | None]:
    if console is None:
        yield None
        return
    with ProgressLog(console, title=title, epochs=total, every_epochs=100) as log:
        yield lambda done: log.row(epoch=done - 1)
