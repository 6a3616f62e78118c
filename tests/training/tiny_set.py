"""A set of eight synthetic clips, a recipe that trains three tiny networks on it in seconds, and
a run with networks that nobody trained."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgepkd.config import MODALITIES, Modality
from edgepkd.datasets.index import labels_of, read_index
from edgepkd.models.checkpoint import save_network
from edgepkd.pipeline.synth import SynthConfig, synth
from edgepkd.training.recipe import load_train_recipe
from edgepkd.training.runs import Run, write_run
from tests.models.networks import small_network

Row = dict[str, str]


def make_set(folder: Path) -> Path:
    """Two labels in four scenes: two train, one calibrates, one tests."""
    list(synth(SynthConfig(folder=folder, num_classes=2, num_clips=8, clip_frames=13)))
    return folder


def change_index(data: Path, change: Callable[[Row], Row | None]) -> None:
    """Change the rows of the index; None leaves a row out."""
    path = data / "index.csv"
    with path.open(newline="") as stream:
        rows = [changed for row in csv.DictReader(stream) if (changed := change(row))]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def without_calibration(row: Row) -> Row | None:
    """For `change_index`: no clip is for calibration."""
    return None if row["split"] == "calibration" else row


def write_recipe(path: Path) -> Path:
    """A recipe named `tiny`."""
    lines = ['purpose = "Tests."', 'name = "tiny"', "seed = 1",
             'default_order = ["mv", "residual", "iframe"]']
    for modality in MODALITIES:
        lines += [f"[inputs.{modality}]", "num_segments = 1", "resize_px = 32", "crop_px = 32",
                  f"[backbones.{modality}]", 'backbone = "resnet18"', "width = 0.125",
                  "epochs = 2", "learning_rate = 1e-2", "train_segments = 1", "batch_clips = 2"]
    lines += ["[exits]", "epochs = 3", "num_views = 2", "batch_views = 4", "[wise]"]
    path.write_text("\n".join(lines) + "\n")
    return path


def make_run(
    folder: Path, data: Path, *, modalities: Sequence[Modality] = MODALITIES, **extra: Any
) -> Path:
    """A run of the recipe `tiny` on `data`, with networks of random weights; `extra`: in them."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    recipe = load_train_recipe(str(write_recipe(folder.with_name(f"{folder.name}.toml"))))
    index = data / "index.csv"
    write_run(Run(folder, recipe, index, labels_of(read_index(index)), 1))
    for modality in modalities:
        save_network(small_network(modality=modality, num_classes=2), folder / modality,
                     extra=extra)
    return folder
