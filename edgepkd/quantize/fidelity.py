"""How far an INT8 network's answers are from those of the FP32 network, exit by exit."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_LOSS = 0.02
"""An exit that loses more than 2 points of accuracy has fallen."""
MIN_AGREEMENT = 0.95
"""So has one that gives another top label than FP32 to more than one clip in twenty."""


@dataclass(frozen=True)
class ExitFidelity:
    """One exit in FP32 and in INT8, over the same clips."""

    exit: int
    """1..4."""
    accuracy_fp32: float
    accuracy_int8: float
    agreement: float
    """Share of clips with the top label of FP32."""
    sqnr_db: float | None
    """Signal to noise of the logits, without their mean over the classes; None: no noise."""
    kl: float
    """Kullback-Leibler divergence of the INT8 answer from the FP32 one, mean over clips, nats."""

    num_clips: int = 0
    """0: not known, of an older version."""

    @property
    def fell(self) -> bool:
        """Whether someone should know; a single clip says nothing, however few there are."""
        one_clip = 1 / self.num_clips if self.num_clips else 0.0
        lost, turned = self.accuracy_fp32 - self.accuracy_int8, 1 - self.agreement
        return (lost > max(MAX_LOSS, one_clip) + 1e-9
                or turned > max(1 - MIN_AGREEMENT, one_clip) + 1e-9)


def exit_fidelity(
    reference: Tensor, quantized: Tensor, labels: Sequence[int]
) -> tuple[ExitFidelity, ...]:
    """Compare logits [N, 4, classes] of N clips with `labels` [N]."""
    truth, found = torch.tensor(labels), []
    for k in range(reference.shape[1]):
        plain, mine = reference[:, k].double(), quantized[:, k].double()
        tops = [logits.argmax(dim=-1) for logits in (plain, mine)]
        right = [float((top == truth).double().mean()) for top in tops]
        found.append(ExitFidelity(
            k + 1, right[0], right[1], float((tops[0] == tops[1]).double().mean()),
            sqnr_db(plain, mine), divergence(plain, mine), len(labels)))
    return tuple(found)


def divergence(reference: Tensor, quantized: Tensor) -> float:
    """Mean over all answers of KL(reference || quantized), nats; logits [..., classes]."""
    kl = F.kl_div(quantized.log_softmax(-1), reference.log_softmax(-1), log_target=True,
                  reduction="none").sum(dim=-1)
    return max(0.0, float(kl.mean()))


def sqnr_db(reference: Tensor, quantized: Tensor) -> float | None:
    """Signal to noise of logits [..., classes], without their mean; None: no noise."""
    signal = reference - reference.mean(dim=-1, keepdim=True)
    noise = float((quantized - quantized.mean(dim=-1, keepdim=True) - signal).square().sum())
    if noise == 0:
        return None  # JSON knows no infinity
    return 10 * math.log10(max(float(signal.square().sum()), sys.float_info.min) / noise)
