"""How long training will take, measured before it starts: some steps on a made-up batch.

The steps are those of the real loops (`train_backbone`, `train_exits`) on clips of the right shape,
on this machine, with the threads in use. What other presets take is scaled by steps and MACs.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from edgepkd.config import MODALITIES, NUM_CHANNELS, Modality
from edgepkd.datasets.hashes import content_of
from edgepkd.datasets.index import Sample
from edgepkd.models.macs import macs_per_exit
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.backbone import new_network, train_backbone
from edgepkd.training.cache import CacheSpec, ClipArrays, decode_all
from edgepkd.training.execution import Execution
from edgepkd.training.exits import CachedFeatures, Views, collect_views, train_exits, view_plan
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import Silent
from edgepkd.training.recipe import BackboneRecipe, OptimizerRecipe, TrainRecipe
from edgepkd.video.sampling import Place

_R = TypeVar("_R", bound=OptimizerRecipe)

NUM_STEPS = 3
"""Of each network."""
_MOST_S = 2.0
"""After so long no further step of a network is measured: it must not cost more than it says."""
_MOST_PIXELS = 8 * 128 * 128
"""In a measured batch; a larger one is scaled up from as many clips as fit."""
_GOP_LENGTHS = (12, 12, 12)
_SHAPES: Mapping[Modality, tuple[int, int]] = {
    "mv": (32, 43), "residual": (256, 340), "iframe": (256, 340)}
"""Rows and columns of decoded clips in the training form."""
_MEASURED_CLIPS = 3
_WORTH_MEASURING = 12
"""Clips to decode below which nothing is said about it: starting the decoder takes longer."""


@dataclass(frozen=True)
class Pace:
    """What pieces of a network's training take, in seconds."""

    step_s: float
    """A step of the trunk on the recipe's batch."""
    view_s: float
    """A view through the frozen trunk, for the exits."""
    exits_step_s: float
    """A step of the three exits on kept features."""


@dataclass(frozen=True)
class NetworkTime:
    """What one network takes."""

    num_steps: int
    """Of the trunk."""
    trunk_s: float
    exits_s: float


@dataclass(frozen=True)
class DecodePace:
    """What is left to decode."""

    num_clips: int
    seconds: float


def measure_pace(
    recipe: TrainRecipe, modality: Modality, *, num_classes: int, execution: Execution,
    trunk: bool = True,
) -> Pace:
    """Train one network for a few steps on made-up clips; no random state is moved.

    Without `trunk` its steps are left out, and take 0 seconds.
    """
    backbone = replace(recipe.backbones[modality], imagenet=False)
    once = replace(execution, workers=0, compile=False)
    devices = [execution.device] if execution.on_gpu else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        network = new_network(recipe.inputs[modality], backbone, num_classes=num_classes)
        step_s = (_trunk_step(recipe, modality, backbone, network, num_classes, once)
                  if trunk else 0.0)
        network.to(execution.device)
        start = time.perf_counter()
        views = collect_views(network, [made_up_clip()], replace(
            view_plan(recipe, modality), num_views=2))
        view_s = (time.perf_counter() - start) / 2
        return Pace(step_s, view_s, _exits_step(recipe, modality, network, views, once))


def _trunk_step(
    recipe: TrainRecipe, modality: Modality, backbone: BackboneRecipe, network: SegmentedNetwork,
    num_classes: int, execution: Execution,
) -> float:
    spec = recipe.inputs[modality]
    most = max(2, _MOST_PIXELS // (backbone.train_segments * spec.crop_px**2))
    count = min(backbone.batch_clips, most)
    log = _Seconds()
    with suppress(_EnoughError):
        train_backbone(
            LabelledClips([made_up_clip()] * count, [i % num_classes for i in range(count)]),
            spec=spec, recipe=_short(backbone, batch_clips=count), num_classes=num_classes,
            rule=recipe.clip.sampling, seed=0, start=network, execution=execution, log=log)
    return log.a_step() * backbone.batch_clips / count


def _exits_step(
    recipe: TrainRecipe, modality: Modality, network: SegmentedNetwork, views: Views,
    execution: Execution,
) -> float:
    exits = recipe.exits_of(modality)
    rows = torch.arange(max(2, exits.batch_views)) % len(views)
    many = Views(tuple(windows[rows] for windows in views.windows), views.logits[rows])
    log = _Seconds()
    with suppress(_EnoughError):
        train_exits(network, CachedFeatures(many, {}), torch.zeros(len(rows), dtype=torch.long),
                    recipe=_short(exits, scheme="ce"), seed=0, execution=execution, log=log)
    return log.a_step()


def _short(recipe: _R, **changes: Any) -> _R:
    """NUM_STEPS epochs of one step each."""
    return replace(recipe, epochs=NUM_STEPS, steps=0, step_epochs=(), select="last", **changes)


class _EnoughError(Exception):
    """Steps are so slow that one says it."""


class _Seconds(Silent):
    """What each epoch took; ends a training that is slow."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def row(self, *, epoch: int, **values: float | int | str) -> None:
        self.seconds.append(float(values["seconds"]))
        if sum(self.seconds) > _MOST_S:
            raise _EnoughError

    def a_step(self) -> float:
        """Seconds of a step; the first one warms up, and counts where it is the only one."""
        return statistics.median(self.seconds[1:] or self.seconds)


def made_up_clip() -> ClipArrays:
    """Noise in the shape of a decoded clip."""
    rng = np.random.default_rng(0)
    places = {m: [Place(gop, t) for gop, length in enumerate(_GOP_LENGTHS)
                  for t in ((0,) if m == "iframe" else range(1, length))] for m in MODALITIES}
    return ClipArrays(
        gop_lengths=_GOP_LENGTHS, test_places={m: tuple(places[m][:1]) for m in MODALITIES},
        extents={m: (float(_SHAPES[m][1]), float(_SHAPES[m][0])) for m in MODALITIES},
        places={m: {place: row for row, place in enumerate(places[m])} for m in MODALITIES},
        pixels={m: rng.integers(0, 256, (len(places[m]), *_SHAPES[m], NUM_CHANNELS[m]), np.uint8)
                for m in MODALITIES})


# ---- from a pace to the time of a run


def time_of(
    recipe: TrainRecipe, modality: Modality, pace: Pace, *, num_clips: int, online: bool = False
) -> NetworkTime:
    """What a network takes with `num_clips` training clips."""
    backbone = recipe.backbones[modality].for_clips(num_clips)
    exits = recipe.exits_of(modality).for_clips(num_clips)
    num_steps = backbone.epochs * max(1, num_clips // backbone.batch_clips)
    rows = num_clips * exits.num_views
    through_trunk = rows * pace.view_s * (exits.epochs if online else 1)
    steps = exits.epochs * math.ceil(rows / exits.batch_views)
    return NetworkTime(num_steps, num_steps * pace.step_s,
                       through_trunk + steps * pace.exits_step_s)


def scaled(pace: Pace, old: TrainRecipe, new: TrainRecipe, modality: Modality) -> Pace:
    """The pace with another recipe, by the frames of a step and what a frame costs."""
    a, b = old.backbones[modality], new.backbones[modality]
    frame = _frame_macs(new, modality) / _frame_macs(old, modality)
    view = frame * _passes(new, modality) / _passes(old, modality)
    rows = new.exits_of(modality).batch_views / old.exits_of(modality).batch_views
    return Pace(pace.step_s * view * b.batch_clips / a.batch_clips, pace.view_s * view,
                pace.exits_step_s * rows)


def _passes(recipe: TrainRecipe, modality: Modality) -> int:
    """Rows of a training view."""
    return 1 if recipe.inputs[modality].stack else recipe.backbones[modality].train_segments


def _frame_macs(recipe: TrainRecipe, modality: Modality) -> int:
    spec = recipe.inputs[modality]
    with torch.random.fork_rng(devices=[]):
        network = new_network(spec, replace(recipe.backbones[modality], imagenet=False),
                              num_classes=2)
    return sum(row.trunk for row in macs_per_exit(network, crop_px=spec.crop_px))


def measure_decoding(
    samples: Sequence[Sample], *, spec: CacheSpec, folder: Path, jobs: int
) -> DecodePace:
    """Decode the first clips that are not in `folder` yet, which has to be done anyway.

    Raises:
        as `decode_all`.
    """
    waiting = [s for s in samples
               if s.path.is_file() and not (folder / spec.entry(content_of(s), s.form)).is_dir()]
    if len(waiting) < _WORTH_MEASURING:
        return DecodePace(len(waiting), 0.0)
    ends: list[float] = []
    decode_all(waiting[:_MEASURED_CLIPS], spec=spec, folder=folder, jobs=1,
               on_clip=lambda _: ends.append(time.perf_counter()))
    a_clip = (ends[-1] - ends[0]) / (len(ends) - 1)  # the first one waits for the process
    together = min(jobs, os.cpu_count() or 1)
    return DecodePace(len(waiting), (len(waiting) - len(ends)) * a_clip / together)


# ---- said


def time_lines(
    recipe: TrainRecipe, times: Mapping[Modality, NetworkTime], decoding: DecodePace, *,
    others: Mapping[str, float], exits_only: bool = False,
) -> tuple[str, ...]:
    """Lines for the terminal; `others`: seconds of other presets."""
    total = total_s(times, decoding, exits_only=exits_only)
    threads = torch.get_num_threads()
    said = [f"{recipe.name}: about {duration(total)} on this machine ({threads}"
            f" thread{'s' if threads > 1 else ''}), from a few steps of each network"]
    if decoding.seconds:
        said.append(f"  decode    {decoding.num_clips} clips: {duration(decoding.seconds)}")
    for modality, one in times.items():
        trunk = "" if exits_only else f"{one.num_steps} steps: {duration(one.trunk_s)}, then "
        said.append(f"  {modality:9} {trunk}exits: {duration(one.exits_s)}")
    if others:
        said.append("other presets: " + ", ".join(
            f"{name} {duration(seconds)}" for name, seconds in others.items()))
    return tuple(said)


def total_s(
    times: Mapping[Modality, NetworkTime], decoding: DecodePace, *, exits_only: bool = False
) -> float:
    """Seconds of all that is to be done."""
    part: Callable[[NetworkTime], float] = (
        (lambda one: one.exits_s) if exits_only else (lambda one: one.trunk_s + one.exits_s))
    return decoding.seconds + sum(map(part, times.values()))


def duration(seconds: float) -> str:
    """Seconds as people say them: 5 s, 40 s, 3 min, 1.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36_000 else f"{round(seconds / 3600)} h"
