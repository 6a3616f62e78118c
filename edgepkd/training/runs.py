"""A training run's folder: its recipe and data in run.json, its networks and logs beside it.

RUN/run.json                     recipe, labels, index, seed, versions; of a fold: which it is
RUN/skipped.csv                  clips that could not be read, and why
RUN/MODALITY-trunk.{safetensors,json}   after `train backbone`
RUN/MODALITY.{safetensors,json}  after `train exits`: the deployable network with all four exits
RUN/backbone-MODALITY/, RUN/exits-MODALITY/   log.jsonl, results.csv, plots, checkpoint
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgepkd import plain_json
from edgepkd.config import MODALITIES, Modality, check
from edgepkd.datasets.index import Sample
from edgepkd.errors import ConfigError, DataError, UsageError
from edgepkd.files import csv_bytes, write_atomically
from edgepkd.machine.conditions import versions
from edgepkd.training.recipe import TrainRecipe, recipe_of

SCHEMA_VERSION = 1
RUN_FILE, SKIPPED = "run.json", "skipped.csv"


def files_of(folder: Path) -> tuple[Path, ...]:
    """What training writes into the folder of a run, but for the folders of its steps."""
    networks = (f"{modality}{kind}{suffix}" for modality in MODALITIES for kind in ("", "-trunk")
                for suffix in (".json", ".safetensors"))
    return tuple(folder / name for name in (
        RUN_FILE, SKIPPED, "quantize.json", "sensitivity.json", *networks))


@dataclass(frozen=True)
class FoldOf:
    """Which fold of another run's training groups a run holds out."""

    index: int
    """0..of - 1."""
    of: int
    seed: int
    """Of the cut."""

    def __post_init__(self) -> None:
        check(self.of >= 2, "folds", got=self.of, allowed="2 or more")
        check(0 <= self.index < self.of, "fold", got=self.index, allowed=f"0..{self.of - 1}")


@dataclass(frozen=True)
class Run:
    """What all steps of one run share."""

    folder: Path
    recipe: TrainRecipe
    index: Path
    labels: tuple[str, ...]
    seed: int
    fold: FoldOf | None = None
    """None: a run of its own, trained on the whole training split."""

    def trunk(self, modality: Modality) -> Path:
        """Network with a trained trunk and last exit, without suffix."""
        return self.folder / f"{modality}-trunk"

    def network(self, modality: Modality) -> Path:
        """Deployable network, all exits trained, without suffix."""
        return self.folder / modality

    def step(self, name: str, modality: Modality) -> Path:
        """Folder of the logs and the checkpoint of one step."""
        return self.folder / f"{name}-{modality}"


def write_run(run: Run) -> None:
    """Write RUN/run.json.

    Raises:
        StorageError: it cannot be written.
    """
    document = {
        "schema_version": SCHEMA_VERSION, "recipe": asdict(run.recipe), "labels": run.labels,
        "index": str(run.index.resolve()), "dataset": run.recipe.dataset, "seed": run.seed,
        "versions": versions(("torch", "av", "numpy")),
        **({"fold": asdict(run.fold)} if run.fold else {}),
    }
    write_atomically(run.folder / RUN_FILE, (plain_json.dumps(document, indent=2) + "\n").encode())


def read_run(folder: Path) -> Run:
    """Read RUN/run.json.

    Raises:
        DataError: there is none, it is damaged, or newer.
    """
    path = folder / RUN_FILE
    try:
        document: dict[str, Any] = plain_json.loads(path.read_text(encoding="utf-8"))
        if document["schema_version"] != SCHEMA_VERSION:
            raise DataError(f"{path} has schema_version {document['schema_version']!r}; "
                            f"allowed: {SCHEMA_VERSION}.", hint="Update edgepkd.")
        return Run(folder, recipe_of(document["recipe"], where=str(path)), Path(document["index"]),
                   tuple(document["labels"]), int(document["seed"]),
                   FoldOf(**document["fold"]) if "fold" in document else None)
    except OSError as error:
        raise DataError(f"{folder} is no training run: {path.name} cannot be read "
                        f"({error.strerror}).",
                        hint="Start one with `edgepkd train backbone`.") from error
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise DataError(f"{path} is damaged: {error}.", hint="Train into a new folder.") from error


def refuse_other_run(old: Run, new: Run) -> None:
    """Refuse to mix two runs in one folder; exits may change, trunks and data may not.

    Raises:
        UsageError: names what differs.
    """
    differs = [
        name for name, a, b in (
            ("labels", old.labels, new.labels), ("index", old.index.resolve(), new.index.resolve()),
            ("seed", old.seed, new.seed), ("clip", old.recipe.clip, new.recipe.clip),
            ("inputs", old.recipe.inputs, new.recipe.inputs),
            ("dataset", old.recipe.dataset, new.recipe.dataset),
            ("backbones", old.recipe.backbones, new.recipe.backbones),
        ) if a != b
    ]
    if differs:
        raise UsageError(f"{old.folder} holds a run with other {', '.join(differs)}.",
                         hint="Train into another folder, or leave out the options that differ.")


def write_skipped(run: Run, reasons: Mapping[Sample, str]) -> None:
    """Write RUN/skipped.csv: path and reason of each clip that was left out."""
    rows = [(sample.path, sample.label, reason) for sample, reason in reasons.items()]
    write_atomically(run.folder / SKIPPED, csv_bytes(("path", "label", "reason"), rows))
