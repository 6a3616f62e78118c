"""Losses, as plain functions of logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from edgepkd.training.recipe import ClassWeights

UNBALANCED = 2
"""'auto' weighs classes where the largest has more than so many times the clips of the smallest."""


def class_weights(
    labels: Sequence[int], *, num_classes: int, rule: ClassWeights
) -> Tensor | None:
    """Weight of each class in the loss, [classes]; None: all are equal.

    'balanced': n / (K * n_c) for n clips, n_c of class c, and K classes. Their mean over the clips
    is 1, so that the loss stays as large as it was. A class without clips counts as if it had one.
    """
    counts = torch.bincount(torch.tensor(labels), minlength=num_classes).clamp(min=1)
    uneven = int(counts.max()) > UNBALANCED * int(counts.min())
    if rule == "none" or (rule == "auto" and not uneven):
        return None
    return len(labels) / (num_classes * counts.float())


def label_loss(
    logits: Tensor, labels: Tensor, *, weights: Tensor | None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy to the labels, each row times the weight of its class; the mean over rows.

    `logits` is [N, classes], `labels` [N], `weights` [classes]; returns a scalar. It is not divided
    by the weights of the batch: a small batch of a single class would cancel its weight.
    """
    if weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    rows = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
    return (rows * weights.to(rows.device)[labels]).mean()


def clip_loss(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """`label_loss` of logits averaged over temporal segments (paper.md 1.4).

    `logits` is [clips, segments, classes], `labels` [clips]; returns a scalar.
    """
    averaged = logits.mean(dim=1)  # [clips, classes]
    return label_loss(averaged, labels, weights=weights, label_smoothing=label_smoothing)


def distillation_loss(
    student: Tensor, teacher: Tensor, *, temperature: float = 1.0,
    teacher_temperature: float | None = None,
) -> Tensor:
    """Cross-entropy of the student's distribution to the teacher's (paper.md 3.3).

    mean_n -sum_c softmax(teacher_n / T_t)_c * log softmax(student_n / T)_c, without a factor T^2,
    as in the reference, where T_t = T (None here). T_t < T: the teacher's answer is sharpened.
    `student` and `teacher` are logits [N, classes]; returns a scalar. The teacher gets no gradient.
    log_softmax keeps sure students finite (paper.md 6.18).
    """
    targets = F.softmax(teacher.detach() / (teacher_temperature or temperature), dim=1)
    log_probabilities = F.log_softmax(student / temperature, dim=1)  # [N, classes]
    return -(targets * log_probabilities).sum(dim=1).mean()


def exit_loss(
    student: Tensor,
    *,
    teacher: Tensor | None,
    labels: Tensor,
    temperature: float = 1.0,
    teacher_temperature: float | None = None,
    label_share: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """(1 - label_share) * distillation + label_share * label loss; labels alone if no teacher.

    `student` and `teacher` are logits [N, classes], `labels` [N]; `weights` [classes] are of the
    labels' part alone; returns a scalar.
    """
    if teacher is None:
        return label_loss(student, labels, weights=weights)
    distilled = distillation_loss(student, teacher, temperature=temperature,
                                  teacher_temperature=teacher_temperature)
    if label_share == 0:
        return distilled
    hard = label_loss(student, labels, weights=weights)
    return (1 - label_share) * distilled + label_share * hard
