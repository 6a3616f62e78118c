"""What probabilities and answers are worth: accuracy, calibration, and how sure we can be of both.

numpy only. Clips of one group (a person, a recording) are not independent, so intervals draw whole
groups. Seeds are fixed: the same answers give the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from edgepkd.cascade import Floats, Labels
from edgepkd.config import check

Bools = NDArray[np.bool_]

NUM_BINS = 15
NUM_DRAWS = 2000
SEED = 20240702
FEW_GROUPS = 10
"""Below so many groups the interval itself is hardly known; say so beside it."""
_TAILS = (2.5, 97.5)
_Z95 = 1.959964
_STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060)
"""97.5 % points of Student's t for 1..8 degrees of freedom."""


@dataclass(frozen=True)
class Accuracy:
    """Right answers of a number of clips."""

    num_right: int
    num_clips: int

    @property
    def value(self) -> float:
        """Share of right answers, 0..1."""
        return self.num_right / self.num_clips

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval; clips count as independent, so it is narrow for groups."""
        n, p = self.num_clips, self.value
        centre = (p + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
        half = _Z95 / (1 + _Z95**2 / n) * sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


@dataclass(frozen=True)
class Interval:
    """A share, or a difference of two, with its 95 % interval."""

    value: float
    low: float
    high: float
    num_clips: int
    num_groups: int
    """Groups drawn; equal to `num_clips` where every clip is a group of its own."""

    @property
    def few_groups(self) -> bool:
        """Whether there are too few groups to trust the interval's width."""
        return self.num_groups < FEW_GROUPS

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def is_in_top(scores: Floats, labels: Labels, *, k: int) -> Bools:
    """Whether the label is among the `k` largest of `scores` [N, classes]: [N].

    Of equal scores the lower index counts as the larger, as argmax does. With `k` classes or fewer
    this is always true.
    """
    check(k >= 1, "k", got=k, allowed="1 or more")
    rows = np.arange(len(labels))
    own = scores[rows, labels][:, None]
    before = np.arange(scores.shape[1])[None] < labels[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(axis=1)
    found: Bools = rank < k
    return found


def top_k_accuracy(scores: Floats, labels: Labels, *, k: int) -> float:
    """Share of `labels` [N] among the `k` largest of `scores` [N, classes], 0..1."""
    return float(is_in_top(scores, labels, k=k).mean())


def negative_log_likelihood(probabilities: Floats, labels: Labels) -> float:
    """Mean of -log of the label's probability (nats) for `probabilities` [N, classes]."""
    return float(label_losses(probabilities, labels).mean())


def label_losses(probabilities: Floats, labels: Labels) -> Floats:
    """-log of the label's probability (nats), [N], for `probabilities` [N, classes]."""
    own = probabilities[np.arange(len(labels)), labels]
    losses: Floats = -np.log(np.maximum(own, np.finfo(np.float64).tiny))
    return losses


def mean_and_error(values: Floats, groups: Sequence[str]) -> tuple[float, float]:
    """Mean of `values` [N] and its standard error over `groups` [N], infinite for one group."""
    names, member_of = np.unique(np.asarray(groups, str), return_inverse=True)
    mean, count = float(values.mean()), len(names)
    if count < 2:
        return mean, float("inf")
    apart = np.bincount(member_of, weights=values - mean)
    return mean, float(np.sqrt(count / (count - 1) * (apart**2).sum()) / len(values))


def calibration_error(
    probabilities: Floats, labels: Labels, *, num_bins: int = NUM_BINS
) -> float:
    """Expected calibration error (ECE) of `probabilities` [N, classes], 0..1.

    Clips are sorted into `num_bins` bins of equal width by their confidence, the largest
    probability: bin b of B holds (b/B, (b+1)/B]. With n_b clips in bin b, of which the share acc_b
    is answered rightly at the mean confidence conf_b,

        ECE = sum_b n_b / N * |acc_b - conf_b|

    (Guo et al. 2017; B = 15). Biased upwards where clips are few.
    """
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(sure * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=right - sure, minlength=num_bins)  # n_b (acc_b - conf_b)
    return float(np.abs(gaps).sum() / len(labels))


def confusion_matrix(answers: Labels, labels: Labels, *, num_classes: int) -> Labels:
    """Counts [classes, classes]: row = true label, column = answer."""
    cells = np.bincount(labels * num_classes + answers, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes).astype(np.int64)


def accuracy_interval(
    right: Bools, groups: Sequence[str], *, num_draws: int = NUM_DRAWS, seed: int = SEED
) -> Interval:
    """Share of `right` [N] with a 95 % interval that respects `groups` [N].

    The widest, at each end, of three: the group bootstrap (percentiles 2.5 and 97.5 of the share
    over `num_draws` draws of whole groups with replacement); the share +- t times its standard
    error over groups, Student's t with one degree of freedom less than there are groups, because
    the bootstrap is too narrow for few; and Wilson's for N independent clips, because where all is
    right the other two would claim certainty.
    """
    share = mean_interval(np.asarray(right, np.float64), groups, num_draws=num_draws, seed=seed)
    low, high = Accuracy(int(np.sum(right)), len(right)).interval
    return replace(share, low=max(0.0, min(share.low, low)), high=min(1.0, max(share.high, high)))


def difference_interval(
    right_a: Bools, right_b: Bools, groups: Sequence[str], *, num_draws: int = NUM_DRAWS,
    seed: int = SEED,
) -> Interval:
    """Accuracy of method A less that of B on the same clips, with a paired 95 % interval.

    As `accuracy_interval`, of the differences clip by clip; a bootstrap of single clips takes the
    place of Wilson's interval. Where the methods are right on the very same clips it is [0, 0].
    """
    check(len(right_a) == len(right_b), "answers of the two methods",
          got=(len(right_a), len(right_b)), allowed="equally many, to the same clips")
    paired = np.asarray(right_a, np.float64) - np.asarray(right_b, np.float64)
    grouped = mean_interval(paired, groups, num_draws=num_draws, seed=seed)
    single = mean_interval(paired, [str(i) for i in range(len(paired))], num_draws=num_draws,
                             seed=seed)
    return replace(grouped, low=max(-1.0, min(grouped.low, single.low)),
                   high=min(1.0, max(grouped.high, single.high)))


def mean_interval(
    values: Floats, groups: Sequence[str], *, num_draws: int = NUM_DRAWS, seed: int = SEED
) -> Interval:
    """Mean of any `values` [N]; the wider of the group bootstrap and Student's t over groups."""
    check(len(values) == len(groups) >= 1, "clips and their groups",
          got=(len(values), len(groups)), allowed="equally many, 1 or more")
    names, member_of = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(member_of, weights=values)
    sizes = np.bincount(member_of)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(names), size=(num_draws, len(names)))
    low, high = np.percentile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), _TAILS)
    mean, half = float(values.mean()), 0.0
    if len(names) > 1:
        apart = sums - mean * sizes
        half = students_t(len(names) - 1) / len(values) * float(
            np.sqrt(len(names) / (len(names) - 1) * (apart**2).sum()))
    return Interval(mean, min(float(low), mean - half), max(float(high), mean + half), len(values),
                    len(names))


def students_t(degrees: int) -> float:
    """97.5 % point of Student's t, to 0.1 % (exact up to 8 degrees of freedom)."""
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1]
    z = _Z95  # Cornish and Fisher's expansion
    return (z + (z**3 + z) / (4 * degrees)
            + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
            + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3))
