"""The held-out clips that `wise fit` rests on: of one file, or all that a run has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgepkd.config import Modality
from edgepkd.errors import DataError
from edgepkd.logits.choice import Evidence, parts_of
from edgepkd.logits.clip_logits import ClipLogits, FoldsFacts, load_logits


@dataclass(frozen=True, eq=False)
class Rests:
    """Held-out clips, and where they come from."""

    answered: ClipLogits
    files: tuple[Path, ...]

    @property
    def sha256(self) -> str:
        """Of the files, one after the other."""
        return hashlib.sha256(b"".join(path.read_bytes() for path in self.files)).hexdigest()

    @property
    def missing(self) -> tuple[str, ...]:
        """Classes without a clip."""
        answered = self.answered
        return tuple(name for i, name in enumerate(answered.label_names)
                     if not (answered.labels == i).any())

    @property
    def num_folds(self) -> int:
        """Sets of networks that answered."""
        return len(set(self.answered.folds.fold_of)) if self.answered.folds else 1

    def __str__(self) -> str:
        answered = self.answered
        folds = f", answered by {self.num_folds} sets of networks" if self.num_folds > 1 else ""
        missing = f"; none of {', '.join(self.missing)}" if self.missing else ""
        return (f"{len(answered)} held-out clips of {len(set(answered.groups))} groups"
                f" ({answered.split}){folds}{missing}")


def evidence_of(answered: ClipLogits) -> Evidence:
    """`answered` with its parts for a cross-fitting."""
    folds = answered.folds.fold_of if answered.folds else None
    return Evidence(answered.logits, answered.labels, answered.groups,
                    parts_of(answered.labels, answered.groups, folds), len(answered.label_names))


def gather(named: Path, *, cache: Path) -> Rests:
    """Logits in the file `named`, or all held-out answers of the run in that folder.

    A run's calibration clips are answered now, and kept, where its present networks have not.

    Raises:
        DataError: there is none, one is damaged, or they are of other networks than the run's.
    """
    if not named.is_dir():
        return Rests(load_logits(named), (named,))
    from edgepkd._optional import require

    require("torch", purpose="Answering the clips of a run")
    from edgepkd.pipeline.held_out import FOLDS, LOGITS, read_folds

    folds, found = read_folds(named), []
    if folds is not None:
        found.append((folds, named / FOLDS / LOGITS))
    calibration = _calibration(named, cache, needed=folds is None)
    if calibration is not None:
        found.append(calibration)
    return Rests(_joined([answered for answered, _ in found]), tuple(path for _, path in found))


def _calibration(run: Path, cache: Path, *, needed: bool) -> tuple[ClipLogits, Path] | None:
    from edgepkd.logits.clip_logits import save_logits
    from edgepkd.pipeline.held_out import CALIBRATION, answer_split, network_hashes
    from edgepkd.training.predict import views_protocol
    from edgepkd.training.runs import read_run

    path, hashes = run / CALIBRATION, network_hashes(run)
    if path.exists():
        kept, inputs = load_logits(path), read_run(run).recipe.inputs
        if kept.weights_sha256 == hashes and kept.split == "calibration" and (
                kept.views == views_protocol({m: inputs[m] for m in hashes})):
            return kept, path
    try:
        answered = answer_split(run, cache=cache)
    except DataError as error:
        if not needed:
            return None
        raise DataError(f"{run} has no held-out clips to fit weights on: {error.message}",
                        hint=f"Make some of the training clips: edgepkd train folds {run}"
                        ) from error
    save_logits(answered, path)
    return answered, path


def _joined(parts: Sequence[ClipLogits]) -> ClipLogits:
    """Folds and calibration clips as one: the run's own networks count as one more fold."""
    if len(parts) == 1:
        return parts[0]
    folds, own = parts
    assert folds.folds is not None
    shared: list[Modality] = [m for m in folds.logits if m in own.logits]
    number = max(folds.folds.fold_of) + 1
    return replace(
        folds, split=f"{folds.split} and {own.split}",
        logits={m: np.concatenate([folds.logits[m], own.logits[m]]) for m in shared},
        labels=np.concatenate([folds.labels, own.labels]),
        groups=(*folds.groups, *own.groups), paths=(*folds.paths, *own.paths),
        weights_sha256={m: own.weights_sha256[m] for m in shared},
        folds=FoldsFacts((*folds.folds.fold_of, *[number] * len(own)),
                         (*folds.folds.weights_sha256, own.weights_sha256),
                         folds.folds.belongs_to, folds.folds.seed))
