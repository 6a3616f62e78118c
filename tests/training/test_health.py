"""Whether a network that learned nothing is noticed, and one that learned is left alone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgepkd import plain_json
from edgepkd.config import ClipSpec, InputSpec
from edgepkd.models.checkpoint import save_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.backbone import new_network, train_backbone
from edgepkd.training.health import (
    KEY,
    Answered,
    Health,
    findings,
    health_facts,
    health_of_network,
    measure_health,
    read_health,
    spread,
    zero_features,
)
from edgepkd.training.loader import LabelledClips
from edgepkd.training.recipe import BackboneRecipe
from tests.models.networks import small_network
from tests.training.fake_clips import fake_clip

SPEC = InputSpec("iframe", num_segments=2, resize_px=32, crop_px=32)
DATA = LabelledClips([fake_clip(seed=i, brightness=80 * (i % 2)) for i in range(12)],
                     [i % 2 for i in range(12)])


def dead(network: SegmentedNetwork, *, first: int) -> SegmentedNetwork:
    """The last features from number `first` on are always zero: a last BatchNorm that gives -1."""
    norms = [m for m in list(network)[-1].trunk.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            if norm.num_features == network.heads[-1].fc.in_features:
                norm.weight[first:] = 0
                norm.bias[first:] = -1
    return network


def healthy(**changes: Any) -> Health:
    return replace(Health(
        exits=(4,), num_features=100, num_zero=10, num_zero_at_start=8, first_loss=1.6,
        lowest_loss=0.4, train=Answered(num_clips=50, num_most_frequent=10, num_right=(45,)),
        calibration=Answered(num_clips=20, num_most_frequent=4, num_right=(14,))), **changes)


def of(num_right: int, *, num_clips: int = 50, most: int = 10) -> Answered:
    return Answered(num_clips=num_clips, num_most_frequent=most, num_right=(num_right,))


def test_features_that_are_always_zero_are_counted() -> None:
    network = small_network(modality="iframe", num_classes=2)
    alive = zero_features(network, DATA.clips, spec=SPEC)
    assert zero_features(dead(network, first=10), DATA.clips, spec=SPEC) >= 54 > alive


def test_what_is_measured_is_what_the_exits_answer() -> None:
    network = small_network(modality="iframe", num_classes=2)
    with torch.no_grad():
        network.heads[-1].fc.weight.zero_()
        network.heads[-1].fc.bias.copy_(torch.tensor([1.0, 0.0]))
    before = torch.get_rng_state()
    more = LabelledClips(DATA.clips[:5], [0, 0, 0, 1, 1])
    health = measure_health(network, DATA, more, spec=SPEC, exits=(4,), num_zero_at_start=3,
                            losses=(0.9, 0.8, 0.7))
    assert torch.equal(torch.get_rng_state(), before)
    assert health.train == Answered(num_clips=12, num_most_frequent=6, num_right=(6,))
    assert health.calibration == Answered(num_clips=5, num_most_frequent=3, num_right=(3,))
    assert (health.first_loss, health.lowest_loss, health.num_zero_at_start) == (0.9, 0.7, 3)
    both = measure_health(network, DATA, spec=SPEC, exits=(1, 2, 3, 4))
    assert (len(both.train.num_right), both.train.num_right[-1]) == (4, 6)
    assert (both.calibration, both.first_loss, both.lowest_loss) == (None, None, None)


def test_a_network_that_learned_is_left_alone() -> None:
    assert findings("mv", healthy()) == ()
    assert findings("mv", healthy(num_zero_at_start=None, first_loss=None, calibration=None)) == ()


@pytest.mark.parametrize(("zero", "start", "is_dead"), [
    (97, 12, True), (55, 10, True), (55, 40, False), (95, 94, True), (40, 0, False),
    (60, None, True),
])
def test_a_trunk_is_dead_when_most_features_went_out(
    zero: int, start: int | None, is_dead: bool
) -> None:
    assert healthy(num_zero=zero, num_zero_at_start=start).is_dead is is_dead


def test_a_dead_trunk_is_said_in_numbers() -> None:
    health = healthy(num_features=1280, num_zero=1245, num_zero_at_start=150)
    assert findings("iframe", health) == (
        "iframe: 1,245 of 1,280 last features are always zero (150 before training): the trunk is"
        " dead",)


@pytest.mark.parametrize(("right", "is_near"), [(10, True), (16, True), (5, True), (18, False)])
def test_chance_is_what_one_answer_to_all_gets(right: int, is_near: bool) -> None:
    """18 of 50 is [24, 50] %, above 20 %; 16 is [21, 46] %, above it too, so most is 11."""
    assert of(right, most=11).is_near_chance(0) is is_near


def test_too_few_clips_say_nothing() -> None:
    assert not of(0, num_clips=9, most=5).is_near_chance(0)
    assert of(0, num_clips=10, most=5).is_near_chance(0)


def test_exits_at_chance_are_named() -> None:
    train = Answered(num_clips=50, num_most_frequent=10, num_right=(10, 12, 40, 45))
    (said,) = findings("mv", healthy(exits=(1, 2, 3, 4), train=train, calibration=None))
    assert said == ("mv: exits 1, 2 are at chance on training clips: 20.0 % [11.2, 33.0] of 50, and"
                    " one answer to all gets 20.0 % (exit 1)")


def test_learned_clips_and_unseen_ones_are_told_apart() -> None:
    (said,) = findings("iframe", healthy(calibration=of(2, num_clips=20, most=4)))
    assert "at chance on calibration clips: 10.0 %" in said
    assert "90 % on training clips" in said
    (said,) = findings("iframe", healthy(train=of(10), calibration=of(2, num_clips=20, most=4)))
    assert "training clips" in said
    assert "calibration" not in said


@pytest.mark.parametrize(("first", "lowest", "right", "is_flat"), [
    (1.61, 1.60, 20, True), (1.61, 1.70, 20, True), (1.61, 1.50, 20, False),
    (0.02, 0.02, 50, False), (1.61, None, 20, False), (None, None, 20, False),
])
def test_a_loss_that_never_fell_is_said(
    first: float | None, lowest: float | None, right: int, is_flat: bool
) -> None:
    health = healthy(first_loss=first, lowest_loss=lowest, train=of(right))
    assert health.has_flat_loss is is_flat
    assert ("never fell" in " ".join(findings("mv", health))) is is_flat


def test_what_was_measured_is_kept_in_the_json(tmp_path: Path) -> None:
    network, health = small_network(), healthy(calibration=None)
    save_network(network, tmp_path / "mv", extra=health_facts(health))
    assert health_of_network(tmp_path / "mv") == health
    save_network(network, tmp_path / "older", extra={"seed": 1})
    assert health_of_network(tmp_path / "older") is None
    assert health_of_network(tmp_path / "absent") is None
    assert health_facts(None) == {}


@pytest.mark.parametrize("change", [
    {"num_features": 0}, {"num_zero": 101}, {"num_zero": "a"}, {"exits": [5]}, {"exits": []},
    {"train": None}, {"train": 3}, {"calibration": {"num_clips": 0}}, {"lowest_loss": "x"},
    {"train": {"num_clips": 2, "num_most_frequent": 1, "num_right": [3]}},
    {"train": {"num_clips": 2, "num_most_frequent": 1, "num_right": ["1"]}}, {"other": 1},
])
def test_a_record_of_another_hand_is_none(change: dict[str, Any]) -> None:
    """It must not keep anybody from using the network."""
    good = json.loads(plain_json.dumps(asdict(healthy())))
    assert read_health({KEY: good}) == healthy()
    assert read_health({KEY: {**good, **change}}) is None


def test_clips_are_taken_from_all_over_the_set() -> None:
    assert spread(5, 64) == [0, 1, 2, 3, 4]
    assert spread(100, 4) == [0, 33, 66, 99]
    assert spread(1, 4) == [0]
    assert len(set(spread(1000, 64))) == 64


@pytest.mark.slow
def test_the_trunk_that_dies_is_noticed() -> None:
    """Frozen BatchNorm, a head with twenty times the rate, four clips in a batch, a high rate."""
    recipe = BackboneRecipe(
        backbone="resnet18", width=0.125, frozen_batch_norm=True, batch_clips=4, epochs=4,
        head_multiplier=20, learning_rate=0.1, train_segments=1, warmup_share=0)
    torch.manual_seed(1)
    start = zero_features(new_network(SPEC, recipe, num_classes=2), DATA.clips, spec=SPEC)

    def trained(**changes: Any) -> Health:
        network = train_backbone(DATA, spec=SPEC, recipe=replace(recipe, **changes), num_classes=2,
                                 rule=ClipSpec().sampling, seed=1)
        return measure_health(network, DATA, spec=SPEC, exits=(4,), num_zero_at_start=start)

    (said,) = [text for text in findings("iframe", trained()) if "zero" in text]
    assert f"of 64 last features are always zero ({start} before training)" in said
    assert not trained(frozen_batch_norm=False, learning_rate=0.003).is_dead
