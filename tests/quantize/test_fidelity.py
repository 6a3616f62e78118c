"""FP32 against INT8, exit by exit: by counting, and by the formulas."""

from __future__ import annotations

import math

import pytest
import torch

from edgepkd.quantize.fidelity import ExitFidelity, divergence, exit_fidelity, sqnr_db


def test_each_exit_by_counting() -> None:
    reference = torch.zeros(4, 2, 2)
    reference[:, :, 0] = 2  # says 0 everywhere
    quantized = reference.clone()
    quantized[:2, 1] = torch.tensor([0.0, 2.0])  # exit 2 turns two clips, wrongly
    first, second = exit_fidelity(reference, quantized, [0, 0, 0, 1])
    assert (first.exit, first.accuracy_fp32, first.accuracy_int8) == (1, 0.75, 0.75)
    assert first.agreement == 1
    assert (first.sqnr_db, first.kl) == (None, 0)
    assert not first.fell
    assert (second.accuracy_int8, second.agreement, second.num_clips) == (0.25, 0.5, 4)
    # Two of four clips turned round: their noise is (2, -2), the signal (1, -1) four times.
    assert second.sqnr_db == pytest.approx(-10 * math.log10(2))
    p = math.exp(2) / (1 + math.exp(2))
    assert second.kl == pytest.approx((2 * p - 1) * 2 * 2 / 4, rel=1e-6)
    assert second.fell


@pytest.mark.parametrize(("fp32", "int8", "agreement", "fell"), [
    (0.80, 0.78, 1.0, False), (0.80, 0.77, 1.0, True), (0.5, 0.6, 0.95, False),
    (0.5, 0.6, 0.94, True)])
def test_an_exit_falls_by_its_accuracy_or_by_its_labels(
    fp32: float, int8: float, agreement: float, fell: bool
) -> None:
    assert ExitFidelity(1, fp32, int8, agreement, 20.0, 0.1).fell == fell


@pytest.mark.parametrize(("num_clips", "turned", "fell"), [
    (6, 1, False), (6, 2, True), (40, 2, False), (40, 3, True)])
def test_one_clip_of_a_few_says_nothing(num_clips: int, turned: int, fell: bool) -> None:
    left = 1 - turned / num_clips
    assert ExitFidelity(1, 0.5, 0.5, left, 20.0, 0.1, num_clips).fell == fell


def test_a_shift_of_all_logits_is_no_noise() -> None:
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    assert divergence(z, z + 7) == pytest.approx(0, abs=1e-12)
    noise = sqnr_db(z, z + 7)
    assert noise is None or noise > 200
    assert sqnr_db(z, z * 1.1) == pytest.approx(20)
