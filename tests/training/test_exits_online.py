"""Exits on fresh views, and on the same views from disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from edgepkd.config import InputSpec, Modality
from edgepkd.errors import ConfigError, TrainingError
from edgepkd.models.registry import build_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training import exits
from edgepkd.training.exits import (
    CachedFeatures,
    OnlineFeatures,
    ViewPlan,
    calibration_views,
    collect_views,
    label_rows,
    train_exits,
    view_features,
)
from edgepkd.training.features import FeatureCache
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import Silent
from edgepkd.training.recipe import ExitRecipe
from tests.models.networks import randomise
from tests.training.fake_clips import fake_clip

MODALITIES: tuple[Modality, ...] = ("mv", "residual")
DATA = LabelledClips([fake_clip(seed=i, brightness=80 * (i % 3)) for i in range(6)],
                     [i % 3 for i in range(6)])
PLANS = {m: ViewPlan(InputSpec(m, num_segments=2, resize_px=40, crop_px=32), 2, 2, "centre", 7)
         for m in MODALITIES}
LABELS = label_rows(DATA, num_views=2)


def networks() -> dict[Modality, SegmentedNetwork]:
    made: dict[Modality, SegmentedNetwork] = {}
    for number, modality in enumerate(MODALITIES):
        torch.manual_seed(number)
        made[modality] = build_network("resnet18", modality=modality, num_classes=3, width=0.125)
        randomise(made[modality], seed=number)
        made[modality].eval()
    return made


def online(trunks: Mapping[Modality, SegmentedNetwork]) -> OnlineFeatures:
    return OnlineFeatures("residual", trunks, PLANS, DATA)


def cached(trunks: Mapping[Modality, SegmentedNetwork], folder: Path) -> CachedFeatures:
    cache = FeatureCache(folder)
    views = {m: cache.views(trunks[m], DATA.clips, PLANS[m], clip_keys=list("abcdef"))
             for m in MODALITIES}
    return CachedFeatures(views["residual"], {m: views[m].logits for m in MODALITIES})


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["own", "mv", "labels"])
def test_views_of_the_first_epoch_are_those_of_the_cache(tmp_path: Path, teacher: Any) -> None:
    trunks = networks()
    rows = torch.tensor([7, 0, 11, 4])
    ours, taught = online(trunks).batch(rows, epoch=0, teacher=teacher)
    kept, expected = cached(trunks, tmp_path).batch(rows, epoch=0, teacher=teacher)
    for one, other in zip(ours, kept, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    if teacher == "labels":
        assert taught is expected is None
    else:
        torch.testing.assert_close(taught, expected, atol=1e-5, rtol=1e-4)
    assert online(trunks).num_rows == cached(trunks, tmp_path).num_rows == 12


@pytest.mark.slow
def test_views_of_the_next_epoch_are_fresh_and_repeat() -> None:
    features, rows = online(networks()), torch.arange(4)
    first, second, again = (features.batch(rows, epoch=e, teacher="labels")[0] for e in (0, 1, 1))
    assert not torch.equal(first[0], second[0])
    assert torch.equal(second[0], again[0])


@pytest.mark.slow
def test_one_epoch_online_gives_the_heads_of_one_epoch_from_the_cache(tmp_path: Path) -> None:
    recipe = ExitRecipe(scheme="anticurriculum", epochs=1, batch_views=4, learning_rate=1e-2)
    found = []
    for number in range(2):
        trunks = networks()
        features = online(trunks) if number else cached(trunks, tmp_path)
        train_exits(trunks["residual"], features, LABELS, recipe=recipe, seed=1)
        found.append(trunks["residual"].state_dict())
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, atol=1e-3, rtol=1e-2)
    assert not torch.equal(found[0]["segments.0.head.conv.weight"],
                           networks()["residual"].state_dict()["segments.0.head.conv.weight"])


def test_only_the_teacher_in_use_is_asked() -> None:
    trunks = networks()
    asked: list[str] = []
    for modality, network in trunks.items():
        cast(Any, network.segments[0]).trunk.register_forward_hook(
            lambda *_, name=modality: asked.append(name))
    features = online(trunks)
    for teacher, expected in (("labels", {"residual"}), ("own", {"residual"}),
                              ("mv", {"residual", "mv"})):
        asked.clear()
        features.batch(torch.arange(2), epoch=0, teacher=cast(Any, teacher))
        assert set(asked) == expected
        assert len(asked) == len(expected)


@pytest.mark.slow
@pytest.mark.parametrize("from_cache", [True, False])
def test_frozen_parts_do_not_move_by_a_bit_and_biases_train(
    tmp_path: Path, from_cache: bool
) -> None:
    trunks = networks()
    before = {m: {k: v.clone() for k, v in n.state_dict().items()} for m, n in trunks.items()}
    trunks["residual"].train()  # as in the reference, whose frozen BatchNorm drifts
    features = cached(trunks, tmp_path) if from_cache else online(trunks)
    train_exits(trunks["residual"], features, LABELS, seed=1,
                recipe=ExitRecipe(scheme="pkd", epochs=6, batch_views=4))
    for modality, network in trunks.items():
        for key, value in network.state_dict().items():
            if ".trunk." in key or key.startswith("segments.3.") or modality == "mv":
                assert torch.equal(value, before[modality][key]), key
    for index in range(3):
        for name in ("fc.bias", "bn.bias", "bn.running_mean"):
            key = f"segments.{index}.head.{name}"
            assert not torch.equal(trunks["residual"].state_dict()[key], before["residual"][key])
    assert not any(p.grad is not None for s in trunks["residual"]
                   for p in s.trunk.parameters())


def test_a_head_does_not_depend_on_the_others(tmp_path: Path) -> None:
    """The losses are independent, and so is each head's optimiser."""
    def head_one(scale: float) -> dict[str, Tensor]:
        trunks = networks()
        other = cast(Any, trunks["residual"].heads[1])
        other.fc.weight.data.mul_(scale)
        train_exits(trunks["residual"], cached(trunks, tmp_path), LABELS, seed=1,
                    recipe=ExitRecipe(scheme="ce", epochs=2, batch_views=4))
        return trunks["residual"].heads[0].state_dict()

    one, other = head_one(1), head_one(3)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_calibration_logits_are_those_of_the_network() -> None:
    network = networks()["residual"]
    spec = PLANS["residual"].spec
    views = calibration_views(network, DATA, spec=spec)
    expected = torch.stack([
        torch.stack([logits.mean(0) for logits in network(exits.test_view(clip, spec))])
        for clip in DATA.clips])
    torch.testing.assert_close(views.exit_logits(network), expected[:, :3], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(views.logits, expected[:, 3], atol=1e-5, rtol=1e-4)


class Rows(Silent):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def row(self, *, epoch: int, **values: float | int | str) -> None:
        self.losses.append(float(values["loss_calibration"]))


@pytest.mark.slow
def test_the_best_epoch_on_the_calibration_clips_is_kept(tmp_path: Path) -> None:
    """Calibration labels that contradict training make an early epoch the best one."""
    other = LabelledClips(DATA.clips, [(label + 1) % 3 for label in DATA.labels])

    def trained(epochs: int, select: Any) -> tuple[dict[str, Tensor], list[float]]:
        network, log = networks()["residual"], Rows()
        features = cached({**networks(), "residual": network}, tmp_path)
        train_exits(network, features, LABELS, seed=1, log=log,
                    calibration=calibration_views(network, other, spec=PLANS["residual"].spec),
                    recipe=ExitRecipe(scheme="ce", epochs=epochs, batch_views=4, select=select,
                                      learning_rate=1e-2, decline="steps"))
        return network.state_dict(), log.losses

    best, losses = trained(5, "best")
    number = losses.index(min(losses))
    assert number < 4
    short, _ = trained(number + 1, "last")
    last, _ = trained(5, "last")
    assert all(torch.equal(best[key], short[key]) for key in best)
    assert not all(torch.equal(best[key], last[key]) for key in best)


def test_a_teacher_that_is_not_finite_ends_training(tmp_path: Path) -> None:
    trunks = networks()
    features = cached(trunks, tmp_path)
    broken = replace(features, teachers={"mv": features.teachers["mv"] * float("nan")})
    with pytest.raises(TrainingError, match="loss is nan in epoch 1"):
        train_exits(trunks["residual"], broken, LABELS, seed=1,
                    recipe=ExitRecipe(scheme="pkd", epochs=6, batch_views=4))


def test_labels_must_have_a_row_for_each_view(tmp_path: Path) -> None:
    trunks = networks()
    with pytest.raises(ConfigError, match="labels is 6; allowed: 12, one a row"):
        train_exits(trunks["residual"], cached(trunks, tmp_path), torch.tensor(DATA.labels),
                    recipe=ExitRecipe(), seed=1)


def test_a_view_is_the_mean_over_its_segments() -> None:
    network = networks()["residual"]
    view = PLANS["residual"].view(DATA.clips[0], index=0, view=1)
    assert view.shape == (2, 3, 32, 32)
    torch.testing.assert_close(view_features(network, [view]).logits[0],
                               network(view)[-1].mean(0), atol=1e-5, rtol=1e-4)
    assert collect_views(network, DATA.clips[:1], PLANS["residual"]).logits.shape == (2, 3)
