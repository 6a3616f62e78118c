"""Settings of a training run, as read from a TOML recipe in `calibration/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edgepkd.config import (
    MODALITIES,
    ClipSpec,
    DecodeSpec,
    InputSpec,
    Modality,
    check,
    from_mapping,
)
from edgepkd.recipes import load_recipe

Scheme = Literal["pkd", "pkd_iframe", "anticurriculum", "iframe", "ce"]
Backbone = Literal["resnet18", "resnet50", "efficientnet_lite0"]


@dataclass(frozen=True)
class BackboneRecipe:
    """How the trunk and the last exit of one modality are trained."""

    backbone: Backbone
    epochs: int
    learning_rate: float
    """Of the trunk, at the peak of the schedule."""
    width: float = 1.0
    imagenet: bool = False
    """Start from ImageNet weights (efficientnet_lite0 only)."""
    frozen_stages: int = 0
    """Leading stages that keep their initial weights and statistics."""
    frozen_batch_norm: bool = False
    """BatchNorm keeps its initial statistics in all stages (the input's `data_bn` does not)."""
    head_multiplier: float = 1.0
    """Learning rate of the last classifier, in units of the trunk's."""
    train_segments: int = 3
    batch_clips: int = 4
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    dropout: float = 0.3
    warmup_share: float = 0.1
    """Share of all steps in which the learning rate rises."""

    def __post_init__(self) -> None:
        for name in ("epochs", "train_segments", "batch_clips"):
            check(getattr(self, name) >= 1, name, got=getattr(self, name), allowed="1 or more")
        check(self.learning_rate > 0, "learning_rate", got=self.learning_rate, allowed="above 0")
        check(0 <= self.frozen_stages <= 4, "frozen_stages", got=self.frozen_stages,
              allowed="0..4")
        check(self.backbone in get_args(Backbone), "backbone", got=self.backbone,
              allowed=", ".join(get_args(Backbone)))
        check(not self.imagenet or self.backbone == "efficientnet_lite0", "imagenet",
              got=f"true for {self.backbone}", allowed="true only for efficientnet_lite0")


@dataclass(frozen=True)
class ExitRecipe:
    """How the internal classifiers are trained on frozen trunks."""

    scheme: Scheme = "pkd"
    epochs: int = 60
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    batch_views: int = 64
    num_views: int = 8
    """Random views of each clip whose pooled features are kept."""
    temperature: float = 1.0
    label_share: float = 0.0
    """Share of the hard labels in the loss."""

    def __post_init__(self) -> None:
        check(self.scheme in get_args(Scheme), "scheme", got=self.scheme,
              allowed=", ".join(get_args(Scheme)))
        for name in ("epochs", "batch_views", "num_views"):
            check(getattr(self, name) >= 1, name, got=getattr(self, name), allowed="1 or more")
        check(0 <= self.label_share <= 1, "label_share", got=self.label_share, allowed="0..1")
        check(self.temperature > 0, "temperature", got=self.temperature, allowed="above 0")


@dataclass(frozen=True)
class WiseRecipe:
    """How WISE weights and the exit policy are fitted on held-out logits."""

    l2: float = 0.01
    """Pull of the WISE weights towards zero, which spreads them over exits that agree."""
    accuracy_loss: float = 0.01
    """What the policy may lose on the held-out clips against the full chain, 0.01 = 1 point."""
    min_confidence: float = 0.8
    """No threshold is lower."""
    safety_clips: int = 2
    """Clips that an exit gives back when it meets the limit of `accuracy_loss`."""

    def __post_init__(self) -> None:
        check(self.l2 >= 0, "l2", got=self.l2, allowed="0 or more")
        check(0 <= self.accuracy_loss < 1, "accuracy_loss", got=self.accuracy_loss,
              allowed="0 up to, not with, 1")
        check(0 <= self.min_confidence < 1, "min_confidence", got=self.min_confidence,
              allowed="0 up to, not with, 1")
        check(self.safety_clips >= 0, "safety_clips", got=self.safety_clips, allowed="0 or more")


@dataclass(frozen=True)
class TrainRecipe:
    """One bundle from one data set."""

    name: str
    purpose: str
    index: str
    """Index file, relative to the data folder."""
    dataset: str
    """Its rows with this value in column `dataset`."""
    num_folds: int
    """Cross-fitting: each fold of groups is answered by networks that never saw it."""
    seed: int
    default_order: tuple[Modality, ...]
    clip: ClipSpec
    inputs: Mapping[Modality, InputSpec]
    backbones: Mapping[Modality, BackboneRecipe]
    exits: ExitRecipe
    wise: WiseRecipe
    terms: str
    """Licence and terms of the data, for the model card."""

    def __post_init__(self) -> None:
        for name in ("inputs", "backbones"):
            got = set(getattr(self, name))
            check(got == set(MODALITIES), name, got=sorted(got), allowed=", ".join(MODALITIES))
        check(self.num_folds >= 2, "num_folds", got=self.num_folds, allowed="2 or more")

    @property
    def decode(self) -> DecodeSpec:
        """Decoding that goes with the clips."""
        return DecodeSpec(gop_frames=self.clip.gop_frames)


def load_train_recipe(name: str) -> TrainRecipe:
    """Recipe `name` of `calibration/`, or the TOML file of that path.

    Raises:
        ConfigError: no such recipe, an unknown or missing key, or a value out of its range.
    """
    values = load_recipe("calibration", name)
    inputs = _section(values, "inputs", InputSpec, where=name, modality=True)
    return from_mapping(TrainRecipe, {
        **values,
        "clip": from_mapping(ClipSpec, values.get("clip", {}), where=f"{name}: clip"),
        "inputs": inputs,
        "backbones": _section(values, "backbones", BackboneRecipe, where=name),
        "exits": from_mapping(ExitRecipe, values.get("exits", {}), where=f"{name}: exits"),
        "wise": from_mapping(WiseRecipe, values.get("wise", {}), where=f"{name}: wise"),
    }, where=name)


def _section(
    values: Mapping[str, Any], key: str, cls: type[Any], *, where: str, modality: bool = False
) -> dict[str, Any]:
    """Table `key` of the recipe, one `cls` a modality."""
    return {
        name: from_mapping(cls, {**({"modality": name} if modality else {}), **settings},
                           where=f"{where}: {key}.{name}")
        for name, settings in values.get(key, {}).items()
    }
