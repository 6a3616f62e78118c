"""PKD: the schedule table, training on frozen trunks, determinism."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from edgepkd.config import InputSpec
from edgepkd.models.heads import as_pool_first
from edgepkd.models.registry import build_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.exits import (
    SCHEDULES,
    CachedFeatures,
    ViewPlan,
    Views,
    collect_views,
    teacher_at,
    teachers_of,
    train_exits,
)
from edgepkd.training.loop import Silent
from edgepkd.training.recipe import ExitRecipe, Scheme
from tests.training.fake_clips import fake_clip

SPEC = InputSpec("residual", num_segments=2, resize_px=64, crop_px=64)


def small_network(seed: int = 0) -> SegmentedNetwork:
    torch.manual_seed(seed)
    return build_network("resnet18", modality="residual", num_classes=3, width=0.125)


@pytest.mark.parametrize(("scheme", "expected"), [
    ("pkd", ["mv"] * 50 + ["residual"] * 50 + ["own"] * 200),
    ("anticurriculum", ["own"] * 100 + ["residual"] * 100 + ["mv"] * 100),
    ("iframe", ["iframe"] * 300),
    ("ce", ["labels"] * 300),
])
def test_schedules_are_those_of_the_paper(scheme: Scheme, expected: list[str]) -> None:
    assert [teacher_at(scheme, epoch=e, num_epochs=300) for e in range(300)] == expected


def test_the_last_teacher_of_pkd_can_be_the_iframe_network() -> None:
    taught = [teacher_at("pkd", epoch=e, num_epochs=300, last_teacher="iframe")
              for e in range(300)]
    assert taught == ["mv"] * 50 + ["residual"] * 50 + ["iframe"] * 200


@pytest.mark.parametrize("num_epochs", [1, 2, 3, 4, 5, 6, 7])
def test_every_schedule_covers_short_runs_too(num_epochs: int) -> None:
    for scheme in SCHEDULES:
        taught = [teacher_at(scheme, epoch=e, num_epochs=num_epochs, passed=step / 12)
                  for e in range(num_epochs) for step in range(12)]
        assert tuple(dict.fromkeys(taught)) == teachers_of(scheme)


def test_phases_are_whole_epochs_where_there_are_enough_and_shares_of_steps_where_not() -> None:
    def taught(num_epochs: int) -> list[str]:
        return [teacher_at("pkd", epoch=e, num_epochs=num_epochs, passed=step / 6)
                for e in range(num_epochs) for step in range(6)]

    assert taught(3) == ["mv"] * 6 + ["residual"] * 6 + ["own"] * 6
    assert taught(1) == ["mv"] + ["residual"] + ["own"] * 4
    assert taught(2) == ["mv"] * 2 + ["residual"] * 2 + ["own"] * 8


def test_steps_of_exits_are_batches_of_views() -> None:
    """24 views in batches of 8: 3 batches an epoch, and 7 steps make 3 epochs."""
    network = small_network()
    views, labels = views_of(network)
    log = Rows()
    train_exits(network, CachedFeatures(views, {}), labels, seed=1, log=log,
                recipe=ExitRecipe(scheme="ce", epochs=0, steps=7, batch_views=8))
    assert log.epochs == [0, 1, 2]


@pytest.mark.parametrize("changes", [
    {"class_weights": "balanced"}, {"teacher_temperature": 0.5}])
def test_weights_and_the_teachers_temperature_reach_the_heads(changes: dict[str, Any]) -> None:
    def trained(**more: Any) -> Tensor:
        network = small_network()
        views, _ = views_of(network)
        labels = torch.tensor([0] * 18 + [1] * 4 + [2] * 2)
        train_exits(network, CachedFeatures(views, {"iframe": torch.eye(3)[labels]}), labels,
                    seed=1, recipe=ExitRecipe(scheme="iframe", label_share=0.5, epochs=1,
                                              batch_views=8, **more))
        return cast(Any, network.heads[0]).fc.weight

    assert not torch.equal(trained(), trained(**changes))


class Rows(Silent):
    def __init__(self) -> None:
        self.epochs: list[int] = []

    def row(self, *, epoch: int, **values: float | int | str) -> None:
        self.epochs.append(epoch)


def views_of(network: SegmentedNetwork, *, num_clips: int = 12) -> tuple[Views, Tensor]:
    clips = [fake_clip(seed=i, brightness=80 * (i % 3)) for i in range(num_clips)]
    views = collect_views(network, clips, ViewPlan(SPEC, 2, 2, "centre", seed=7))
    return views, torch.arange(num_clips).remainder(3).repeat_interleave(2)


def test_heads_answer_to_a_mean_with_the_mean_of_their_answers() -> None:
    network = small_network().eval()
    x = torch.rand(5, 3, 64, 64)
    pooled = network.pooled_inputs(x)
    for head, value, logits in zip(network.heads, pooled, network(x), strict=True):
        torch.testing.assert_close(head.from_pooled(value.mean(0, keepdim=True))[0],
                                   logits.mean(0), atol=1e-5, rtol=1e-4)


def test_views_are_the_same_for_the_same_seed_and_have_one_row_per_view() -> None:
    network = small_network()
    first, _ = views_of(network)
    again, _ = views_of(network)
    assert len(first.windows) == 3
    assert first.logits.shape == (24, 3)
    for one, other in zip(first.windows, again.windows, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first.windows[0][0], first.windows[0][1])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["pkd", "anticurriculum", "iframe", "ce"])
def test_training_moves_heads_and_their_biases_but_nothing_frozen(scheme: Scheme) -> None:
    network = small_network()
    views, labels = views_of(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    teachers = {m: torch.eye(3)[labels] * 5 for m in ("mv", "residual", "iframe")}
    train_exits(network, CachedFeatures(views, cast(Any, teachers)), labels, seed=1,
                recipe=ExitRecipe(scheme=scheme, epochs=6, batch_views=8))
    for key, value in network.state_dict().items():
        moves = ".head." in key and not key.startswith("segments.3.")
        if "num_batches" in key:
            continue
        assert torch.equal(value, before[key]) != moves, key


@pytest.mark.slow
def test_students_learn_what_the_teacher_says_not_what_the_labels_say() -> None:
    network = small_network()
    views, labels = views_of(network)
    other = (labels + 1) % 3
    features = CachedFeatures(views, {"iframe": torch.eye(3)[other] * 8})
    train_exits(network, features, labels, seed=1,
                recipe=ExitRecipe(scheme="iframe", epochs=80, batch_views=8, learning_rate=1e-2))
    for index in range(3):
        answers = as_pool_first(network.heads[index]).eval().from_windows(
            views.windows[index]).argmax(1)
        assert (answers == other).float().mean() > 0.9


@pytest.mark.slow
def test_exit_training_is_deterministic_by_seed() -> None:
    def trained(seed: int) -> dict[str, Tensor]:
        network = small_network()
        views, labels = views_of(network)
        train_exits(network, CachedFeatures(views, {}), labels, seed=seed,
                    recipe=ExitRecipe(scheme="ce", epochs=3, batch_views=8))
        return network.state_dict()

    one, same, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["segments.0.head.conv.weight"],
                           other["segments.0.head.conv.weight"])


def test_batch_norm_of_a_trained_head_has_the_statistics_of_the_views() -> None:
    network = small_network()
    views, labels = views_of(network)
    train_exits(network, CachedFeatures(views, {}), labels, seed=1,
                recipe=ExitRecipe(scheme="ce", epochs=2, batch_views=8))
    head = network.heads[0]
    cells = views.windows[0] @ cast(Any, head).conv.weight.flatten(1).T  # [N, 16, C]
    torch.testing.assert_close(cast(Any, head).bn.running_mean, cells.mean((0, 1)))
