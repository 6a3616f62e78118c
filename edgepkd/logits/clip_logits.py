"""Logits of labelled clips on disk: what `eval` writes and `wise fit` reads.

One .npz file without pickled objects. It names the networks it came from by the SHA-256 of their
weights, so that logits of different checkpoints are never mixed, and the views protocol.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np

from edgepkd import plain_json
from edgepkd.cascade import Floats, Labels
from edgepkd.config import NUM_EXITS, Modality, check
from edgepkd.errors import DataError
from edgepkd.files import write_atomically

SCHEMA_VERSION = 1

ModalityLogits: TypeAlias = Mapping[Modality, Floats]
"""[N, 4, classes] of each modality, averaged over temporal segments."""


@dataclass(frozen=True)
class ViewsProtocol:
    """Which frames and crops of a clip are averaged, at logit level (paper.md 1.4)."""

    segments: Mapping[Modality, int]
    """Temporal segments of each modality."""
    crops: int = 1
    """1: centre crop; 10: corners and centre, each plain and mirrored."""
    crop_px: Mapping[Modality, int] = field(default_factory=dict)
    resize_px: Mapping[Modality, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self.crops in (1, 10), "crops", got=self.crops, allowed="1, 10")

    def __str__(self) -> str:
        segments = ", ".join(f"{name} {count}" for name, count in self.segments.items())
        return f"segments {segments}; {self.crops} crop{'s' if self.crops > 1 else ''}"


@dataclass(frozen=True)
class FoldsFacts:
    """Which networks answered, where each clip was held out from those that answered it."""

    fold_of: tuple[int, ...]
    """[N], number of the fold whose networks answered."""
    weights_sha256: tuple[Mapping[Modality, str], ...]
    """Of each fold's networks."""
    belongs_to: str
    """Hash of recipe, labels, clips and seed of the run that the folds are of."""
    seed: int
    """Of the cut."""


@dataclass(frozen=True, eq=False)
class ClipLogits:
    """Logits of all exits for N labelled clips, averaged over the views of each clip."""

    logits: ModalityLogits
    labels: Labels
    """[N], index into `label_names`."""
    label_names: tuple[str, ...]
    groups: tuple[str, ...]
    """[N], group of each clip."""
    paths: tuple[str, ...]
    """[N], as in the index."""
    split: str
    views: ViewsProtocol
    weights_sha256: Mapping[Modality, str]
    """Of the networks' weights; with `folds`, of the run that these are of."""
    folds: FoldsFacts | None = None
    """None: one network of each modality answered all clips."""

    def __post_init__(self) -> None:
        shape = (len(self.labels), NUM_EXITS, len(self.label_names))
        for modality, logits in self.logits.items():
            check(logits.shape == shape, f"logits of {modality}", got=logits.shape,
                  allowed=f"{shape} (clips, exits, classes)")
        check(len(self.groups) == len(self.paths) == len(self.labels), "groups and paths",
              got=(len(self.groups), len(self.paths)), allowed=f"{len(self.labels)} each")
        if self.folds:
            check(len(self.folds.fold_of) == len(self.labels), "folds of the clips",
                  got=len(self.folds.fold_of), allowed=str(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)


def save_logits(answered: ClipLogits, path: Path) -> None:
    """Write `answered` to `path` (.npz), whole or not at all."""
    facts = {
        "schema_version": SCHEMA_VERSION, "label_names": answered.label_names,
        "groups": answered.groups, "paths": answered.paths, "split": answered.split,
        "views": asdict(answered.views), "weights_sha256": dict(answered.weights_sha256),
        **({"folds": asdict(answered.folds)} if answered.folds else {}),
    }
    buffer = io.BytesIO()
    arrays = {f"logits_{modality}": logits for modality, logits in answered.logits.items()}
    np.savez(buffer, facts=np.array(plain_json.dumps(facts)), labels=answered.labels,
             **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def load_logits(path: Path) -> ClipLogits:
    """Read what `save_logits` wrote.

    Raises:
        DataError: no such file, damaged, or written by a newer version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = plain_json.loads(str(file["facts"]))
            if facts["schema_version"] != SCHEMA_VERSION:
                raise DataError(f"{path} has schema_version {facts['schema_version']!r}; "
                                f"allowed: {SCHEMA_VERSION}.", hint="Update edgepkd.")
            return ClipLogits(
                logits={modality: file[f"logits_{modality}"]
                        for modality in facts["weights_sha256"]},
                labels=file["labels"], label_names=tuple(facts["label_names"]),
                groups=tuple(facts["groups"]), paths=tuple(facts["paths"]),
                split=facts["split"], views=ViewsProtocol(**facts["views"]),
                weights_sha256=facts["weights_sha256"],
                folds=_folds(facts["folds"]) if "folds" in facts else None,
            )
    except FileNotFoundError as error:
        raise DataError(f"there is no logits file {path}.",
                        hint="Write it with `edgepkd eval`.") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, OverflowError, MemoryError,
            BadZipFile, zlib.error) as error:  # OverflowError, MemoryError: shapes that it claims
        raise DataError(f"{path} is no logits file of edgepkd, or damaged: {error}.",
                        hint="Write it again with `edgepkd eval`.") from error


def _folds(facts: Mapping[str, Any]) -> FoldsFacts:
    return FoldsFacts(tuple(int(fold) for fold in facts["fold_of"]),
                      tuple(facts["weights_sha256"]), str(facts["belongs_to"]),
                      int(facts["seed"]))
