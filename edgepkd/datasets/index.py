"""Labelled clips: an index file, splits by whole groups, and the check that nothing leaks.

An index is a CSV file with at least the columns path (relative to the file) and label. A group is
what must not be cut: a person, a recording, a camera; without a column group each file name is its
own. Without a column split the splits are drawn. A file as Excel writes it will do: `;` or tabs
between the cells, UTF-8 or UTF-16, heads in any case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from edgepkd.config import check
from edgepkd.datasets.labels import checked_labels
from edgepkd.datasets.table import read_table
from edgepkd.errors import DataError


@dataclass(frozen=True)
class Sample:
    """One labelled video file."""

    path: Path
    label: str
    group: str
    split: str
    sha256: str = ""
    """Of the file, where the index has it; else empty."""
    form: str = ""
    """What `edgepkd data` made of the file (`training_form`); empty: a clip as it came."""


@dataclass(frozen=True)
class Fold:
    """Training samples cut in two by whole groups."""

    fit: tuple[Sample, ...]
    held_out: tuple[Sample, ...]


@dataclass(frozen=True)
class Index:
    """What an index file says."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...]
    """Which columns were taken for which, and what in place of those that are not there."""
    has_groups: bool
    """False: a clip's group is its file's name."""


def read_index(path: Path, *, dataset: str | None = None) -> tuple[Sample, ...]:
    """Samples of an index file, or those of one `dataset` (its column of that name).

    Raises:
        DataError: as `open_index`.
    """
    return open_index(path, dataset=dataset).samples


def open_index(path: Path, *, dataset: str | None = None, root: Path | None = None) -> Index:
    """As `read_index`, with notes.

    Paths in it are relative to `root`, the file's own folder if None.

    Raises:
        DataError: no such file, a column is missing, a label cannot name a folder or is written
            in two ways, nothing is left, or a video is absent.
    """
    table = read_table(path, needed=("path", "label", *(("dataset",) if dataset else ())))
    rows = [row for row in table.rows if dataset is None or row["dataset"] == dataset]
    samples = samples_of_rows(rows, root or path.parent)
    _check_present(samples, path, dataset)
    return Index(samples, table.notes, table.has_groups)


def samples_of_rows(rows: Sequence[Mapping[str, str]], root: Path) -> tuple[Sample, ...]:
    """Samples of rows of an index with paths relative to `root`.

    Raises:
        DataError: a label cannot name a folder, or two labels are one on some file systems.
    """
    labels = checked_labels(row["label"] for row in rows)
    return tuple(
        Sample(root / row["path"], labels[row["label"]], row["group"], row["split"],
               row.get("sha256") or "", row.get("form") or "")
        for row in rows
    )


def _check_present(samples: Sequence[Sample], index: Path, dataset: str | None) -> None:
    if not samples:
        what = f" for dataset {dataset!r}" if dataset else ""
        raise DataError(f"{index} lists no clip{what}.")
    absent = [sample.path for sample in samples if not sample.path.is_file()]
    if absent:
        raise DataError(f"{len(absent)} of {len(samples)} clips of {index} are absent, the first: "
                        f"{absent[0]}.", hint="Copy the data again.")


def labels_of(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Labels, sorted: the order of the networks' outputs."""
    return tuple(sorted({sample.label for sample in samples}))


def split_samples(
    samples: Sequence[Sample], *, test_split: str = "test"
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Samples to train and calibrate with, and the untouched test samples.

    Raises:
        DataError: one side is empty, a test label is never trained, or a group is on both sides.
    """
    train = tuple(s for s in samples if s.split != test_split)
    test = tuple(s for s in samples if s.split == test_split)
    if not train or not test:
        raise DataError(f"the split {test_split!r} holds {len(test)} of {len(samples)} clips; "
                        "allowed: some, not all.")
    unknown = sorted(set(labels_of(test)) - set(labels_of(train)))
    if unknown:
        raise DataError(f"test labels without a training clip: {', '.join(unknown)}.")
    check_no_leak({"train": train, "test": test})
    return train, test


def check_no_leak(parts: Mapping[str, Sequence[Sample]]) -> None:
    """Raise DataError if two parts share a group, a file, or files with equal content.

    Raises:
        DataError: names the two parts and what they share.
    """
    for (name_a, a), (name_b, b) in combinations(parts.items(), 2):
        for what, key in (("group", "group"), ("file", "path"), ("content (SHA-256)", "sha256")):
            shared = {getattr(s, key) for s in a} & {getattr(s, key) for s in b} - {""}
            if shared:
                shown = ", ".join(sorted(map(str, shared))[:3])
                raise DataError(
                    f"{name_a} and {name_b} share the {what} {shown} ({len(shared)} in all); "
                    "allowed: none.", hint="Split by whole groups.",
                )


def group_folds(samples: Sequence[Sample], *, num_folds: int, seed: int) -> tuple[Fold, ...]:
    """Cut samples into folds by whole groups; every sample is held out exactly once.

    Groups go, the largest first and equal ones in an order drawn from `seed`, to the fold that
    has fewest clips so far.

    Raises:
        DataError: fewer groups than folds, or a label is never held in while it is held out.
    """
    check(num_folds >= 2, "num_folds", got=num_folds, allowed="2 or more")
    sizes = Counter(sample.group for sample in samples)
    if len(sizes) < num_folds:
        raise DataError(f"there are {len(sizes)} groups for {num_folds} folds; "
                        "allowed: at least as many groups as folds.")
    names = sorted(sizes)
    np.random.default_rng(seed).shuffle(names)
    members: list[set[str]] = [set() for _ in range(num_folds)]
    for name in sorted(names, key=lambda group: -sizes[group]):
        smallest = min(members, key=lambda groups: sum(sizes[g] for g in groups))
        smallest.add(name)
    folds = tuple(
        Fold(fit=tuple(s for s in samples if s.group not in groups),
             held_out=tuple(s for s in samples if s.group in groups))
        for groups in members
    )
    for fold in folds:
        check_no_leak({"the fitted part": fold.fit, "the held-out part": fold.held_out})
        if missing := set(labels_of(fold.held_out)) - set(labels_of(fold.fit)):
            raise DataError(f"no clip of {', '.join(sorted(missing))} is left to fit a fold on.",
                            hint="Use more folds, or more groups.")
    return folds
