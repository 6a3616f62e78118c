"""Losses, as plain functions of logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def clip_loss(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of logits averaged over temporal segments (paper.md 1.4).

    `logits` is [clips, segments, classes], `labels` [clips]; returns a scalar.
    """
    averaged = logits.mean(dim=1)  # [clips, classes]
    return F.cross_entropy(averaged, labels, label_smoothing=label_smoothing)


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of the student's distribution to the teacher's (paper.md 3.3).

    mean_n -sum_c softmax(teacher_n / T)_c * log softmax(student_n / T)_c, without a factor T^2, as
    in the reference. `student` and `teacher` are logits [N, classes]; returns a scalar. The teacher
    gets no gradient. log_softmax keeps sure students finite (paper.md 6.18).
    """
    targets = F.softmax(teacher.detach() / temperature, dim=1)  # [N, classes]
    log_probabilities = F.log_softmax(student / temperature, dim=1)  # [N, classes]
    return -(targets * log_probabilities).sum(dim=1).mean()


def exit_loss(
    student: Tensor,
    *,
    teacher: Tensor | None,
    labels: Tensor,
    temperature: float = 1.0,
    label_share: float = 0.0,
) -> Tensor:
    """(1 - label_share) * distillation + label_share * cross-entropy; labels alone if no teacher.

    `student` and `teacher` are logits [N, classes], `labels` [N]; returns a scalar.
    """
    if teacher is None:
        return F.cross_entropy(student, labels)
    distilled = distillation_loss(student, teacher, temperature=temperature)
    if label_share == 0:
        return distilled
    return (1 - label_share) * distilled + label_share * F.cross_entropy(student, labels)
