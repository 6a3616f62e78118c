"""One network to INT8: ranges from calibration clips (PTQ), then training on (QAT, QAD).

Joins the rooms `quantize`, which knows no data, and `training`, which knows no quantisers.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from torch import nn

from edgepkd.config import MODALITIES, InputSpec, Modality, check, facts_of
from edgepkd.errors import DataError
from edgepkd.models.segmented import Networks, SegmentedNetwork
from edgepkd.quantize.network import quantize_network
from edgepkd.quantize.sensitivity import LayerSensitivity, measure_sensitivity, worth_float
from edgepkd.quantize.spec import AUTO, QuantSpec
from edgepkd.recipes import load_recipe
from edgepkd.training.cache import ClipArrays
from edgepkd.training.execution import Execution
from edgepkd.training.exits import ViewPlan, view_plan
from edgepkd.training.finetune import (
    Judged,
    Taught,
    finetune,
    judged,
    teachers_needed,
    view_logits,
    views_needed,
)
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import Checkpoint, Log
from edgepkd.training.recipe import FinetuneRecipe, TrainRecipe
from edgepkd.training.tables import refuse_unknown, typed_table, with_changes
from edgepkd.training.views import test_view

QuantMethod = Literal["ptq", "qat", "qad"]
METHODS: tuple[QuantMethod, ...] = get_args(QuantMethod)
SENSITIVITY_CLIPS = 4
"""Calibration clips whose frames tell layers apart; a forward pass a layer."""


@dataclass(frozen=True, kw_only=True)
class Int8Recipe:
    """How a float run becomes an INT8 one."""

    purpose: str
    quantizer: QuantSpec
    finetune: FinetuneRecipe
    calibration_clips: int = 64
    """Training clips whose activations set the ranges; all, where there are fewer."""
    min_clips: int = 16
    """Fewer than so many are refused: their ranges are chance."""

    def __post_init__(self) -> None:
        for name in ("calibration_clips", "min_clips"):
            check(getattr(self, name) >= 1, name, got=getattr(self, name), allowed="1 or more")

    def finetune_of(self, method: QuantMethod) -> FinetuneRecipe:
        """Steps of QAT or QAD."""
        return self.finetune.as_qat() if method == "qat" else self.finetune

    def facts(self, method: QuantMethod) -> dict[str, Any]:
        """What this recipe says about a network quantised by `method`, as plain values."""
        facts = {"method": method, "quantizer": facts_of(self.quantizer),
                 "calibration_clips": self.calibration_clips}
        return facts if method == "ptq" else {
            **facts, "finetune": facts_of(self.finetune_of(method))}


def load_int8_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Int8Recipe:
    """Recipe `name` of `calibration/`, or the TOML file of that path.

    `changes` replace single values: {"finetune.epochs": 10}.

    Raises:
        ConfigError: no such recipe, an unknown or missing key, or a value out of its range.
    """
    return int8_recipe_of(with_changes(load_recipe("calibration", name), changes or {}, where=name),
                          where=name)


def int8_recipe_of(values: Mapping[str, Any], *, where: str) -> Int8Recipe:
    """A recipe from plain values, as in TOML or JSON.

    Raises:
        ConfigError: as `load_int8_recipe`.
    """
    refuse_unknown(values, Int8Recipe, where=where)
    quantizer = values.get("quantizer", {})
    if isinstance(quantizer, Mapping) and quantizer.get("keep_float") == AUTO:
        quantizer = {**quantizer, "keep_float": [AUTO]}
    return typed_table(Int8Recipe, {
        **values,
        "quantizer": typed_table(QuantSpec, quantizer, where=f"{where}: quantizer"),
        "finetune": typed_table(FinetuneRecipe, values.get("finetune", {}),
                                where=f"{where}: finetune"),
    }, where=where)


# ---- clips


def calibration_rows(
    count: int, recipe: Int8Recipe, *, seed: int, force: bool = False
) -> list[int]:
    """Which of `count` training clips set the ranges, in rising order.

    Raises:
        DataError: there are too few, and `force` is false.
    """
    if count < recipe.min_clips and not force:
        raise DataError(f"{count} clips to calibrate on; allowed: {recipe.min_clips} or more.",
                        hint="Add training clips, or pass --force-few: ranges are then chance.")
    chosen = np.random.default_rng(seed).permutation(count)[: recipe.calibration_clips]
    return sorted(int(row) for row in chosen)


def spare_rows(count: int, ranges: Sequence[int], recipe: Int8Recipe) -> list[int]:
    """Which of `count` training clips judge a network where there are no calibration clips.

    Those that set no range, up to `calibration_clips`; all, where there are no others.
    """
    others = sorted(set(range(count)) - set(ranges)) or list(range(count))
    return others[: recipe.calibration_clips]


def spare_judge(
    network: SegmentedNetwork, fit: LabelledClips, ranges: Sequence[int], *, spec: InputSpec,
    recipe: Int8Recipe,
) -> Judged:
    """The `spare_rows` of clips `fit`, of which rows `ranges` set the ranges, as a judge."""
    rows = spare_rows(len(fit), ranges, recipe)
    spare = LabelledClips([fit.clips[row] for row in rows], [fit.labels[row] for row in rows])
    return judged(network, spare, spec)


def hash_of_clips(keys: Sequence[str]) -> str:
    """SHA-256 of the clips, by content and decoding, that set the ranges."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()


def finetune_plans(
    recipe: TrainRecipe, modalities: Sequence[Modality] = MODALITIES
) -> dict[Modality, ViewPlan]:
    """Views to train on: other ones than those that the exits of `recipe` were trained on."""
    plans = {modality: view_plan(recipe, modality) for modality in modalities}
    return {modality: replace(plan, seed=plan.seed + 1) for modality, plan in plans.items()}


@dataclass(frozen=True, eq=False)
class Int8Clips:
    """Clips that a network is quantised with."""

    ranges: Sequence[ClipArrays]
    """Their test views set the ranges."""
    train: LabelledClips
    """QAT and QAD train on them; PTQ does not look at them."""
    plans: Mapping[Modality, ViewPlan]
    """Views of the network, and of its teachers."""


# ---- one network


def to_int8(
    method: QuantMethod, networks: Networks, clips: Int8Clips, *, modality: Modality,
    recipe: Int8Recipe, trunk_rate: float, seed: int, ranged: SegmentedNetwork | None = None,
    judge: Judged | None = None, execution: Execution | None = None,
    log: Log | None = None, checkpoint: Checkpoint | None = None,
) -> SegmentedNetwork:
    """PTQ, QAT or QAD of the network of `modality`: an INT8 copy of it.

    `networks` are in FP32, that of `modality` and its teachers; they stay as they are. `trunk_rate`
    is the rate that the trunk was trained at. `ranged` is what PTQ of this network gave, where it
    is known already; it stays as it is, too. The rest is for `training.finetune.finetune`, and for
    QAT and QAD alone. After PTQ the copy is on the device of `networks`, after training on the CPU.

    Raises:
        as `quantize.network.quantize_network` and `training.finetune.finetune`.
    """
    if ranged is None:
        ranged = _with_ranges(networks[modality], clips.ranges, spec=clips.plans[modality].spec,
                              recipe=recipe)
    student = copy.deepcopy(ranged)
    if method == "ptq":
        return student
    steps = recipe.finetune_of(method).for_clips(len(clips.train))
    finetune(student, clips.train, clips.plans[modality], recipe=steps, trunk_rate=trunk_rate,
             seed=seed, taught=_teach(networks, clips, modality=modality, recipe=steps),
             judge=judge, execution=execution, log=log, checkpoint=checkpoint)
    return student


def _with_ranges(
    network: SegmentedNetwork, clips: Sequence[ClipArrays], *, spec: InputSpec, recipe: Int8Recipe
) -> SegmentedNetwork:
    """A quantised copy of `network` whose ranges come from the test views of `clips`."""

    def calibrate(quantized: nn.Module) -> None:
        device = next(quantized.parameters()).device
        for clip in clips:
            quantized(test_view(clip, spec).to(device))

    quantizer = recipe.quantizer
    quantized = quantize_network(network, spec=quantizer, calibrate=calibrate)
    if quantizer.is_auto:
        layers = sensitivity(quantized, network, clips, spec=spec, recipe=recipe)
        if found := worth_float(layers):
            quantized = quantize_network(
                network, spec=quantizer.of(network.spec.modality, found=found),
                calibrate=calibrate)
    return quantized


def sensitivity(
    quantized: SegmentedNetwork, network: SegmentedNetwork, clips: Sequence[ClipArrays], *,
    spec: InputSpec, recipe: Int8Recipe,
) -> tuple[LayerSensitivity, ...]:
    """What each layer of `quantized`, made from `network` by PTQ, loses on the first few clips."""
    views = [test_view(clip, spec) for clip in clips[:SENSITIVITY_CLIPS]]
    return measure_sensitivity(quantized, views,
                               network=network if recipe.quantizer.bias_correction else None)


def _teach(
    networks: Networks, clips: Int8Clips, *, modality: Modality, recipe: FinetuneRecipe
) -> Taught:
    """What the FP32 networks say about the views that the network of `modality` is trained on."""
    if not recipe.distils:
        return {}
    return {m: view_logits(networks[m], clips.train.clips, clips.plans[m],
                           num_views=views_needed(clips.plans[modality], recipe))
            for m in teachers_needed(modality, recipe)}
