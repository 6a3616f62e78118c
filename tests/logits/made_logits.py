"""Logits of clips without a network behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgepkd.config import MODALITIES, Modality
from edgepkd.logits.choice import Evidence, parts_of
from edgepkd.logits.clip_logits import ClipLogits, ViewsProtocol

NAMES = ("bend", "jump", "walk")
WORTH = {"mv": 0.6, "residual": 1.0, "iframe": 1.8}


def make_logits(*, num_clips: int = 60, seed: int = 0, **changes: Any) -> ClipLogits:
    """Exits that know more the later they are, and noise; every class is there."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_clips) % len(NAMES)
    later = np.array([0.3, 0.6, 0.8, 1.0])[:, None]
    values: dict[str, Any] = {
        "logits": {
            modality: np.eye(len(NAMES))[labels][:, None] * WORTH[modality] * 2 * later
            + rng.normal(size=(num_clips, 4, len(NAMES)))
            for modality in MODALITIES
        },
        "labels": labels, "label_names": NAMES, "split": "calibration",
        "groups": tuple(f"person{i % 5}" for i in range(num_clips)),
        "paths": tuple(f"clip{i}.mp4" for i in range(num_clips)),
        "views": ViewsProtocol(dict.fromkeys(MODALITIES, 3)),
        "weights_sha256": {modality: modality[0] * 64 for modality in MODALITIES},
    }
    return ClipLogits(**{**values, **changes})


def make_doubtful(
    *, num_clips: int, num_groups: int, seed: int = 0, num_classes: int = 6,
    worth: Mapping[Modality, tuple[float, float]], noise: float = 1.0,
) -> Evidence:
    """Networks of a `worth` (signal, scale of the logits) each, whose four exits err together."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_clips) % num_classes
    later = np.array([0.3, 0.6, 0.8, 1.0])[:, None]
    logits = {
        modality: scale * (
            2 * signal * later * np.eye(num_classes)[labels][:, None]
            + noise * 0.8 * rng.normal(size=(num_clips, 1, num_classes))
            + noise * 0.6 * rng.normal(size=(num_clips, 4, num_classes)))
        for modality, (signal, scale) in worth.items()
    }
    groups = tuple(f"person{i * num_groups // num_clips}" for i in range(num_clips))
    return Evidence(logits, labels, groups, parts_of(labels, groups), num_classes)
