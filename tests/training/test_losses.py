"""Losses against a computation by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edgepkd.training.losses import (
    class_weights,
    clip_loss,
    distillation_loss,
    exit_loss,
    label_loss,
)
from edgepkd.training.recipe import ClassWeights


def test_distillation_equals_a_hand_computation() -> None:
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    teacher = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    # Teacher: (1/2, 1/2) and (3/4, 1/4); log softmax of the student from log(1 + e^-d).
    first = 0.5 * math.log(1 + math.exp(-1)) + 0.5 * (1 + math.log(1 + math.exp(-1)))
    second = 0.75 * (2 + math.log(1 + math.exp(-2))) + 0.25 * math.log(1 + math.exp(-2))
    assert distillation_loss(student, teacher).item() == pytest.approx((first + second) / 2)


def test_temperature_divides_both_logits() -> None:
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    expected = distillation_loss(student / 4, teacher / 4)
    torch.testing.assert_close(distillation_loss(student, teacher, temperature=4.0), expected)


def test_teacher_and_student_may_have_temperatures_of_their_own() -> None:
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    expected = distillation_loss(student / 2, teacher / 0.5)
    found = distillation_loss(student, teacher, temperature=2.0, teacher_temperature=0.5)
    torch.testing.assert_close(found, expected)
    assert not torch.isclose(found, distillation_loss(student, teacher, temperature=2.0))
    labels = torch.tensor([0, 1, 2, 0])
    mixed = exit_loss(student, teacher=teacher, labels=labels, temperature=2.0,
                      teacher_temperature=0.5, label_share=0.25)
    hard = torch.nn.functional.cross_entropy(student, labels)
    torch.testing.assert_close(mixed, 0.75 * expected + 0.25 * hard)


def test_balanced_weights_make_every_class_count_alike_and_keep_the_size_of_the_loss() -> None:
    labels = [0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
    weights = class_weights(labels, num_classes=3, rule="balanced")
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([12 / 18, 12 / 6, 12 / 12]))
    assert float(weights[labels].mean()) == pytest.approx(1)
    logits = torch.randn(12, 3)
    per_class = [torch.nn.functional.cross_entropy(logits[torch.tensor(labels) == c],
                                                   torch.full((labels.count(c),), c))
                 for c in range(3)]
    torch.testing.assert_close(label_loss(logits, torch.tensor(labels), weights=weights),
                               torch.stack(per_class).mean())


def test_a_batch_of_one_class_keeps_its_weight() -> None:
    logits, labels = torch.randn(4, 2), torch.zeros(4, dtype=torch.long)
    plain = torch.nn.functional.cross_entropy(logits, labels)
    found = label_loss(logits, labels, weights=torch.tensor([3.0, 0.6]))
    torch.testing.assert_close(found, 3 * plain)


@pytest.mark.parametrize(("counts", "rule", "weighed"), [
    ((2, 5), "auto", True), ((2, 4), "auto", False), ((2, 4), "balanced", True),
    ((2, 9), "none", False), ((2, 0), "balanced", True),
])
def test_auto_weighs_classes_that_differ_more_than_twofold(
    counts: tuple[int, int], rule: ClassWeights, weighed: bool
) -> None:
    labels = [0] * counts[0] + [1] * counts[1]
    found = class_weights(labels, num_classes=2, rule=rule)
    assert (found is not None) == weighed
    assert found is None or bool(torch.isfinite(found).all())


def test_weights_reach_the_labels_part_of_an_exits_loss_and_not_the_teachers() -> None:
    student, teacher, labels = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0, 1, 2] * 2)
    weights = torch.tensor([0.5, 1.0, 3.0])
    hard = label_loss(student, labels, weights=weights)
    soft = distillation_loss(student, teacher)
    torch.testing.assert_close(
        exit_loss(student, teacher=teacher, labels=labels, label_share=0.25, weights=weights),
        0.75 * soft + 0.25 * hard)
    torch.testing.assert_close(
        exit_loss(student, teacher=None, labels=labels, weights=weights), hard)


def test_the_teacher_is_the_optimum_and_gets_no_gradient() -> None:
    teacher = torch.randn(5, 4, requires_grad=True)
    student = teacher.detach().clone().requires_grad_()
    distillation_loss(student, teacher).backward()
    assert teacher.grad is None
    torch.testing.assert_close(student.grad, torch.zeros(5, 4), atol=1e-7, rtol=0)


def test_sure_students_stay_finite() -> None:
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = distillation_loss(student, torch.tensor([[-1e4, 1e4]]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert torch.isfinite(student.grad).all()


def test_exit_loss_mixes_labels_and_teacher() -> None:
    student, teacher, labels = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0, 1, 2] * 2)
    hard = torch.nn.functional.cross_entropy(student, labels)
    soft = distillation_loss(student, teacher)
    mixed = exit_loss(student, teacher=teacher, labels=labels, label_share=0.25)
    torch.testing.assert_close(mixed, 0.75 * soft + 0.25 * hard)
    torch.testing.assert_close(exit_loss(student, teacher=None, labels=labels), hard)


def test_temperature_softens_the_teachers_part_alone() -> None:
    student, teacher, labels = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0, 1, 2] * 2)
    hard = torch.nn.functional.cross_entropy(student, labels)
    soft = distillation_loss(student / 3, teacher / 3)
    mixed = exit_loss(student, teacher=teacher, labels=labels, temperature=3.0, label_share=0.5)
    torch.testing.assert_close(mixed, 0.5 * soft + 0.5 * hard)
    assert not torch.isclose(soft, distillation_loss(student, teacher))


def test_the_gradient_is_that_of_kl_without_a_factor_of_squared_temperature() -> None:
    student, teacher = torch.randn(5, 4, dtype=torch.float64, requires_grad=True), torch.randn(5, 4)
    distillation_loss(student, teacher.double(), temperature=2.0).backward()
    difference = torch.softmax(student.detach() / 2, 1) - torch.softmax(teacher.double() / 2, 1)
    torch.testing.assert_close(student.grad, difference / (5 * 2.0))


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e30])
def test_extreme_logits_on_both_sides_give_finite_losses_and_gradients(scale: float) -> None:
    student = torch.tensor([[scale, -scale, 0.0]], requires_grad=True)
    loss = exit_loss(student, teacher=torch.tensor([[-scale, scale, 0.0]]),
                     labels=torch.tensor([1]), label_share=0.3)
    loss.backward()
    assert loss.item() == pytest.approx(2 * scale)
    torch.testing.assert_close(student.grad, torch.tensor([[1.0, -1.0, 0.0]]))


def test_label_smoothing_reaches_the_backbones_loss() -> None:
    logits, labels = torch.randn(4, 3, 5), torch.tensor([0, 1, 2, 3])
    log_probabilities = torch.log_softmax(logits.mean(1), dim=1)
    targets = torch.nn.functional.one_hot(labels, 5) * 0.9 + 0.1 / 5
    torch.testing.assert_close(clip_loss(logits, labels, label_smoothing=0.1),
                               -(targets * log_probabilities).sum(1).mean())


def test_clip_loss_averages_logits_before_softmax() -> None:
    logits, labels = torch.randn(4, 3, 5), torch.tensor([0, 1, 2, 3])
    expected = torch.nn.functional.cross_entropy(logits.sum(1) / 3, labels)
    torch.testing.assert_close(clip_loss(logits, labels), expected)
