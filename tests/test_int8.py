"""The INT8 recipe, calibration clips, and PTQ, QAT and QAD of a small network."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from edgepkd import int8
from edgepkd.config import MODALITIES, InputSpec, Modality
from edgepkd.errors import ConfigError, DataError
from edgepkd.int8 import (
    Int8Clips,
    Int8Recipe,
    QuantMethod,
    calibration_rows,
    finetune_plans,
    hash_of_clips,
    int8_recipe_of,
    load_int8_recipe,
    sensitivity,
    spare_rows,
    to_int8,
)
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.quantize.network import quantizers
from edgepkd.training.exits import ViewPlan, view_plan
from edgepkd.training.loader import LabelledClips
from edgepkd.training.recipe import load_train_recipe
from edgepkd.training.views import test_view as centre_view
from tests.models.networks import small_network
from tests.training.fake_clips import fake_clip

INPUTS = {m: InputSpec(m, num_segments=2, resize_px=40, crop_px=32) for m in MODALITIES}
PLANS = {m: ViewPlan(INPUTS[m], 4, 1, "gop", 0) for m in MODALITIES}


@pytest.fixture(scope="module")
def data() -> LabelledClips:
    return LabelledClips([fake_clip(seed=i) for i in range(4)], [0, 1, 0, 1])


@pytest.fixture(scope="module")
def networks() -> dict[Modality, SegmentedNetwork]:
    return {m: small_network(modality=m, num_classes=2) for m in MODALITIES}


@pytest.fixture(scope="module")
def recipe() -> Int8Recipe:
    return load_int8_recipe("int8", {"finetune.epochs": 2, "finetune.batch_clips": 4,
                                     "finetune.select": "last"})


@pytest.fixture(scope="module")
def clips(data: LabelledClips) -> Int8Clips:
    return Int8Clips(data.clips, data, PLANS)


@pytest.fixture(scope="module")
def quantized(
    networks: dict[Modality, SegmentedNetwork], clips: Int8Clips, recipe: Int8Recipe
) -> SegmentedNetwork:
    return quantize(networks, clips, recipe, "ptq")


def quantize(
    networks: dict[Modality, SegmentedNetwork], clips: Int8Clips, recipe: Int8Recipe,
    method: QuantMethod, *, modality: Modality = "mv", ranged: SegmentedNetwork | None = None,
) -> SegmentedNetwork:
    return to_int8(method, networks, clips, modality=modality, recipe=recipe, trunk_rate=1e-2,
                   seed=0, ranged=ranged)


# ---- recipe


def test_the_shipped_recipe_survives_being_written() -> None:
    recipe = load_int8_recipe("int8")
    assert (recipe.quantizer.calibrator, recipe.quantizer.weight_bits) == ("max", 7)
    assert recipe.quantizer.bias_correction
    assert (recipe.finetune.scheme, recipe.finetune.select) == ("pkd", "best")
    assert int8_recipe_of(asdict(recipe), where="x") == recipe


def test_single_values_can_be_changed() -> None:
    recipe = load_int8_recipe("int8", {
        "quantizer.calibrator": "mse", "quantizer.keep_float": ["*.head.fc"],
        "finetune.self_share": 0.25, "calibration_clips": 8})
    assert recipe.quantizer.keep_float == ("*.head.fc",)
    assert (recipe.quantizer.calibrator, recipe.calibration_clips) == ("mse", 8)
    assert recipe.finetune.self_share == 0.25


def test_auto_is_a_word_or_one_name_of_a_list() -> None:
    for value in ("auto", ["auto"]):
        assert load_int8_recipe("int8", {"quantizer.keep_float": value}).quantizer.is_auto


@pytest.mark.parametrize(("changes", "message"), [
    ({"calibration_clips": 0}, "calibration_clips is 0; allowed: 1 or more"),
    ({"calibration_clips": "many"}, "calibration_clips is 'many'; allowed: a whole number"),
    ({"quantizer.calibrator": "minmax"}, "calibrator is 'minmax'"),
    ({"quantizer.bits": 4}, "key bits is 'unknown'"),
    ({"quantizer.keep_float": "conv1"}, "keep_float is 'conv1'; allowed: a list of such values"),
    ({"finetune.self_share": 2}, r"self_share is 2; allowed: 0\.\.1"),
    ({"finetune": 3}, "finetune is 3; allowed: a table"),
    ({"epochs": 3}, "key epochs is 'unknown'"),
])
def test_a_mistake_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_int8_recipe("int8", changes)


def test_qat_has_neither_teacher_nor_twin() -> None:
    recipe = load_int8_recipe("int8")
    assert (recipe.finetune_of("qat").scheme, recipe.finetune_of("qat").self_share) == ("ce", 0)
    assert recipe.finetune_of("qad") == recipe.finetune
    assert set(recipe.facts("ptq")) == {"method", "quantizer", "calibration_clips"}
    assert recipe.facts("qat")["finetune"]["scheme"] == "ce"
    assert recipe.facts("qad")["finetune"]["scheme"] == "pkd"


# ---- clips


def test_clips_are_drawn_by_the_seed(recipe: Int8Recipe) -> None:
    few = replace(recipe, calibration_clips=5)
    rows = calibration_rows(40, few, seed=1)
    assert rows == sorted(set(rows))
    assert len(rows) == 5
    assert set(rows) <= set(range(40))
    assert rows == calibration_rows(40, few, seed=1)
    assert rows != calibration_rows(40, few, seed=2)
    assert calibration_rows(20, recipe, seed=1) == list(range(20))  # all there are


def test_too_few_clips_are_refused_unless_forced(recipe: Int8Recipe) -> None:
    with pytest.raises(DataError, match=r"15 clips to calibrate on; allowed: 16.*--force-few"):
        calibration_rows(15, recipe, seed=0)
    assert calibration_rows(15, recipe, seed=0, force=True) == list(range(15))
    assert len(calibration_rows(16, recipe, seed=0)) == 16


def test_clips_that_set_no_range_judge_where_there_are_any(recipe: Int8Recipe) -> None:
    few = replace(recipe, calibration_clips=3)
    assert spare_rows(8, [0, 2, 4], few) == [1, 3, 5]
    assert spare_rows(5, [0, 2, 4], few) == [1, 3]
    assert spare_rows(3, [0, 1, 2], few) == [0, 1, 2]  # all set ranges


def test_the_hash_of_clips_knows_no_order() -> None:
    assert hash_of_clips(["a", "b"]) == hash_of_clips(["b", "a"])
    assert hash_of_clips(["a", "b"]) != hash_of_clips(["a"])


# ---- networks


@pytest.mark.slow
def test_ranges_come_from_the_test_views(
    quantized: SegmentedNetwork, data: LabelledClips, networks: dict[Modality, SegmentedNetwork]
) -> None:
    frames = torch.cat([centre_view(clip, INPUTS["mv"]) for clip in data.clips])
    x = networks["mv"].segments[0].trunk.data_bn(frames)  # type: ignore[union-attr,operator]
    found = dict(quantizers(quantized))["segments.0.trunk.conv1.input_quantizer"].amax
    assert float(found) == pytest.approx(float(x.detach().abs().max()), rel=1e-5)


def test_views_to_train_on_are_other_ones_than_those_of_the_exits(data: LabelledClips) -> None:
    recipe = load_train_recipe("small", {f"inputs.{m}.{key}": value for m in MODALITIES
                                         for key, value in (("resize_px", 40), ("crop_px", 32))})
    plans = finetune_plans(recipe)
    assert tuple(plans) == MODALITIES
    assert tuple(finetune_plans(recipe, ("iframe",))) == ("iframe",)
    for modality, plan in plans.items():
        own = view_plan(recipe, modality)
        assert replace(plan, seed=own.seed) == own
        assert not torch.equal(plan.view(data.clips[0], index=0, view=0),
                               own.view(data.clips[0], index=0, view=0))


@pytest.mark.slow
@pytest.mark.parametrize(("modality", "changes", "teachers"), [
    ("iframe", {"epochs": 6}, {"mv", "residual", "iframe"}),
    ("mv", {"scheme": "iframe"}, {"mv", "iframe"}),
    ("mv", {"scheme": "ce"}, {"mv"}),  # its float twin
    ("mv", {"scheme": "ce", "self_share": 0.0}, set()),
])
def test_only_teachers_of_the_schedule_are_asked(
    monkeypatch: pytest.MonkeyPatch, networks: dict[Modality, SegmentedNetwork], clips: Int8Clips,
    quantized: SegmentedNetwork, recipe: Int8Recipe, modality: Modality, changes: dict[str, Any],
    teachers: set[Modality],
) -> None:
    taught: dict[Modality, torch.Tensor] = {}
    monkeypatch.setattr(int8, "finetune", lambda *_, **given: taught.update(given["taught"]))
    steps = replace(recipe, finetune=replace(recipe.finetune, **changes))
    quantize(networks, clips, steps, "qad", modality=modality, ranged=quantized)
    assert set(taught) == teachers
    for logits in taught.values():
        assert logits.shape == (4, min(4, steps.finetune.epochs), 4, 2)


@pytest.mark.parametrize("method", ["qat", "qad"])
def test_training_on_moves_weights_and_leaves_ranges_and_its_input(
    networks: dict[Modality, SegmentedNetwork], quantized: SegmentedNetwork, clips: Int8Clips,
    recipe: Int8Recipe, method: QuantMethod,
) -> None:
    before = {name: tensor.clone() for name, tensor in quantized.state_dict().items()}
    trained = quantize(networks, clips, recipe, method, ranged=quantized)
    after = trained.state_dict()
    for name, tensor in quantized.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert name.endswith("_amax") <= torch.equal(after[name], before[name])
    for k in range(4):  # through every quantiser down to the first layer
        names = [n for n in after if n.startswith(f"segments.{k}.") and n.endswith(".weight")]
        assert not any(torch.equal(after[name], before[name]) for name in names)


@pytest.mark.slow
def test_ranges_that_are_known_make_no_difference(
    networks: dict[Modality, SegmentedNetwork], quantized: SegmentedNetwork, clips: Int8Clips,
    recipe: Int8Recipe,
) -> None:
    own = quantize(networks, clips, recipe, "qad").state_dict()
    given = quantize(networks, clips, recipe, "qad", ranged=quantized).state_dict()
    assert all(torch.equal(own[name], given[name]) for name in own)
    other = quantize(networks, clips, recipe, "qat").state_dict()
    assert any(not torch.equal(own[name], other[name]) for name in own)


def test_ptq_is_a_copy_that_needs_no_clip_to_train_on(
    networks: dict[Modality, SegmentedNetwork], quantized: SegmentedNetwork, data: LabelledClips,
    recipe: Int8Recipe,
) -> None:
    before = {name: tensor.clone() for name, tensor in networks["mv"].state_dict().items()}
    alone = Int8Clips(data.clips, LabelledClips([], []), {"mv": PLANS["mv"]})
    found = quantize({"mv": networks["mv"]}, alone, recipe, "ptq").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in quantized.state_dict().items())
    assert all(torch.equal(networks["mv"].state_dict()[name], before[name]) for name in before)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ptq", "qad"])
def test_a_network_of_stacked_fields_is_quantised(data: LabelledClips, method: QuantMethod) -> None:
    spec = InputSpec("mv", num_segments=2, resize_px=40, crop_px=32, stack=True)
    network = small_network(modality="mv", num_classes=2, frames_per_pass=2)
    clips = Int8Clips(data.clips, data, {"mv": ViewPlan(spec, 4, 2, "gop", 0)})
    recipe = load_int8_recipe("int8", {"finetune.epochs": 1, "finetune.batch_clips": 4,
                                       "finetune.scheme": "iframe", "finetune.self_share": 1.0,
                                       "finetune.select": "last"})
    teachers = {"mv": network, "iframe": small_network(modality="iframe", num_classes=2)}
    plans = {**clips.plans, "iframe": PLANS["iframe"]}
    student = quantize(teachers, replace(clips, plans=plans), recipe, method)
    assert len(list(quantizers(student))) > 50
    with torch.no_grad():
        for clip in data.clips:
            x = centre_view(clip, spec)
            for mine, theirs in zip(student(x), network(x), strict=True):
                assert mine.shape == (1, 2)
                assert 0 < (mine - theirs).abs().max() < (0.1 if method == "ptq" else 1)


def test_auto_leaves_what_is_worth_it_in_float(
    monkeypatch: pytest.MonkeyPatch, networks: dict[Modality, SegmentedNetwork], clips: Int8Clips,
    quantized: SegmentedNetwork, recipe: Int8Recipe,
) -> None:
    layers = sensitivity(quantized, networks["mv"], clips.ranges, spec=INPUTS["mv"], recipe=recipe)
    bar = sorted(one.worst_sqnr_db for one in layers)[2]
    worst = {one.layer for one in layers if one.worst_sqnr_db < bar}
    assert len(worst) == 2
    monkeypatch.setattr(int8, "worth_float", lambda found: tuple(
        one.layer for one in found if one.worst_sqnr_db < bar))
    auto = replace(recipe, quantizer=replace(recipe.quantizer, keep_float=("auto",)))
    found = quantize(networks, clips, auto, "ptq")
    gone = {name.rpartition(".")[0] for name, _ in quantizers(quantized)} - {
        name.rpartition(".")[0] for name, _ in quantizers(found)}
    assert gone == worst
