"""Metrics against values counted by hand; intervals against what their definition promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgepkd.errors import ConfigError
from edgepkd.logits.metrics import (
    Accuracy,
    accuracy_interval,
    calibration_error,
    confusion_matrix,
    difference_interval,
    negative_log_likelihood,
    students_t,
    top_k_accuracy,
)


def test_wilson_interval_equals_published_values() -> None:
    low, high = Accuracy(81, 263).interval  # Newcombe 1998, table I, method 3
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert Accuracy(10, 10).interval[1] == pytest.approx(1.0)
    assert Accuracy(0, 10).interval[0] == pytest.approx(0.0)


def test_top_k_counts_the_label_among_the_largest() -> None:
    scores = np.array([[3.0, 2, 1, 0], [0, 1, 2, 3], [0, 3, 2, 1]])
    labels = np.array([0, 1, 3])
    assert [top_k_accuracy(scores, labels, k=k) for k in (1, 2, 3, 9)] == pytest.approx(
        [1 / 3, 1 / 3, 1, 1])


def test_top_1_breaks_ties_as_argmax_does() -> None:
    scores = np.ones((4, 4))
    assert top_k_accuracy(scores, np.arange(4), k=1) == np.mean(scores.argmax(1) == np.arange(4))
    assert top_k_accuracy(scores, np.arange(4), k=2) == 0.5


def test_top_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="k is 0; allowed: 1 or more"):
        top_k_accuracy(np.ones((1, 2)), np.array([0]), k=0)


def test_calibration_error_by_hand() -> None:
    # Two clips at 0.9 (one right), two at 0.6 (both right), one sure and wrong.
    sure = np.array([0.9, 0.9, 0.6, 0.6, 1.0])
    probabilities = np.stack([sure, 1 - sure], axis=1)
    labels = np.array([0, 1, 0, 0, 1])
    expected = (2 * abs(0.5 - 0.9) + 2 * abs(1 - 0.6) + abs(0 - 1.0)) / 5
    assert calibration_error(probabilities, labels) == pytest.approx(expected)


def test_calibration_error_bins_are_open_below_and_closed_above() -> None:
    probabilities = np.array([[0.5, 0.5], [0.6, 0.4]])  # bins (0.4, 0.5] and (0.5, 0.6] of ten
    labels = np.array([0, 1])
    apart = (abs(1 - 0.5) + abs(0 - 0.6)) / 2
    assert calibration_error(probabilities, labels, num_bins=10) == pytest.approx(apart)
    together = abs(0.5 - 0.55)
    assert calibration_error(probabilities, labels, num_bins=1) == pytest.approx(together)


def test_a_perfectly_calibrated_answer_has_a_small_error() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 20000)
    labels = (rng.random(20000) > sure).astype(np.int64)
    probabilities = np.stack([sure, 1 - sure], axis=1)
    assert calibration_error(probabilities, labels) < 0.015
    sharpened = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    assert calibration_error(sharpened, labels) > 0.08


def test_negative_log_likelihood() -> None:
    probabilities = np.array([[0.5, 0.5], [0.25, 0.75]])
    value = negative_log_likelihood(probabilities, np.array([0, 0]))
    assert value == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert np.isfinite(negative_log_likelihood(np.array([[0.0, 1.0]]), np.array([0])))


def test_confusion_matrix_has_true_labels_as_rows() -> None:
    counts = confusion_matrix(np.array([1, 1, 2]), np.array([0, 1, 2]), num_classes=3)
    assert counts.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_groups_that_fail_together_widen_the_interval() -> None:
    right = np.repeat([True, False, True, True], 25)
    alone = [str(i) for i in range(100)]
    together = [str(i // 25) for i in range(100)]
    narrow, wide = accuracy_interval(right, alone), accuracy_interval(right, together)
    assert narrow.value == wide.value == 0.75
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert (narrow.num_groups, wide.num_groups) == (100, 4)
    assert wide.few_groups
    assert not narrow.few_groups


def test_the_interval_claims_no_certainty() -> None:
    wilson = Accuracy(12, 12).interval
    for groups in (["a"] * 12, list("aaabbbcccddd")):
        interval = accuracy_interval(np.ones(12, bool), groups)
        assert (interval.low, interval.high) == pytest.approx(wilson)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        chance = rng.beta(7, 3, 40)  # of each group; mean 0.7
        right = rng.random((40, 5)) < chance[:, None]
        groups = np.repeat(np.arange(40), 5).astype(str).tolist()
        interval = accuracy_interval(right.ravel(), groups, num_draws=300)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.89 <= covered / 200 <= 0.99


def test_three_groups_get_students_interval() -> None:
    right = np.array([1, 1, 1, 0] * 5 + [1, 0, 0, 0] * 5 + [1, 1, 0, 0] * 5, bool)
    groups = ["a"] * 20 + ["b"] * 20 + ["c"] * 20
    interval = accuracy_interval(right, groups)
    shares = np.array([0.75, 0.25, 0.5])
    half = stats.t.ppf(0.975, 2) * shares.std(ddof=1) / np.sqrt(3)  # 0.62: little is known
    assert (interval.low, interval.high) == (0, 1)
    assert half > 0.5
    nothing = np.zeros(60, bool)
    of = difference_interval(right, nothing, groups)
    assert of.high == 1
    assert of.low == pytest.approx(0.5 - half, abs=1e-3)


@pytest.mark.parametrize("degrees", [1, 2, 8, 9, 15, 40, 500])
def test_students_t_equals_scipys(degrees: int) -> None:
    assert students_t(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-3)


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    rng = np.random.default_rng(1)
    a = rng.random(200) < 0.6
    b = a.copy()
    b[np.flatnonzero(a)[:30]] = False  # b loses thirty clips and wins none
    groups = [str(i) for i in range(200)]
    paired = difference_interval(a, b, groups)
    assert paired.value == pytest.approx(0.15)
    assert 0.09 < paired.low < 0.15 < paired.high < 0.21
    own = accuracy_interval(a, groups)
    assert paired.high - paired.low < own.high - own.low
    reverse = difference_interval(b, a, groups)
    assert reverse.value == pytest.approx(-0.15)


def test_the_same_answers_give_the_same_interval() -> None:
    right = np.arange(30) % 3 > 0
    groups = [str(i // 3) for i in range(30)]
    assert accuracy_interval(right, groups) == accuracy_interval(right, groups)


def test_groups_must_fit_the_answers() -> None:
    with pytest.raises(ConfigError, match=r"clips and their groups is \(3, 2\)"):
        accuracy_interval(np.ones(3, bool), ["a", "b"])
    with pytest.raises(ConfigError, match="answers of the two methods"):
        difference_interval(np.ones(3, bool), np.ones(2, bool), ["a"] * 3)
