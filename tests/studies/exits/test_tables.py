"""The study's tables on answers that are known."""

from __future__ import annotations

import numpy as np
import pytest

from edgepkd.studies.exits.tables import exit_table, mean_table, weigh, weighing_table
from tests.studies.exits.made_answers import made_answers

ANSWERED = made_answers(wrong_share={"ce": 0.6, "pkd": 0.2})


def test_accuracies_are_shares_of_clips_and_seeds() -> None:
    row = next(r for r in exit_table(ANSWERED) if r["exit"] == "residual_2")
    answers = ANSWERED.logits["pkd", "residual"][:, :, 1].argmax(axis=-1)
    assert row["accuracy"]["pkd"].value == pytest.approx((answers == ANSWERED.truth).mean())
    assert row["accuracy"]["pkd"].num_groups == 12


def test_a_real_gain_is_outside_its_interval_and_equal_arms_have_none() -> None:
    rows = exit_table(ANSWERED)
    assert len(rows) == 12
    for row in rows:
        gain = row["less_ce"]["pkd"]
        if row["exit"].endswith("_4"):
            assert (gain.value, gain.low, gain.high) == (0, 0, 0)
        else:
            assert gain.low > 0
        assert row["less_ce"]["ce"].value == 0
        assert row["less_ce"]["iframe"].value == pytest.approx(
            row["accuracy"]["iframe"].value - row["accuracy"]["ce"].value)


def test_means_are_over_the_internal_classifiers_alone() -> None:
    exits = {row["exit"]: row for row in exit_table(ANSWERED)}
    means = {row["network"]: row for row in mean_table(ANSWERED)}
    expected = np.mean([exits[f"mv_{k}"]["accuracy"]["pkd"].value for k in (1, 2, 3)])
    assert means["mv"]["accuracy"]["pkd"].value == pytest.approx(expected)
    together = np.mean([means[m]["less_ce"]["pkd"].value for m in ("mv", "residual", "iframe")])
    assert means["all"]["less_ce"]["pkd"].value == pytest.approx(together)


@pytest.mark.slow
def test_no_lateral_answers_as_the_exit_alone_and_wise_gains_from_independent_exits() -> None:
    rows = weighing_table(ANSWERED, "pkd")
    exits = {row["exit"]: row for row in exit_table(ANSWERED)}
    for row in rows[:-1]:
        assert row["accuracy"]["no_lateral"].value == pytest.approx(
            exits[row["position"]]["accuracy"]["pkd"].value)
    assert rows[-1]["position"] == "mean of all"
    assert rows[-2]["wise_less"]["no_lateral"].low > 0


@pytest.mark.slow
def test_a_fold_is_weighed_without_its_own_answers() -> None:
    """Other labels in a fold change the weights of the others' folds, never of its own."""
    before = weigh(ANSWERED, "ce")["wise"]
    changed = made_answers(wrong_share={"ce": 0.6, "pkd": 0.2})
    mine = changed.folds == 0
    changed.truth[mine] = (changed.truth[mine] + 1) % 3
    after = weigh(changed, "ce")["wise"]
    # Fold 0's answers are the same; only what counts as right is another label.
    assert (before[mine] + after[mine]).max() <= 1
    assert not np.array_equal(before[~mine], after[~mine])
