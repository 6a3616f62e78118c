"""Answers to held-out clips: one file a fold and seed, and all of them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepkd import plain_json
from edgepkd.cascade import Floats
from edgepkd.config import MODALITIES, Modality
from edgepkd.errors import DataError
from edgepkd.logits.metrics import Interval, mean_interval
from edgepkd.studies.parts import UNREADABLE, Part, write_arrays
from edgepkd.studies.study import SetPlan

EXITS = "exits"
"""Training of exits 1..3 in `seconds`; with `_SEED` behind it, that of one seed."""

Logits = Mapping[tuple[str, Modality], Floats]
"""(form, modality) -> [N, 4, classes]; a form is one way to make the networks."""


@dataclass(frozen=True, eq=False)
class Answered:
    """Held-out answers of one set: S seeds, N clips."""

    plan: SetPlan
    label_names: tuple[str, ...]
    seeds: tuple[str, ...]
    truth: NDArray[np.int64]
    """[N]"""
    groups: tuple[str, ...]
    folds: NDArray[np.int64]
    """[N]"""
    logits: Logits
    """[S, N, 4, classes]."""
    seconds: Mapping[str, tuple[float, ...]]
    """Step -> its seconds in each fold."""

    @property
    def dataset(self) -> str:
        """Name of the set, for people."""
        return self.plan.recipe.dataset

    @property
    def num_groups(self) -> int:
        """Groups, none of which is in two folds."""
        return len(set(self.groups))

    @property
    def num_folds(self) -> int:
        """Folds."""
        return len(np.unique(self.folds))

    def right(self, form: str, modality: Modality) -> Floats:
        """Share of seeds that answer rightly, of each clip at each exit: [N, 4]."""
        answers = self.logits[form, modality].argmax(axis=-1)
        shares: Floats = (answers == self.truth[None, :, None]).mean(axis=0)
        return shares

    def held_out(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Every seed with every fold: the seed's number, and which clips are the fold's [N]."""
        for seed, fold in product(range(len(self.seeds)), np.unique(self.folds)):
            yield seed, self.folds == fold

    def interval(self, values: Floats) -> Interval:
        """Mean of `values` [N] with its interval over groups."""
        return mean_interval(values, self.groups)


# ---- one fold


def write_answers(
    path: Path, part: Part, *, key: str, truth: NDArray[np.int64], logits: Logits,
    seconds: Mapping[str, float],
) -> None:
    """Keep the `logits` of the clips that `part` holds out, with their labels `truth` [N].

    `key` is the hash of all that they depend on.

    Raises:
        StorageError: the file cannot be written.
    """
    facts = {"key": key, "groups": [s.group for s in part.answer], "labels": part.labels,
             "seconds": {step: round(value, 1) for step, value in seconds.items()}}
    write_arrays(path, {"facts": np.array(plain_json.dumps(facts)), "truth": truth,
                        **{f"{form}/{m}": values for (form, m), values in logits.items()}})


def holds_answers(path: Path, key: str) -> bool:
    """Whether the answers in `path` were made with the settings that `key` is the hash of."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return bool(plain_json.loads(str(file["facts"]))["key"] == key)
    except UNREADABLE:
        return False


# ---- all folds


def read_answers(
    plan: SetPlan, files: Mapping[str, Sequence[Path]], *, forms: Sequence[str]
) -> Answered:
    """Answers of all folds under all seeds: `files` holds those of each seed, fold by fold.

    Raises:
        DataError: a file is absent or damaged.
    """
    columns = [[_read(path, forms) for path in paths] for paths in files.values()]
    first = columns[0]
    seconds: dict[str, list[float]] = {}
    for fold in chain(*columns):
        for name, value in fold.facts["seconds"].items():
            seconds.setdefault(EXITS if name.startswith(EXITS) else name, []).append(value)
    return Answered(
        plan=plan, label_names=tuple(first[0].facts["labels"]), seeds=tuple(files),
        truth=np.concatenate([fold.truth for fold in first]),
        groups=tuple(group for fold in first for group in fold.facts["groups"]),
        folds=np.concatenate([np.full(len(fold.truth), i) for i, fold in enumerate(first)]),
        logits={name: np.stack([np.concatenate([fold.logits[name] for fold in column])
                                for column in columns]) for name in product(forms, MODALITIES)},
        seconds={name: tuple(values) for name, values in seconds.items()},
    )


@dataclass(frozen=True, eq=False)
class _Fold:
    """What one file holds."""

    facts: Mapping[str, Any]
    truth: NDArray[np.int64]
    logits: Logits


def _read(path: Path, forms: Sequence[str]) -> _Fold:
    try:
        with np.load(path, allow_pickle=False) as file:
            return _Fold(plain_json.loads(str(file["facts"])), file["truth"],
                         {(form, m): file[f"{form}/{m}"] for form, m in product(forms, MODALITIES)})
    except UNREADABLE as error:
        raise DataError(f"the answers {path} cannot be read: {error}.",
                        hint="Start the study without --report-only; it makes what is missing."
                        ) from error
