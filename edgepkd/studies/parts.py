"""The two heavy steps of a training run, as functions that can run in a process of their own.

A part of a run is one fold of the cross-fitting, or `final`, which trains on everything but the
test split. Results go to `folder/PART/`; a step whose result is there already, made with the same
settings from the same clips, is not run again. One thread each: a result does not depend on how
many run side by side.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgepkd.config import MODALITIES, Modality
from edgepkd.datasets.index import Sample
from edgepkd.errors import ModelError
from edgepkd.files import write_atomically
from edgepkd.models.checkpoint import load_network, save_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.backbone import clip_logits, train_backbone
from edgepkd.training.cache import CacheSpec, cache_spec, cached_clip
from edgepkd.training.exits import (
    CachedFeatures,
    Views,
    collect_views,
    label_rows,
    train_exits,
    view_plan,
)
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import Silent, hash_of, mix_seed
from edgepkd.training.predict import weights_sha256
from edgepkd.training.recipe import TrainRecipe


@dataclass(frozen=True)
class Part:
    """Clips to train on and clips to answer, with where the results go."""

    name: str
    fit: tuple[Sample, ...]
    answer: tuple[Sample, ...]
    """Held-out clips of a fold; the test clips of `final`."""
    labels: tuple[str, ...]
    recipe: TrainRecipe
    folder: Path
    cache: Path

    @property
    def cache_spec(self) -> CacheSpec:
        """What is kept of a clip."""
        return cache_spec(self.recipe)

    def network_path(self, modality: Modality) -> Path:
        """Where a trained network lies, without suffix."""
        return self.folder / self.name / modality

    @property
    def logits_path(self) -> Path:
        """Where the logits of the `answer` clips lie."""
        return self.folder / self.name / "logits.npz"


def backbone_job(part: Part, modality: Modality) -> str:
    """Train the trunk and last exit of one modality; returns a line that says how it went."""
    torch.set_num_threads(1)
    path = part.network_path(modality).with_name(f"{modality}-trunk")
    key = _key(part, modality)
    if _is_done(path, key):
        return f"{part.name} {modality}: kept from an earlier run"
    log = _Losses()
    network = train_backbone(
        load_clips(part, part.fit), spec=part.recipe.inputs[modality],
        recipe=part.recipe.backbones[modality], num_classes=len(part.labels),
        rule=part.recipe.clip.sampling, seed=_seed(part, modality), log=log,
    )
    history = log.losses
    save_network(network, path, extra={"key": key, "loss_per_epoch": history})
    return f"{part.name} {modality}: loss {history[0]:.2f} to {history[-1]:.2f}"


def exits_job(part: Part) -> str:
    """Train exits 1..3 of all three networks and answer the `answer` clips."""
    torch.set_num_threads(1)
    networks = {m: load_network(part.network_path(m).with_name(f"{m}-trunk"))[0]
                for m in MODALITIES}
    key = exits_key(part, networks)
    if all(_is_done(part.network_path(m), key) for m in MODALITIES) and part.logits_path.is_file():
        return f"{part.name}: exits kept from an earlier run"
    data, recipe = load_clips(part, part.fit), part.recipe.exits
    views: dict[Modality, Views] = {}
    for modality in MODALITIES:
        views[modality] = collect_views(networks[modality], data.clips,
                                        view_plan(part.recipe, modality))
    teachers = {modality: views[modality].logits for modality in MODALITIES}
    labels = label_rows(data, num_views=recipe.num_views)
    answered = load_clips(part, part.answer)
    logits: dict[str, Any] = {}
    for modality, network in networks.items():
        train_exits(network, CachedFeatures(views[modality], teachers), labels,
                    recipe=part.recipe.exits_of(modality), seed=_seed(part, modality))
        save_network(network, part.network_path(modality), extra={"key": key})
        logits[modality] = clip_logits(
            network, answered.clips, spec=part.recipe.inputs[modality]
        ).double().numpy()
    buffer = io.BytesIO()
    np.savez(buffer, labels=np.array(answered.labels), **logits)
    write_atomically(part.logits_path, buffer.getvalue())
    return f"{part.name}: exits trained, {len(answered)} clips answered"


class _Losses(Silent):
    """Keeps the loss of each epoch."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def row(self, *, epoch: int, **values: float | int | str) -> None:
        self.losses.append(round(float(values["loss"]), 4))


def load_clips(part: Part, samples: tuple[Sample, ...]) -> LabelledClips:
    """Decoded `samples` with their label indices."""
    return LabelledClips(
        clips=[cached_clip(s, spec=part.cache_spec, folder=part.cache) for s in samples],
        labels=[part.labels.index(s.label) for s in samples],
    )


def _seed(part: Part, modality: Modality) -> int:
    """A seed of its own for each network of a run, the same in every run."""
    return mix_seed(part.recipe.seed, part.name, modality)


def _key(part: Part, modality: Modality) -> str:
    """Hash of all that the trunk depends on."""
    return hash_of({
        "seed": _seed(part, modality), "input": asdict(part.recipe.inputs[modality]),
        "clip": asdict(part.recipe.clip), "backbone": asdict(part.recipe.backbones[modality]),
        "clips": [part.cache_spec.key(s.sha256 or str(s.path), s.form) for s in part.fit],
        "labels": part.labels,
    })


def exits_key(part: Part, networks: Mapping[Modality, SegmentedNetwork]) -> str:
    """Hash of all that the exits depend on, and the clips that they answer."""
    return hash_of({
        "trunks": {m: weights_sha256(network) for m, network in networks.items()},
        "exits": {m: asdict(part.recipe.exits_of(m)) for m in MODALITIES},
        "plans": [asdict(view_plan(part.recipe, m)) for m in MODALITIES],
        "clips": [part.cache_spec.key(s.sha256 or str(s.path), s.form)
                  for s in (*part.fit, *part.answer)],
    })


def _is_done(path: Path, key: str) -> bool:
    try:
        return bool(load_network(path)[1].get("key") == key)
    except ModelError:
        return False
