"""The two heavy steps of a training run, as functions that can run in a process of their own.

A part of a run is one fold of the cross-fitting, or `final`, which trains on everything but the
test split. Results go to `folder/PART/`; a step whose result is there already, made with the same
settings from the same clips, is not run again. One thread each: a result does not depend on how
many run side by side.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgepkd.config import MODALITIES, Modality
from edgepkd.datasets.index import Sample
from edgepkd.errors import ModelError
from edgepkd.models.checkpoint import load_network, save_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.backbone import LabelledClips, clip_logits, train_backbone
from edgepkd.training.cache import CacheSpec, cached_clip
from edgepkd.training.exits import collect_views, label_rows, train_exits
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


def cache_spec(recipe: TrainRecipe) -> CacheSpec:
    """What a recipe needs of each clip."""
    return CacheSpec(clip=recipe.clip, inputs=recipe.inputs, decode=recipe.decode)


def backbone_job(part: Part, modality: Modality) -> str:
    """Train the trunk and last exit of one modality; returns a line that says how it went."""
    torch.set_num_threads(1)
    path = part.network_path(modality).with_name(f"{modality}-trunk")
    key = _key(part, modality)
    if _is_done(path, key):
        return f"{part.name} {modality}: kept from an earlier run"
    history: list[float] = []
    network = train_backbone(
        _load(part, part.fit), spec=part.recipe.inputs[modality],
        recipe=part.recipe.backbones[modality], num_classes=len(part.labels),
        rule=part.recipe.clip.sampling, seed=_seed(part, modality),
        on_epoch=lambda _, loss: history.append(round(loss, 4)),
    )
    save_network(network, path, extra={"key": key, "loss_per_epoch": history})
    return f"{part.name} {modality}: loss {history[0]:.2f} to {history[-1]:.2f}"


def exits_job(part: Part) -> str:
    """Train exits 1..3 of all three networks and answer the `answer` clips."""
    torch.set_num_threads(1)
    data, recipe = _load(part, part.fit), part.recipe.exits
    networks: dict[Modality, SegmentedNetwork] = {}
    views = {}
    for modality in MODALITIES:
        networks[modality], _ = load_network(
            part.network_path(modality).with_name(f"{modality}-trunk")
        )
        views[modality] = collect_views(
            networks[modality], data.clips, spec=part.recipe.inputs[modality],
            num_views=recipe.num_views, rule=part.recipe.clip.sampling,
            num_segments=part.recipe.backbones[modality].train_segments,
            seed=part.recipe.seed,
        )
    labels = label_rows(data, num_views=recipe.num_views)
    teachers = {modality: views[modality].logits for modality in MODALITIES}
    answered = _load(part, part.answer)
    logits: dict[str, Any] = {}
    for modality, network in networks.items():
        train_exits(network, views[modality], labels, teachers=teachers, recipe=recipe,
                    seed=_seed(part, modality))
        save_network(network, part.network_path(modality))
        logits[modality] = clip_logits(
            network, answered.clips, spec=part.recipe.inputs[modality]
        ).double().numpy()
    np.savez(part.logits_path, labels=np.array(answered.labels), **logits)
    return f"{part.name}: exits trained, {len(answered)} clips answered"


def _load(part: Part, samples: tuple[Sample, ...]) -> LabelledClips:
    return LabelledClips(
        clips=[cached_clip(s, spec=part.cache_spec, folder=part.cache) for s in samples],
        labels=[part.labels.index(s.label) for s in samples],
    )


def _seed(part: Part, modality: Modality) -> int:
    """A seed of its own for each network of a run, the same in every run."""
    text = f"{part.recipe.seed} {part.name} {modality}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _key(part: Part, modality: Modality) -> str:
    """Hash of all that the trunk depends on."""
    facts: dict[str, Any] = {
        "seed": _seed(part, modality), "input": asdict(part.recipe.inputs[modality]),
        "clip": asdict(part.recipe.clip), "backbone": asdict(part.recipe.backbones[modality]),
        "clips": [part.cache_spec.key(s.sha256 or str(s.path)) for s in part.fit],
        "labels": part.labels,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _is_done(path: Path, key: str) -> bool:
    try:
        return bool(load_network(path)[1].get("key") == key)
    except ModelError:
        return False
