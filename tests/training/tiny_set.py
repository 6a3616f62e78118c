"""A set of eight synthetic clips, and a recipe that trains three tiny networks on it in seconds."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from edgepkd.config import MODALITIES
from edgepkd.pipeline.synth import SynthConfig, synth

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
