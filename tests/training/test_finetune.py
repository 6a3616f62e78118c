"""QAD and QAT: losses by hand, who teaches when, resume, and what is refused.

The student is a plain float network: the loop knows nothing of quantisers.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgepkd.config import MODALITIES, InputSpec, Modality
from edgepkd.errors import ConfigError, TrainingError
from edgepkd.models.fold import fold_batch_norm
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training import finetune as module
from edgepkd.training.exits import ViewPlan
from edgepkd.training.finetune import (
    KL,
    Taught,
    exit_losses,
    finetune,
    judged,
    judged_values,
    teacher_at_step,
    teachers_needed,
    view_logits,
    views_needed,
)
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import Checkpoint, Silent
from edgepkd.training.recipe import FinetuneRecipe
from tests.models.networks import small_network
from tests.training.fake_clips import fake_clip

CLASSES = 3
RATE = 1e-2


@pytest.fixture(scope="module")
def data() -> LabelledClips:
    return LabelledClips([fake_clip(seed=i, brightness=60 * (i % 3)) for i in range(6)],
                         [i % 3 for i in range(6)])


def plan(modality: Modality = "mv", *, num_views: int = 8) -> ViewPlan:
    return ViewPlan(InputSpec(modality, num_segments=2, resize_px=40, crop_px=32), num_views, 2,
                    "gop", 3)


@pytest.fixture(scope="module")
def networks() -> dict[Modality, SegmentedNetwork]:
    return {m: small_network(modality=m, num_classes=CLASSES) for m in MODALITIES}


@pytest.fixture
def student(networks: dict[Modality, SegmentedNetwork]) -> SegmentedNetwork:
    return disturbed(networks["mv"])


def disturbed(network: SegmentedNetwork) -> SegmentedNetwork:
    """As after quantising: BatchNorm folded, and no longer the float network."""
    made = fold_batch_norm(network.pool_first()).requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for parameter in made.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.fixture(scope="module")
def taught(networks: dict[Modality, SegmentedNetwork], data: LabelledClips) -> Taught:
    return {m: view_logits(network, data.clips, plan(m), num_views=3)
            for m, network in networks.items()}


def steps(**changes: Any) -> FinetuneRecipe:
    return FinetuneRecipe(**{"epochs": 3, "batch_clips": 3, "learning_rate": 0.5, **changes})


class Rows(Silent):
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def row(self, **values: Any) -> None:
        self.rows.append(values)


def run(student: SegmentedNetwork, data: LabelledClips, taught: Taught, **changes: Any) -> Rows:
    log = Rows()
    finetune(student, data, plan(), taught=taught, recipe=changes.pop("recipe", steps()),
             trunk_rate=RATE, seed=1, log=log, **changes)
    return log


# ---- the loss


def cross_entropy_by_hand(target: Tensor, logits: Tensor, temperature: float) -> float:
    """-sum softmax(target / T) log softmax(logits / T), mean over rows, in plain exponentials."""
    p = (target / temperature).exp()
    q = (logits / temperature).exp()
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    return float(-(p * q.log()).sum(1).mean())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_each_exit_has_its_teacher_and_its_float_twin(share: float, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    z, own = (torch.randn(4, 5, CLASSES, generator=generator).double() for _ in range(2))
    teacher = torch.randn(5, CLASSES, generator=generator).double()
    found = exit_losses(z, labels=torch.zeros(5, dtype=torch.long), own=own, teacher=teacher,
                        by_labels=False,
                        recipe=steps(self_share=share, temperature=temperature))
    for k in range(4):
        target = own[3] if k == 3 else teacher  # exit 4 is taught by its own float twin alone
        expected = ((1 - share) * cross_entropy_by_hand(target, z[k], temperature)
                    + share * cross_entropy_by_hand(own[k], z[k], temperature))
        assert float(found[k]) == pytest.approx(expected, rel=1e-9)


def test_without_another_teacher_the_own_last_exit_teaches() -> None:
    z, own = torch.randn(2, 4, 5, CLASSES, generator=torch.Generator().manual_seed(1)).double()
    found = exit_losses(z, labels=torch.zeros(5, dtype=torch.long), own=own, teacher=None,
                        by_labels=False, recipe=steps(self_share=0.0))
    for k in range(4):
        assert float(found[k]) == pytest.approx(cross_entropy_by_hand(own[3], z[k], 1.0), rel=1e-9)


def test_qat_is_the_labels_cross_entropy_at_every_exit() -> None:
    z = torch.randn(4, 5, CLASSES, generator=torch.Generator().manual_seed(2)).double()
    labels = torch.tensor([0, 1, 2, 0, 1])
    found = exit_losses(z, labels=labels, own=None, teacher=None, by_labels=True,
                        recipe=steps().as_qat())
    for k in range(4):
        probabilities = z[k].exp() / z[k].exp().sum(1, keepdim=True)
        expected = -probabilities[torch.arange(5), labels].log().mean()
        assert float(found[k]) == pytest.approx(float(expected), rel=1e-9)


def test_teachers_get_no_gradient() -> None:
    z, own = (torch.randn(4, 5, CLASSES, requires_grad=True) for _ in range(2))
    teacher = torch.randn(5, CLASSES, requires_grad=True)
    exit_losses(z, labels=torch.zeros(5, dtype=torch.long), own=own, teacher=teacher,
                by_labels=False, recipe=steps()).sum().backward()
    assert z.grad is not None
    assert bool((z.grad.abs().amax(dim=(1, 2)) > 0).all())  # every exit learns
    assert own.grad is None
    assert teacher.grad is None


# ---- who teaches when


@pytest.mark.slow
def test_a_single_epoch_has_all_teachers(
    student: SegmentedNetwork, data: LabelledClips, taught: Taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six steps one is taught by motion vectors, one by the residual, four by the own exit 4."""
    seen: list[bool] = []
    real = exit_losses

    def look(logits: Tensor, *, teacher: Tensor | None, **more: Any) -> Tensor:
        seen.append(teacher is None)
        return real(logits, teacher=teacher, **more)

    monkeypatch.setattr(module, "exit_losses", look)
    one_view = {m: logits[:, :1] for m, logits in taught.items()}
    run(student, data, one_view, recipe=steps(epochs=0, steps=6, batch_clips=1))
    assert seen == [False, False, True, True, True, True]


@pytest.mark.slow
def test_teachers_follow_the_schedule_and_see_the_students_views(
    student: SegmentedNetwork, data: LabelledClips, taught: Taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs of PKD: motion vectors, the residual, the own exit 4; one view an epoch."""
    seen: list[tuple[Tensor | None, Tensor]] = []
    real = exit_losses

    def look(logits: Tensor, *, own: Tensor, teacher: Tensor | None, **more: Any) -> Tensor:
        seen.append((teacher, own))
        return real(logits, own=own, teacher=teacher, **more)

    monkeypatch.setattr(module, "exit_losses", look)
    student = disturbed(small_network(modality="residual", num_classes=CLASSES))
    recipe = steps(epochs=6, batch_clips=6, learning_rate=1e-6)
    six = {m: torch.cat([logits, logits + 1], dim=1) for m, logits in taught.items()}
    finetune(student, data, plan("residual"), taught=six, recipe=recipe, trunk_rate=RATE, seed=1)
    assert len(seen) == 6
    for epoch, teacher in enumerate(["mv", "residual", None, None, None, None]):
        given, own = seen[epoch]
        assert rows_of(own[-1]) == rows_of(six["residual"][:, epoch, -1])
        if teacher is None:
            assert given is None
        else:
            assert given is not None
            assert rows_of(given) == rows_of(six[teacher][:, epoch, -1])  # type: ignore[index]


def rows_of(logits: Tensor) -> set[tuple[float, ...]]:
    """Rows in any order: batches are shuffled."""
    return {tuple(row) for row in logits.tolist()}


@pytest.mark.parametrize(("changes", "expected"), [
    ({}, ("iframe", "mv", "residual")),
    ({"epochs": 1}, ("iframe", "mv", "residual")),
    ({"epochs": 0, "steps": 9}, ("iframe", "mv", "residual")),
    ({"scheme": "ce"}, ("iframe",)),
    ({"scheme": "iframe"}, ("iframe",)),
])
def test_all_teachers_of_the_schedule_are_needed_and_no_other(
    changes: dict[str, Any], expected: tuple[Modality, ...]
) -> None:
    assert teachers_needed("iframe", steps(**{"epochs": 6, **changes})) == expected


@pytest.mark.parametrize(("num_steps", "expected"), [
    (12, ["mv"] * 2 + ["residual"] * 2 + ["own"] * 8),  # shares of 1/6, 1/6, 2/3
    (60, ["mv"] * 10 + ["residual"] * 10 + ["own"] * 40),
    (4, ["mv", "residual", "own", "own"]),
    (3, ["mv", "residual", "own"]),  # shares alone would leave out the first
    (2, ["residual", "own"]), (1, ["own"]),
])
def test_phases_are_counted_in_steps_and_leave_one_to_each_teacher(
    num_steps: int, expected: list[str]
) -> None:
    found = [teacher_at_step(steps(), step=k, num_steps=num_steps) for k in range(num_steps)]
    assert found == expected


def test_few_epochs_change_teachers_between_batches(
    student: SegmentedNetwork, data: LabelledClips, taught: Taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = teacher_at_step

    def look(*arguments: Any, **more: Any) -> Any:
        seen.append(real(*arguments, **more))
        return seen[-1]

    monkeypatch.setattr(module, "teacher_at_step", look)
    run(student, data, taught, recipe=steps(epochs=3, batch_clips=3, learning_rate=1e-6))
    assert seen == ["mv", "residual", "own", "own", "own", "own"]


def test_the_iframe_network_may_teach_last() -> None:
    needed = teachers_needed("mv", steps(epochs=6, last_teacher="iframe"))
    assert needed == ("mv", "residual", "iframe")


def test_as_many_views_as_epochs_but_no_more_than_the_plan() -> None:
    assert views_needed(plan(num_views=8), steps(epochs=3)) == 3
    assert views_needed(plan(num_views=2), steps(epochs=3)) == 2


@pytest.mark.slow
def test_view_logits_are_means_over_segments_of_the_plans_views(
    networks: dict[Modality, SegmentedNetwork], data: LabelledClips, taught: Taught
) -> None:
    frames = plan("residual").view(data.clips[4], index=4, view=2)
    with torch.no_grad():
        expected = torch.stack([z.mean(dim=0) for z in networks["residual"](frames)])
    assert taught["residual"].shape == (6, 3, 4, CLASSES)
    torch.testing.assert_close(taught["residual"][4, 2], expected)


# ---- training


@pytest.mark.slow
def test_qad_brings_every_exit_back_to_the_float_network(
    student: SegmentedNetwork, networks: dict[Modality, SegmentedNetwork], data: LabelledClips
) -> None:
    recipe = steps(epochs=12, scheme="ce", self_share=1.0, learning_rate=0.3)
    own = {"mv": view_logits(networks["mv"], data.clips, plan(), num_views=8)}

    def divergence() -> Tensor:
        now = view_logits(student, data.clips, plan(), num_views=8)
        p, q = own["mv"].log_softmax(-1), now.log_softmax(-1)  # type: ignore[index]
        return (p.exp() * (p - q)).sum(-1).mean(dim=(0, 1))

    before = divergence()
    weights = copy.deepcopy(student.state_dict())
    run(student, data, own, recipe=recipe)  # type: ignore[arg-type]
    after = divergence()
    assert float(after.sum()) < 0.1 * float(before.sum())
    assert bool((after < (0.5 * before).clamp(min=3e-3)).all())  # one was close all along
    assert not student.training
    assert not any(parameter.requires_grad for parameter in student.parameters())
    for name in ("segments.0.trunk.conv1.weight", "segments.1.head.conv.weight",
                 "segments.3.head.fc.bias"):  # all of the network moves
        assert not torch.equal(student.state_dict()[name], weights[name])


@pytest.mark.slow
def test_qat_lowers_the_cross_entropy_and_needs_no_teacher(
    student: SegmentedNetwork, data: LabelledClips
) -> None:
    log = run(student, data, {}, recipe=steps(epochs=10).as_qat())
    first, last = log.rows[0], log.rows[-1]
    assert all(last[f"loss_exit_{k}"] < first[f"loss_exit_{k}"] for k in range(1, 5))
    assert first["loss"] == pytest.approx(
        sum(first[f"loss_exit_{k}"] for k in range(1, 5)) / 4)


def test_the_rate_is_in_units_of_the_trunks(student: SegmentedNetwork, data: LabelledClips) -> None:
    log = run(student, data, {}, recipe=steps(epochs=1, batch_clips=6).as_qat())
    assert log.rows[0]["learning_rate"] == pytest.approx(0.5 * RATE)


@pytest.mark.slow
def test_judged_clips_are_measured_and_may_choose_the_epoch(
    student: SegmentedNetwork, networks: dict[Modality, SegmentedNetwork], data: LabelledClips,
    taught: Taught,
) -> None:
    """QAD by its distance from FP32, QAT by the labels' loss."""
    judge = judged(networks["mv"], data, plan().spec)
    assert judge.reference.shape == (6, 4, CLASSES)
    for recipe, name in ((steps(select="best"), KL),
                         (steps(select="best").as_qat(), "loss_calibration")):
        mine = copy.deepcopy(student)
        log = run(mine, data, taught, recipe=recipe, judge=judge)
        start = judged_values(student, judge, plan().spec)
        best = judged_values(mine, judge, plan().spec)
        values = [start[name], *(row[name] for row in log.rows)]
        assert best[name] == pytest.approx(min(values), rel=1e-4)
        assert 0 <= best["accuracy_calibration_exit_4"] <= 1


def test_training_that_only_harms_leaves_the_start(
    student: SegmentedNetwork, networks: dict[Modality, SegmentedNetwork], data: LabelledClips,
    taught: Taught,
) -> None:
    judge = judged(networks["mv"], data, plan().spec)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    log = run(student, data, taught, recipe=steps(select="best", learning_rate=300),
              judge=judge)
    assert min(row[KL] for row in log.rows) > judged_values(student, judge, plan().spec)[KL]
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_the_divergence_is_that_of_the_formula(
    student: SegmentedNetwork, networks: dict[Modality, SegmentedNetwork], data: LabelledClips
) -> None:
    judge = judged(networks["mv"], data, plan().spec)
    with torch.no_grad():
        mine = judged(student, data, plan().spec).reference
    p, q = judge.reference.softmax(-1), mine.softmax(-1)
    expected = float((p * (p / q).log()).sum(-1).mean())
    assert judged_values(student, judge, plan().spec)[KL] == pytest.approx(expected, rel=1e-3)
    assert judged_values(networks["mv"], judge, plan().spec)[KL] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_very_weights(
    networks: dict[Modality, SegmentedNetwork], data: LabelledClips, taught: Taught, tmp_path: Path
) -> None:
    whole, resumed = disturbed(networks["mv"]), disturbed(networks["mv"])
    run(whole, data, taught)

    class Stop(Rows):
        def row(self, *, epoch: int, **values: Any) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    checkpoint = Checkpoint(tmp_path / "c.safetensors", "key")
    with pytest.raises(KeyboardInterrupt):
        finetune(resumed, data, plan(), taught=taught, recipe=steps(), trunk_rate=RATE, seed=1,
                 log=Stop(), checkpoint=checkpoint)
    resumed = disturbed(networks["mv"])
    log = run(resumed, data, taught, checkpoint=Checkpoint(checkpoint.path, "key", resume=True))
    assert [row["epoch"] for row in log.rows] == [1, 2]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


# ---- what is refused


def test_a_loss_that_is_not_finite_stops_it(
    student: SegmentedNetwork, data: LabelledClips, taught: Taught
) -> None:
    broken = {**taught, "mv": taught["mv"] * torch.nan}
    with pytest.raises(TrainingError, match="the training loss is nan in epoch 1"):
        run(student, data, broken)


def test_logits_of_a_teacher_must_be_there_and_of_these_clips(
    student: SegmentedNetwork, data: LabelledClips, taught: Taught
) -> None:
    with pytest.raises(ConfigError, match=r"logits of residual is 'none'; allowed: \(6, 3\)"):
        run(student, data, {"mv": taught["mv"]})
    with pytest.raises(ConfigError, match=r"logits of mv is \(6, 2\); allowed: \(6, 3\)"):
        run(student, data, {**taught, "mv": taught["mv"][:, :2]})


def test_several_processes_are_refused(
    student: SegmentedNetwork, data: LabelledClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="processes is 2; allowed: 1"):
        run(student, data, {}, recipe=steps().as_qat())
