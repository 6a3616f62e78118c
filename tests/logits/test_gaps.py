"""Gaps between two forms of a cascade: what answers is judged, with room for few clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.errors import ConfigError
from edgepkd.logits.gaps import CASCADE, Allowed, Form, Gap, doubted, gaps_along, refused

ORDER: Order = ("mv",)
ALLOWED = Allowed(agreement=0.8)
SUMS = WiseWeights.ones(ORDER)
LAST_ONLY = WiseWeights(ORDER, ((0.0,), (0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))
NEVER = ExitPolicy.constant(ORDER, threshold=1.0)


def form(
    name: str, right: Any, *, weights: WiseWeights = SUMS, policy: ExitPolicy = NEVER,
    surely: float = 2.0,
) -> Form:
    """Clips of label 0, four exits; `right` [N, 4]: where an exit says so, by `surely` nats."""
    logits = np.zeros((*np.shape(right), 2))
    logits[..., 0] = np.where(right, surely, -surely)
    return Form(name, {"mv": logits}, weights, policy)


def right(clips: int, *counts: int) -> np.ndarray:
    """Exit k right on the first `counts[k]` of `clips`."""
    return np.arange(clips)[:, None] < np.asarray(counts)


def compared(ours: Form, theirs: Form, clips: int, *, labelled: bool = True) -> tuple[Gap, ...]:
    labels = np.arange(clips) % 2  # half of them 0: chance is 50 %
    turn = np.where(labels == 1, -1.0, 1.0)[:, None, None]
    forms = [Form(one.name, {"mv": one.logits["mv"] * 1.0}, one.weights, one.policy)
             for one in (ours, theirs)]
    for one in forms:
        one.logits["mv"][..., 0] *= turn[..., 0]
    return gaps_along(*forms, labels if labelled else None, [str(i) for i in range(clips)])


def test_every_step_and_the_cascade_are_compared() -> None:
    gaps = compared(form("INT8", right(100, 60, 70, 80, 80)),
                    form("FP32", right(100, 60, 80, 80, 90)), 100)
    assert [gap.step for gap in gaps] == ["mv_1", "mv_2", "mv_3", "mv_4", CASCADE]
    assert [gap.exit_flips for gap in gaps] == [None] * 4 + [0.0]
    first = gaps[0]
    assert (first.form, first.against, first.agreement.value) == ("INT8", "FP32", 1.0)
    assert first.accuracy_loss is not None
    assert first.nll_loss is not None
    assert first.accuracy_loss.value == first.nll_loss.value == 0


def test_a_step_of_weight_0_is_left_out_and_vetoes_nothing() -> None:
    broken = form("INT8", right(100, 0, 0, 0, 90), weights=LAST_ONLY)
    gaps = compared(broken, form("FP32", right(100, 90, 90, 90, 90), weights=LAST_ONLY), 100)
    assert [gap.step for gap in gaps] == ["mv_4", CASCADE]
    assert refused(gaps, ALLOWED) == doubted(gaps, ALLOWED) == ()
    summed = compared(form("INT8", right(100, 0, 0, 0, 90)),
                      form("FP32", right(100, 90, 90, 90, 90)), 100)
    assert len(refused(summed, ALLOWED)) > 3


def test_a_step_that_changes_one_form_only_is_compared() -> None:
    gaps = compared(form("INT8", right(9, 5, 5, 5, 5), weights=LAST_ONLY),
                    form("FP32", right(9, 5, 5, 5, 5)), 9)
    assert [gap.step for gap in gaps] == ["mv_1", "mv_2", "mv_3", "mv_4", CASCADE]


def test_an_early_step_at_chance_is_told_and_not_judged() -> None:
    int8, fp32 = right(100, 50, 90, 90, 90), right(100, 50, 90, 90, 90)
    int8[:, 0] = ~int8[:, 0]
    weights = WiseWeights(ORDER, ((1.0,), (0.0, 1.0), (0.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1.0)))
    gaps = compared(form("INT8", int8, weights=weights), form("FP32", fp32, weights=weights), 100)
    assert [gap.is_judged for gap in gaps] == [False, True, True, True, True]
    assert gaps[0].agreement.value == 0
    assert refused(gaps, ALLOWED) == ()
    unlabelled = compared(form("INT8", int8, weights=weights),
                          form("FP32", fp32, weights=weights), 100, labelled=False)
    assert all(gap.is_judged for gap in unlabelled)
    assert unlabelled[0].accuracy_loss is unlabelled[0].nll_loss is None
    assert refused(unlabelled, ALLOWED) == (
        "the ensemble at mv_1 of INT8 gives the answer of FP32 for 0.0 % [0.0, 3.7] of 100 clips;"
        " allowed: 80 % or more",)


def test_a_step_at_chance_that_clips_leave_at_is_judged() -> None:
    policy = ExitPolicy(ORDER, (1.0,) * 4, (0.5, 1.0, 1.0, 0.0))
    gaps = compared(form("INT8", right(40, 20, 20, 20, 20), policy=policy),
                    form("FP32", right(40, 20, 20, 20, 20), policy=policy), 40)
    assert [gap.is_judged for gap in gaps] == [True, False, False, True, True]


@pytest.mark.parametrize(("clips", "wrong", "says"), [
    (20, 6, "doubted"), (20, 9, "refused"), (200, 46, "doubted"), (200, 60, "refused"),
    (20, 4, "")])
def test_agreement_is_refused_where_the_interval_is_below_the_floor(
    clips: int, wrong: int, says: str
) -> None:
    ours, theirs = right(clips, *[clips - wrong] * 4), right(clips, *[clips] * 4)
    gaps = compared(form("INT8", ours), form("FP32", theirs), clips, labelled=False)
    assert (bool(refused(gaps, ALLOWED)), bool(doubted(gaps, ALLOWED))) == (
        says == "refused", says == "doubted")


@pytest.mark.parametrize(("clips", "lost", "says"), [
    (20, 1, ""), (20, 3, ""), (20, 4, "doubted"), (20, 6, "refused"), (300, 5, ""),
    (300, 9, "doubted"), (300, 20, "refused")])
def test_right_answers_lost_are_refused_where_the_interval_is_beyond_two_points(
    clips: int, lost: int, says: str
) -> None:
    allowed = Allowed(agreement=0.0, nll_loss=9.0)
    gaps = compared(form("INT8", right(clips, *[clips - lost] * 4)),
                    form("FP32", right(clips, *[clips] * 4)), clips)
    found = refused(gaps, allowed)
    assert (bool(found), bool(doubted(gaps, allowed))) == (says == "refused", says == "doubted")
    if says == "refused":
        assert f"mv_1 of INT8 is right {100 * lost / clips:.1f} [" in found[0]
        assert found[0].endswith(f"of FP32 on {clips} clips; allowed: 2")


def test_loss_is_judged_though_all_answers_are_the_same() -> None:
    all_right = right(60, 60, 60, 60, 60)
    gaps = compared(form("INT8", all_right, surely=0.05), form("FP32", all_right), 60)
    found = refused(gaps, ALLOWED)
    assert gaps[0].agreement.value == 1.0
    assert "mv_1 of INT8 has 0.54 [" in found[0]
    assert found[0].endswith("nats more loss than that of FP32 on 60 clips; allowed: 0.05")
    assert refused(compared(form("INT8", right(1, 1, 1, 1, 1), surely=0.05),
                            form("FP32", right(1, 1, 1, 1, 1)), 1), ALLOWED) == ()


def test_exits_taken_elsewhere_are_counted_and_not_refused() -> None:
    sure = right(50, 50, 50, 50, 50)
    first = ExitPolicy(ORDER, (1.0,) * 4, (0.5, 1.0, 1.0, 0.0))
    gaps = compared(form("INT8", sure, policy=first), form("FP32", sure), 50)
    assert gaps[-1].exit_flips == 1.0
    assert gaps[-1].agreement.value == 1.0
    assert refused(gaps, Allowed(agreement=0.8, nll_loss=9.0)) == ()


def test_forms_are_of_one_order() -> None:
    other: Order = ("iframe",)
    wrong = Form("x", {"iframe": np.zeros((1, 4, 2))}, WiseWeights.ones(other),
                 ExitPolicy.constant(other, threshold=1.0))
    with pytest.raises(ConfigError, match="order of the forms"):
        gaps_along(form("INT8", right(1, 1, 1, 1, 1)), wrong, None, ["a"])
