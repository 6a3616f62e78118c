"""Settings of a training run, as read from a TOML recipe in `calibration/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from edgepkd.config import (
    MODALITIES,
    ClipSpec,
    DecodeSpec,
    InputSpec,
    Modality,
    check,
    from_mapping,
)
from edgepkd.logits.fit import WiseRecipe
from edgepkd.recipes import load_recipe

Scheme = Literal["pkd", "anticurriculum", "iframe", "ce"]
LastTeacher = Literal["own", "iframe"]
Optimizer = Literal["adamw", "adam", "sgd"]
Decline = Literal["cosine", "steps"]
Selection = Literal["last", "best"]
Backbone = Literal["resnet18", "resnet50", "efficientnet_lite0"]

_T = TypeVar("_T")
_KINDS: dict[Any, tuple[type | tuple[type, ...], str]] = {
    int: (int, "a whole number"), float: ((int, float), "a number"), bool: (bool, "true, false"),
    str: (str, "text"), tuple: ((list, tuple), "a list of such values"),
    Mapping: (Mapping, "a table of keys and values"),
}
"""What values of a field may be, and how an error calls them."""


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """How weights move: optimiser, learning rate over time, and which epoch is kept."""

    epochs: int
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
    """'best': the epoch with the lowest loss on the calibration split, never on the test split."""

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "epochs", got=self.epochs, allowed="1 or more")
        check(self.learning_rate > 0, "learning_rate", got=self.learning_rate, allowed="above 0")
        check(self.weight_decay >= 0, "weight_decay", got=self.weight_decay, allowed="0 or more")
        for name in ("warmup_share", "momentum"):
            check(0 <= getattr(self, name) < 1, name, got=getattr(self, name),
                  allowed="0 <= value < 1")
        for name in ("epsilon", "step_factor"):
            check(getattr(self, name) > 0, name, got=getattr(self, name), allowed="above 0")
        for name, kind in (("optimizer", Optimizer), ("decline", Decline), ("select", Selection)):
            check(getattr(self, name) in get_args(kind), name, got=getattr(self, name),
                  allowed=", ".join(get_args(kind)))
        check(list(self.step_epochs) == sorted(set(self.step_epochs)), "step_epochs",
              got=self.step_epochs, allowed="rising epoch numbers")


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

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_segments", "batch_clips"):
            check(getattr(self, name) >= 1, name, got=getattr(self, name), allowed="1 or more")
        for name in ("head_multiplier", "stem_multiplier"):
            check(getattr(self, name) > 0, name, got=getattr(self, name), allowed="above 0")
        for name in ("label_smoothing", "dropout"):
            check(0 <= getattr(self, name) < 1, name, got=getattr(self, name),
                  allowed="0 <= value < 1")
        check(0 <= self.frozen_stages <= 4, "frozen_stages", got=self.frozen_stages,
              allowed="0..4")
        check(self.backbone in get_args(Backbone), "backbone", got=self.backbone,
              allowed=", ".join(get_args(Backbone)))
        check(not self.imagenet or self.backbone == "efficientnet_lite0", "imagenet",
              got=f"true for {self.backbone}", allowed="true only for efficientnet_lite0")


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

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_teaching(self)
        for name in ("batch_views", "num_views"):
            check(getattr(self, name) >= 1, name, got=getattr(self, name), allowed="1 or more")


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


def _check_teaching(recipe: ExitRecipe | FinetuneRecipe) -> None:
    """Who teaches, and what share of the loss the labels have."""
    check(recipe.scheme in get_args(Scheme), "scheme", got=recipe.scheme,
          allowed=", ".join(get_args(Scheme)))
    check(recipe.last_teacher in get_args(LastTeacher), "last_teacher", got=recipe.last_teacher,
          allowed=", ".join(get_args(LastTeacher)))
    check(0 <= recipe.label_share <= 1, "label_share", got=recipe.label_share, allowed="0..1")
    check(recipe.temperature > 0, "temperature", got=recipe.temperature, allowed="above 0")


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
    exit_changes: Mapping[Modality, Mapping[str, Any]] = field(default_factory=dict)
    """What `exits` of single networks have otherwise, such as the learning rate."""
    index: str = "index.csv"
    """Index file, relative to the data folder."""
    dataset: str = ""
    """Its rows with this value in column `dataset`; empty: all."""
    num_folds: int = 3
    """Cross-fitting: each fold of groups is answered by networks that never saw it."""
    terms: str = ""
    """Licence and terms of the data, for the model card."""

    def __post_init__(self) -> None:
        for name in ("inputs", "backbones"):
            got = set(getattr(self, name))
            check(got == set(MODALITIES), name, got=sorted(got), allowed=", ".join(MODALITIES))
        check(self.num_folds >= 2, "num_folds", got=self.num_folds, allowed="2 or more")
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
        changes = _table(self.exit_changes.get(modality, {}), where=where)
        return typed_table(ExitRecipe, {**asdict(self.exits), **changes}, where=where)

    @property
    def decode(self) -> DecodeSpec:
        """Decoding that goes with the clips."""
        return DecodeSpec(gop_frames=self.clip.gop_frames)


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


def with_changes(
    values: dict[str, Any], changes: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    """`values` of a recipe with single ones replaced: {"backbones.mv.epochs": 10}.

    Raises:
        ConfigError: a key below a plain value.
    """
    for path, value in changes.items():
        *tables, key = path.split(".")
        table = values
        for part in tables:
            table = table.setdefault(part, {})
            check(isinstance(table, dict), f"{where}: {path}", got="a key of a plain value",
                  allowed="a key of the recipe, such as backbones.mv.epochs")
        table[key] = value
    return values


def recipe_of(values: Mapping[str, Any], *, where: str) -> TrainRecipe:
    """A recipe from plain values, as in TOML or in a run's run.json.

    Raises:
        ConfigError: an unknown or missing key, or a value out of its range; names `where`.
    """
    return typed_table(TrainRecipe, {
        **_table(values, where=where),
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
                                **_table(settings, where=f"{where}: {key}.{name}")},
                          where=f"{where}: {key}.{name}")
        for name, settings in _table(values.get(key, {}), where=f"{where}: {key}").items()
    }


def _table(value: Any, *, where: str) -> Mapping[str, Any]:
    check(isinstance(value, Mapping), where, got=value, allowed="a table of keys and values")
    return dict(value)


def typed_table(cls: type[_T], values: Any, *, where: str) -> _T:
    """Dataclass `cls` from a table, whose values have the types of its fields."""
    hints = get_type_hints(cls)
    for key, value in _table(values, where=where).items():
        hint = hints.get(key)
        kind = get_origin(hint) or hint
        if kind not in _KINDS:
            continue
        fits = _fits(value, kind)
        if kind is tuple and fits and get_args(hint)[0] in _KINDS:
            fits = all(_fits(item, get_args(hint)[0]) for item in value)
        check(fits, f"{where}: {key}", got=value, allowed=_KINDS[kind][1])
    return from_mapping(cls, values, where=where)


def _fits(value: object, kind: Any) -> bool:
    return isinstance(value, _KINDS[kind][0]) and (kind is bool or not isinstance(value, bool))
