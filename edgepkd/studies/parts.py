"""A part of a cross-fitted run, and the heavy steps that train it, each a job for a process.

A part is one fold of the cross-fitting, or `final`, which trains on everything but the test split.
Results go to `folder/PART/`; a step whose result is there already, made with the same settings from
the same clips, is not run again. One thread each: a result does not depend on how many run side by
side.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from edgepkd.config import MODALITIES, Modality, facts_of
from edgepkd.datasets.hashes import content_of
from edgepkd.datasets.index import Sample
from edgepkd.errors import ModelError
from edgepkd.files import write_atomically
from edgepkd.models.checkpoint import load_network, read_network_file, save_network
from edgepkd.models.segmented import Networks, SegmentedNetwork
from edgepkd.training.backbone import clip_logits, train_backbone
from edgepkd.training.cache import CacheSpec, cache_spec, cached_clip
from edgepkd.training.exits import (
    CachedFeatures,
    collect_views,
    label_rows,
    train_exits,
    view_plan,
)
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import Silent, hash_of, mix_seed
from edgepkd.training.predict import weights_sha256
from edgepkd.training.recipe import TrainRecipe, augment_facts

TRUNK = "trunk"
"""Kind of a network whose trunk and last exit are trained."""
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile)
"""What a result raises, .npz or JSON, that is absent or damaged."""


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

    def path(self, name: str) -> Path:
        """Where a result of this part lies."""
        return self.folder / self.name / name

    def network_path(self, modality: Modality, kind: str = "") -> Path:
        """Where a network lies, without suffix: with all exits trained, or of another `kind`."""
        return self.path(f"{modality}-{kind}" if kind else modality)

    @property
    def logits_path(self) -> Path:
        """Where the logits of the `answer` clips lie, as `exits_job` writes them."""
        return self.path("logits.npz")

    def seed(self, *names: object) -> int:
        """A seed of its own for each network of a run, the same in every run."""
        return mix_seed(self.recipe.seed, self.name, *names)

    def keys(self, samples: Sequence[Sample]) -> list[str]:
        """Names of `samples` by content and decoding."""
        return [self.cache_spec.key(content_of(s), s.form) for s in samples]


def contents(samples: Sequence[Sample]) -> list[str]:
    """Names of `samples` by content."""
    return [content_of(sample) for sample in samples]


# ---- jobs


def backbone_job(part: Part, modality: Modality) -> str:
    """Train the trunk and last exit of one modality; returns a line that says how it went."""
    torch.set_num_threads(1)
    path, key = part.network_path(modality, TRUNK), trunk_key(part, modality)
    if holds_network(path, key):
        return f"{part.name} {modality}: kept from an earlier run"
    log = _Losses()
    network = train_backbone(
        load_clips(part, part.fit), spec=part.recipe.inputs[modality],
        recipe=part.recipe.backbones[modality], num_classes=len(part.labels),
        rule=part.recipe.clip.sampling, seed=part.seed(modality), log=log,
        augment=part.recipe.augment,
    )
    save_network(network, path, extra={"key": key, "loss_per_epoch": log.losses})
    return f"{part.name} {modality}: loss {log.losses[0]:.2f} to {log.losses[-1]:.2f}"


def exits_job(part: Part) -> str:
    """Train exits 1..3 of all three networks and answer the `answer` clips."""
    torch.set_num_threads(1)
    networks = load_networks(part, TRUNK)
    key = _exits_key(part, networks)
    if (all(holds_network(part.network_path(m), key) for m in MODALITIES)
            and part.logits_path.is_file()):
        return f"{part.name}: exits kept from an earlier run"
    inputs = ExitInputs.of(part, networks, load_clips(part, part.fit))
    answered = load_clips(part, part.answer)
    logits: dict[str, Any] = {}
    for modality, network in networks.items():
        train_exits(network, inputs.features[modality], inputs.labels,
                    recipe=part.recipe.exits_of(modality), seed=part.seed(modality))
        save_network(network, part.network_path(modality), extra={"key": key})
        logits[modality] = clip_logits(
            network, answered.clips, spec=part.recipe.inputs[modality]
        ).double().numpy()
    write_arrays(part.logits_path, {"labels": np.array(answered.labels), **logits})
    return f"{part.name}: exits trained, {len(answered)} clips answered"


class _Losses(Silent):
    """Keeps the loss of each epoch."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def row(self, *, epoch: int, **values: float | int | str) -> None:
        self.losses.append(round(float(values["loss"]), 4))


def trunk_key(part: Part, modality: Modality) -> str:
    """Hash of all that the trunk depends on."""
    return hash_of({
        "seed": part.seed(modality), "input": facts_of(part.recipe.inputs[modality]),
        "clip": facts_of(part.recipe.clip),
        "backbone": facts_of(part.recipe.backbones[modality]),
        "clips": part.keys(part.fit), "labels": part.labels,
        **augment_facts(part.recipe),
    })


def _exits_key(part: Part, networks: Networks) -> str:
    """Hash of all that the exits depend on, and the clips that they answer."""
    return hash_of({
        "trunks": {m: weights_sha256(network) for m, network in networks.items()},
        "exits": {m: facts_of(part.recipe.exits_of(m)) for m in MODALITIES},
        "plans": plan_facts(part.recipe),
        "clips": part.keys((*part.fit, *part.answer)),
    })


def plan_facts(recipe: TrainRecipe) -> list[dict[str, Any]]:
    """The views that exits are trained on, as plain values."""
    return [facts_of(view_plan(recipe, modality)) for modality in MODALITIES]


# ---- what jobs read and write


@dataclass(frozen=True, eq=False)
class ExitInputs:
    """All that exits 1..3 of a part's networks are trained with; made once, used by every head."""

    features: Mapping[Modality, CachedFeatures]
    labels: Tensor
    """Of the rows of `features`."""

    @staticmethod
    def of(part: Part, networks: Networks, fit: LabelledClips) -> ExitInputs:
        """What the trunks of `networks` say about the training views of `fit`."""
        views = {m: collect_views(networks[m], fit.clips, view_plan(part.recipe, m))
                 for m in MODALITIES}
        teachers = {m: views[m].logits for m in MODALITIES}
        return ExitInputs({m: CachedFeatures(views[m], teachers) for m in MODALITIES},
                       label_rows(fit, num_views=part.recipe.exits.num_views))


def load_clips(part: Part, samples: Sequence[Sample]) -> LabelledClips:
    """Decoded `samples` with their label indices."""
    return LabelledClips(
        clips=[cached_clip(s, spec=part.cache_spec, folder=part.cache) for s in samples],
        labels=[part.labels.index(s.label) for s in samples],
    )


def load_networks(part: Part, kind: str = "") -> dict[Modality, SegmentedNetwork]:
    """The three networks of a part, in FP32.

    Raises:
        ModelError: as `load_network`.
    """
    return {m: load_network(part.network_path(m, kind))[0] for m in MODALITIES}


def holds_network(path: Path, key: str) -> bool:
    """Whether a network, float or INT8, lies at `path` that was made with the settings that `key`
    is the hash of.
    """
    try:
        extra = read_network_file(path)[0].get("extra")
    except ModelError:
        return False
    return isinstance(extra, dict) and extra.get("key") == key


def holds_arrays(path: Path, key: str) -> bool:
    """Whether `path` holds arrays of `write_arrays` of which "key" is `key`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return str(file["key"]) == key
    except UNREADABLE:
        return False


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an .npz file, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
