"""Flatness of a run's networks, on clips of its training split, at a cost that is bounded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgepkd.config import Modality, check
from edgepkd.datasets.index import Sample
from edgepkd.errors import DataError, SourceError
from edgepkd.pipeline.trained_run import TrainedRun
from edgepkd.training.cache import cached_clip
from edgepkd.training.flatness import (
    Batch,
    Sharpness,
    TraceEstimate,
    epsilon_sharpness,
    hessian_trace,
)
from edgepkd.training.predict import clip_view
from edgepkd.video import transforms

MAX_FRAMES = 6
"""Rows of network inputs that one second-order step holds at once (a whole clip at least)."""


@dataclass(frozen=True, kw_only=True)
class FlatnessConfig:
    """What flatness may cost: it takes num_probes * 2 second backward passes over all clips."""

    num_clips: int = 24
    num_probes: int = 16
    epsilon: float = 1e-4
    """Of the box of the epsilon-sharpness."""
    steps: int = 10
    """Of the ascent in that box."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("num_clips", 1), ("num_probes", 2), ("steps", 1)):
            check(getattr(self, name) >= least, name, got=getattr(self, name),
                  allowed=f"{least} or more")
        check(self.epsilon > 0, "epsilon", got=self.epsilon, allowed="above 0")


@dataclass(frozen=True)
class Flatness:
    """How flat the loss of one network is (see `training.flatness`)."""

    trace: TraceEstimate
    sharpness: Sharpness
    num_clips: int
    seconds: float


def measure_flatness(
    run: TrainedRun, modality: Modality, samples: Sequence[Sample], *, config: FlatnessConfig,
    cache: Path,
) -> Flatness:
    """Flatness of one network on clips drawn from the training split: its segments, centre crop.

    The training split, because the loss that training went down on is what is flat or not; and
    the test split need not be looked at.

    Raises:
        DataError: there is no training clip. SourceError: a clip cannot be decoded.
    """
    start = time.monotonic()
    network = run.networks[modality]
    batches = _flatness_batches(run, modality, samples, config=config, cache=cache)
    trace = hessian_trace(network, batches, num_probes=config.num_probes, seed=config.seed)
    sharpness = epsilon_sharpness(network, batches, epsilon=config.epsilon, steps=config.steps,
                                  seed=config.seed)
    return Flatness(trace, sharpness, sum(len(labels) for _, labels in batches),
                    time.monotonic() - start)


def _flatness_batches(
    run: TrainedRun, modality: Modality, samples: Sequence[Sample], *, config: FlatnessConfig,
    cache: Path,
) -> list[Batch]:
    training = [s for s in samples if s.split == "train"]
    if not training:
        raise DataError("flatness is measured on the training split, which has no clip here.",
                        hint="Use the index that the run was trained with.")
    order = np.random.default_rng(config.seed).permutation(len(training))
    device = next(run.networks[modality].parameters()).device
    spec = run.record.recipe.inputs[modality]
    geometry = transforms.centre_crop(resize_px=spec.resize_px, crop_px=spec.crop_px)
    rows, labels = [], []
    for sample in (training[i] for i in order):
        try:
            clip = cached_clip(sample, spec=run.cache_spec, folder=cache)
        except SourceError:
            continue  # another clip will do as well
        rows.append(clip_view(clip, spec, geometry, clip_spec=run.record.recipe.clip))
        labels.append(run.record.labels.index(sample.label))
        if len(rows) == config.num_clips:
            break
    if not rows:
        raise DataError(f"none of {len(training)} training clips can be read.")
    size = max(1, MAX_FRAMES // spec.num_passes)
    return [(torch.stack(rows[i : i + size]).to(device),
             torch.tensor(labels[i : i + size], device=device))
            for i in range(0, len(rows), size)]
