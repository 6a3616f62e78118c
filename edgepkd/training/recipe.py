"""Settings of a training run, as read from a TOML recipe in `calibration/`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args

from edgepkd.config import (
    LATER,
    MODALITIES,
    ClipSpec,
    DecodeSpec,
    InputSpec,
    Modality,
    check,
    facts_of,
)
from edgepkd.errors import ConfigError
from edgepkd.logits.fit import WiseRecipe
from edgepkd.recipes import load_recipe
from edgepkd.training.tables import (
    plain_table,
    refuse_unknown,
    typed_table,
    with_changes,
    with_length,
)

Scheme = Literal["pkd", "anticurriculum", "iframe", "ce"]
LastTeacher = Literal["own", "iframe"]
Optimizer = Literal["adamw", "adam", "sgd"]
Decline = Literal["cosine", "steps"]
Selection = Literal["last", "best", "auto"]
ClassWeights = Literal["none", "balanced", "auto"]
Backbone = Literal["resnet18", "resnet50", "efficientnet_lite0"]

_Optimizing = TypeVar("_Optimizing", bound="OptimizerRecipe")


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """How weights move: optimiser, learning rate over time, and which epoch is kept."""

    epochs: int
    """0: as many as `steps` make; see `for_clips`. In a file one of the two is given."""
    learning_rate: float
    """Of the trunk (of the head, for internal classifiers), at the peak of the schedule."""
    optimizer: Optimizer = "adamw"
    epsilon: float = 1e-8
    """Of Adam."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 0.05
    """Of adamw: apart from the gradient. Of adam and sgd: an L2 term in it, as in the reference."""
    decay_biases: bool = True
    """False: biases and BatchNorm have no weight decay."""
    decline: Decline = "cosine"
    """Of the learning rate: half a cosine to zero, or times `step_factor` at `step_epochs`."""
    step_epochs: tuple[int, ...] = ()
    step_factor: float = 0.1
    warmup_share: float = 0.0
    """Share of all steps in which the learning rate rises."""
    select: Selection = "last"
    """'best': the epoch with the lowest loss on the calibration split, never on the test split;
    'auto': that where there are calibration clips enough (`loop.settle_selection`), else 'last'."""
    patience: float = field(default=0.0, metadata=LATER)
    """Of 'best': training stops when the loss has not fallen for this share of all steps; 0: it
    goes on to the end."""
    steps: int = field(default=0, metadata=LATER)
    """Optimiser steps in all, from which the epochs follow: the same work for few clips as for
    many."""
    min_epochs: int = field(default=1, metadata=LATER)
    """Where `steps` are given: every clip is seen so often, however many there are."""

    def __post_init__(self) -> None:
        check(self.steps >= 0, "steps", got=self.steps, allowed="1 or more")
        check(self.steps == 0 or self.epochs == 0, "epochs",
              got=f"{self.epochs}, and steps {self.steps}", allowed="one of the two")
        check(self.epochs >= (0 if self.steps else 1), "epochs", got=self.epochs,
              allowed="1 or more (or give steps)")
        check(self.min_epochs >= 1, "min_epochs", got=self.min_epochs, allowed="1 or more")
        check(list(self.step_epochs) == sorted(set(self.step_epochs)), "step_epochs",
              got=self.step_epochs, allowed="rising epoch numbers")
        check(self.steps == 0 or not self.step_epochs, "step_epochs", got=self.step_epochs,
              allowed="none where the length is given in steps")
        check(self.learning_rate > 0, "learning_rate", got=self.learning_rate, allowed="above 0")
        check(self.weight_decay >= 0, "weight_decay", got=self.weight_decay, allowed="0 or more")
        for name in ("warmup_share", "momentum", "patience"):
            check(0 <= getattr(self, name) < 1, name, got=getattr(self, name),
                  allowed="0 <= value < 1")
        for name in ("epsilon", "step_factor"):
            check(getattr(self, name) > 0, name, got=getattr(self, name), allowed="above 0")
        for name, kind in (("optimizer", Optimizer), ("decline", Decline), ("select", Selection)):
            check(getattr(self, name) in get_args(kind), name, got=getattr(self, name),
                  allowed=", ".join(get_args(kind)))

    @property
    def length(self) -> str:
        """How long it trains, in words: '60 epochs', '300 steps'."""
        return f"{self.steps} steps" if self.steps else f"{self.epochs} epochs"

    def in_epochs(self: _Optimizing, steps_per_epoch: int) -> _Optimizing:
        """The same recipe with its length in epochs: max(min_epochs, steps / steps_per_epoch)."""
        if not self.steps:
            return self
        epochs = max(self.min_epochs, math.ceil(self.steps / steps_per_epoch))
        return replace(self, epochs=epochs, steps=0)


@dataclass(frozen=True, kw_only=True)
class BackboneRecipe(OptimizerRecipe):
    """How the trunk and the last exit of one modality are trained."""

    backbone: Backbone
    width: float = 1.0
    imagenet: bool = False
    """Start from ImageNet weights (efficientnet_lite0 only)."""
    frozen_stages: int = 0
    """Leading stages that keep their initial weights and statistics."""
    frozen_batch_norm: bool = False
    """BatchNorm keeps its initial statistics in all stages (the input's `data_bn` does not)."""
    batch_norm_momentum: float = field(default=0.1, metadata=LATER)
    """Share of a batch in the running statistics of BatchNorm: less, where batches are small."""
    settle_batch_norm: bool = field(default=False, metadata=LATER)
    """After training, BatchNorm gets the mean of the statistics of all batches of an epoch: running
    ones lag behind short training and lean on the last few batches."""
    accumulate: int = field(default=1, metadata=LATER)
    """Batches whose gradients make one step of the optimiser."""
    head_multiplier: float = 1.0
    """Learning rate of the last classifier, in units of the trunk's."""
    stem_multiplier: float = 1.0
    """Learning rate of the first convolution, its BatchNorm and the input's."""
    train_segments: int = 3
    batch_clips: int = 4
    label_smoothing: float = 0.1
    dropout: float = 0.3
    warmup_share: float = 0.1
    """Share of all steps in which the learning rate rises."""
    class_weights: ClassWeights = field(default="none", metadata=LATER)
    """'balanced': the labels' loss of a clip times n / (K * n_c), for n clips, n_c of its class and
    K classes; 'auto': that where a class has more than twice the clips of another."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_segments", "batch_clips", "accumulate"):
            check(getattr(self, name) >= 1, name, got=getattr(self, name), allowed="1 or more")
        for name in ("head_multiplier", "stem_multiplier"):
            check(getattr(self, name) > 0, name, got=getattr(self, name), allowed="above 0")
        for name in ("label_smoothing", "dropout"):
            check(0 <= getattr(self, name) < 1, name, got=getattr(self, name),
                  allowed="0 <= value < 1")
        check(0 < self.batch_norm_momentum <= 1, "batch_norm_momentum",
              got=self.batch_norm_momentum, allowed="0 < value <= 1")
        check(0 <= self.frozen_stages <= 4, "frozen_stages", got=self.frozen_stages,
              allowed="0..4")
        _check_class_weights(self.class_weights)
        check(self.backbone in get_args(Backbone), "backbone", got=self.backbone,
              allowed=", ".join(get_args(Backbone)))
        check(not self.imagenet or self.backbone == "efficientnet_lite0", "imagenet",
              got=f"true for {self.backbone}", allowed="true only for efficientnet_lite0")

    def for_clips(self, count: int) -> BackboneRecipe:
        """The same recipe with its length in epochs, for `count` training clips."""
        return self.in_epochs(self.steps_per_epoch(count))

    def steps_per_epoch(self, count: int) -> int:
        """Steps of the optimiser in one pass over `count` clips."""
        return math.ceil(max(1, count // self.batch_clips) / self.accumulate)


@dataclass(frozen=True, kw_only=True)
class ExitRecipe(OptimizerRecipe):
    """How the internal classifiers are trained on frozen trunks."""

    scheme: Scheme = "pkd"
    last_teacher: LastTeacher = "own"
    """Of PKD: the student's own exit 4 (the reference code) or the I-frame network (the abstract;
    paper.md 3.2)."""
    epochs: int = 60
    learning_rate: float = 1e-3
    batch_views: int = 64
    num_views: int = 8
    """Random views of each clip whose pooled features are kept."""
    temperature: float = 1.0
    label_share: float = 0.0
    """Share of the hard labels in the loss."""
    teacher_temperature: float | None = field(default=None, metadata=LATER)
    """Of the teacher's logits; None: `temperature`, which else is that of the student's alone."""
    class_weights: ClassWeights = field(default="none", metadata=LATER)
    """'balanced': the labels' loss of a clip times n / (K * n_c), for n clips, n_c of its class and
    K classes; 'auto': that where a class has more than twice the clips of another."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_teaching(self)
        _check_class_weights(self.class_weights)
        for name in ("batch_views", "num_views"):
            check(getattr(self, name) >= 1, name, got=getattr(self, name), allowed="1 or more")

    def for_clips(self, count: int) -> ExitRecipe:
        """The same recipe with its length in epochs, for `count` training clips."""
        return self.for_rows(count * self.num_views)

    def for_rows(self, count: int) -> ExitRecipe:
        """As `for_clips`, for `count` views of all clips."""
        return self.in_epochs(max(1, math.ceil(count / self.batch_views)))


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe(OptimizerRecipe):
    """How a quantised network is trained on: with the distillation loss (QAD) or labels (QAT)."""

    scheme: Scheme = "pkd"
    """Who teaches exits 1..3, as in `ExitRecipe`; 'ce' is QAT: labels at every exit."""
    last_teacher: LastTeacher = "own"
    self_share: float = 0.5
    """Share of the loss in which every exit's teacher is the same exit of the FP32 network."""
    label_share: float = 0.0
    """Share of the hard labels in what is left."""
    temperature: float = 1.0
    teacher_temperature: float | None = field(default=None, metadata=LATER)
    """Of the teacher's logits; None: `temperature`, which else is that of the student's alone."""
    epochs: int = 3
    """One view of each clip an epoch."""
    learning_rate: float = 0.05
    """Here in units of the rate that the trunk was trained at (`BackboneRecipe.learning_rate`)."""
    optimizer: Optimizer = "adam"
    weight_decay: float = 0.0
    batch_clips: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_teaching(self)
        check(0 <= self.self_share <= 1, "self_share", got=self.self_share, allowed="0..1")
        check(self.batch_clips >= 1, "batch_clips", got=self.batch_clips, allowed="1 or more")

    @property
    def distils(self) -> bool:
        """Whether any network teaches."""
        return self.scheme != "ce" or self.self_share > 0

    def as_qat(self) -> FinetuneRecipe:
        """The same steps with the labels' cross-entropy at every exit, and no teacher."""
        return replace(self, scheme="ce", self_share=0.0)

    def for_clips(self, count: int) -> FinetuneRecipe:
        """The same recipe with its length in epochs, for `count` training clips."""
        return self.in_epochs(max(1, count // self.batch_clips))


def _check_teaching(recipe: ExitRecipe | FinetuneRecipe) -> None:
    """Who teaches, and what share of the loss the labels have."""
    check(recipe.scheme in get_args(Scheme), "scheme", got=recipe.scheme,
          allowed=", ".join(get_args(Scheme)))
    check(recipe.last_teacher in get_args(LastTeacher), "last_teacher", got=recipe.last_teacher,
          allowed=", ".join(get_args(LastTeacher)))
    check(0 <= recipe.label_share <= 1, "label_share", got=recipe.label_share, allowed="0..1")
    for name in ("temperature", "teacher_temperature"):
        got = getattr(recipe, name)
        check(got is None or got > 0, name, got=got, allowed="above 0")


def _check_class_weights(got: str) -> None:
    check(got in get_args(ClassWeights), "class_weights", got=got,
          allowed=", ".join(get_args(ClassWeights)))


@dataclass(frozen=True, kw_only=True)
class AugmentRecipe:
    """What random views change besides crop and frames; see `training.augment`.

    Strengths of 0 change nothing. One draw holds for a whole view, in all networks.
    """

    flip: bool = True
    """Half of the views are mirrored; wrong where labels tell left from right."""
    gamma: float = 0.0
    """I-frames: values to the power of exp(u), u uniform in -gamma..gamma."""
    contrast: float = 0.0
    """I-frames and residuals: distance from the mean (from 0) times exp(u)."""
    brightness: float = 0.0
    """I-frames: up to this share of the range is added or taken."""
    color: float = 0.0
    """I-frames: each of red, green and blue times exp(u)."""
    grayscale: float = 0.0
    """I-frames: share of views without colours."""

    def __post_init__(self) -> None:
        for name in ("gamma", "contrast", "brightness", "color", "grayscale"):
            check(0 <= getattr(self, name) <= 1, name, got=getattr(self, name), allowed="0..1")


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Three networks and a cascade from one data set."""

    name: str
    purpose: str
    seed: int
    default_order: tuple[Modality, ...]
    clip: ClipSpec
    inputs: Mapping[Modality, InputSpec]
    backbones: Mapping[Modality, BackboneRecipe]
    exits: ExitRecipe
    wise: WiseRecipe
    exit_changes: Mapping[Modality, Mapping[str, Any]] = field(
        default_factory=dict, metadata={"table": ExitRecipe})
    """What `exits` of single networks have otherwise, such as the learning rate."""
    index: str = "index.csv"
    """Index file, relative to the data folder."""
    dataset: str = ""
    """Its rows with this value in column `dataset`; empty: all."""
    num_folds: int = 3
    """Cross-fitting: each fold of groups is answered by networks that never saw it."""
    terms: str = ""
    """Licence and terms of the data, for the model card."""
    choose_stack: bool = field(default=False, metadata=LATER)
    """`train backbone` finds out on held-out groups whether `inputs.mv.stack` is better."""
    augment: AugmentRecipe = field(default=AugmentRecipe(), metadata=LATER)
    """Of the views that trunks, exits and quantised networks are trained on."""

    def __post_init__(self) -> None:
        for name in ("inputs", "backbones"):
            got = set(getattr(self, name))
            check(got == set(MODALITIES), name, got=sorted(got), allowed=", ".join(MODALITIES))
        check(self.num_folds >= 2, "num_folds", got=self.num_folds, allowed="2 or more")
        for modality, spec in self.inputs.items():
            _check_stack(spec, train_segments=self.backbones[modality].train_segments)
        for modality in self.exit_changes:
            self.exits_of(modality)

    def exits_of(self, modality: Modality) -> ExitRecipe:
        """How the exits of one network are trained.

        Raises:
            ConfigError: `exit_changes` has an unknown network or key, or a value out of its range.
        """
        check(set(self.exit_changes) <= set(MODALITIES), "exit_changes",
              got=sorted(self.exit_changes), allowed=", ".join(MODALITIES))
        where = f"{self.name}: exit_changes.{modality}"
        changes = plain_table(self.exit_changes.get(modality, {}), where=where)
        return typed_table(ExitRecipe, with_length({**asdict(self.exits), **changes}, changes),
                           where=where)

    @property
    def decode(self) -> DecodeSpec:
        """Decoding that goes with the clips."""
        return DecodeSpec(gop_frames=self.clip.gop_frames)


def _check_stack(spec: InputSpec, *, train_segments: int) -> None:
    if spec.stack and train_segments != spec.num_segments:
        raise ConfigError(
            f"backbones.{spec.modality}.train_segments is {train_segments}; allowed:"
            f" {spec.num_segments}, because inputs.{spec.modality}.stack shows the network all"
            " temporal segments at once.",
            hint=f"Add --set backbones.{spec.modality}.train_segments={spec.num_segments}")
def augment_facts(recipe: TrainRecipe) -> dict[str, Any]:
    """What hashes of trunks say of the augmentation: nothing if there is only the flip."""
    facts = facts_of(recipe)
    return {"augment": facts["augment"]} if "augment" in facts else {}


def load_train_recipe(name: str, changes: Mapping[str, Any] | None = None) -> TrainRecipe:
    """Recipe `name` of `calibration/`, or the TOML file of that path.

    `changes` replace single values: {"backbones.mv.epochs": 10}.

    Raises:
        ConfigError: no such recipe, an unknown or missing key, or a value out of its range.
    """
    return _recipe_with(load_recipe("calibration", name), changes or {}, where=name)


def changed_recipe(recipe: TrainRecipe, changes: Mapping[str, Any]) -> TrainRecipe:
    """`recipe` with single values replaced, as in `load_train_recipe`.

    Raises:
        ConfigError: an unknown key, or a value out of its range.
    """
    return _recipe_with(asdict(recipe), changes, where=recipe.name)


def _recipe_with(values: dict[str, Any], changes: Mapping[str, Any], *, where: str) -> TrainRecipe:
    return recipe_of(with_changes(values, changes, where=where), where=where)


def recipe_of(values: Mapping[str, Any], *, where: str) -> TrainRecipe:
    """A recipe from plain values, as in TOML or in a run's run.json.

    Raises:
        ConfigError: an unknown or missing key, or a value out of its range; names `where`.
    """
    refuse_unknown(values, TrainRecipe, where=where)
    return typed_table(TrainRecipe, {
        **plain_table(values, where=where),
        "augment": typed_table(AugmentRecipe, values.get("augment", {}),
                               where=f"{where}: augment"),
        "clip": typed_table(ClipSpec, values.get("clip", {}), where=f"{where}: clip"),
        "inputs": _section(values, "inputs", InputSpec, where=where, modality=True),
        "backbones": _section(values, "backbones", BackboneRecipe, where=where),
        "exits": typed_table(ExitRecipe, values.get("exits", {}), where=f"{where}: exits"),
        "wise": typed_table(WiseRecipe, values.get("wise", {}), where=f"{where}: wise"),
    }, where=where)


def _section(
    values: Mapping[str, Any], key: str, cls: type[Any], *, where: str, modality: bool = False
) -> dict[str, Any]:
    """Table `key` of the recipe, one `cls` a modality."""
    return {
        name: typed_table(cls, {**({"modality": name} if modality else {}),
                                **plain_table(settings, where=f"{where}: {key}.{name}")},
                          where=f"{where}: {key}.{name}")
        for name, settings in plain_table(values.get(key, {}), where=f"{where}: {key}").items()
    }
