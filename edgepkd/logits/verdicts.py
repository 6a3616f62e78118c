"""Is a network better than chance, is an answer a constant, is a cascade worth its best part?

Judged on labelled clips, best on ones that nothing was fitted on. Few clips prove little: each
verdict is one that an interval bears out, so that a handful of clips condemns nothing. numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgepkd.cascade import (
    ExitPolicy,
    Floats,
    Labels,
    Order,
    WiseWeights,
    order_key,
    prefix_logits,
    replay,
)
from edgepkd.config import NUM_EXITS, Modality
from edgepkd.logits.clip_logits import ModalityLogits
from edgepkd.logits.fit_files import Fitted
from edgepkd.logits.metrics import (
    FEW_GROUPS,
    Accuracy,
    Interval,
    accuracy_interval,
    mean_interval,
    students_t,
)
from edgepkd.logits.wise import in_order

CONSTANT_SHARE = 0.95
"""An answer that so many clips get is a constant, where the clips' labels are not one."""


def chance(labels: Labels) -> float:
    """Share of the most frequent of `labels` [N]: what a constant answer gets at best."""
    return float(np.bincount(labels).max() / len(labels))


def cautious_interval(values: Floats, groups: Sequence[str]) -> Interval:
    """Mean of paired differences `values` [N] with a 95 % interval that few clips do not narrow.

    Student's t over clips, with one difference of 0 added to them: three clips that all lost then
    prove nothing, as in an exact test (an Agresti-Min interval for differences of any size). From
    ten groups on it is at least as wide as `metrics.mean_interval` of whole groups; fewer say
    nothing about how groups differ.
    """
    added = np.append(values, 0.0)
    half = students_t(len(values)) * float(added.std(ddof=1) / np.sqrt(len(added)))
    centre, mean = float(added.mean()), float(np.mean(values))
    found = Interval(mean, min(mean, centre - half), max(mean, centre + half), len(values),
                     len(set(groups)))
    if found.few_groups:
        return found
    grouped = mean_interval(values, groups)
    return replace(found, low=min(found.low, grouped.low), high=max(found.high, grouped.high))


# ---- networks


@dataclass(frozen=True)
class Worth:
    """What a network is worth at its best exit."""

    modality: Modality
    best_exit: int
    """1..4, the one with most right answers."""
    top1: Interval
    """Of that exit; over groups, where there are ten or more, else over clips."""
    chance: float
    """Share of the most frequent label."""

    @property
    def beats_chance(self) -> bool:
        """Whether the whole interval lies above chance."""
        return self.top1.low > self.chance

    def __str__(self) -> str:
        told = ("no better than chance" if self.top1.value <= self.chance else
                f"not told from chance by {self.top1.num_clips} clips")
        return (f"{self.modality}: {self.top1} at its best exit, {self.modality}_{self.best_exit};"
                f" {told} ({100 * self.chance:.0f} %)")


def worth_of_networks(
    logits: ModalityLogits, labels: Labels, groups: Sequence[str]
) -> tuple[Worth, ...]:
    """Each network of `logits` [N, 4, classes] at its best exit, against chance."""
    units = groups if len(set(groups)) >= FEW_GROUPS else [str(i) for i in range(len(labels))]
    found = []
    for modality, own in logits.items():
        right = own.argmax(axis=2) == labels[:, None]  # [N, 4]
        best = int(right.sum(axis=0).argmax())
        found.append(Worth(modality, best + 1, accuracy_interval(right[:, best], units),
                           chance(labels)))
    return tuple(found)


def at_chance(logits: ModalityLogits, labels: Labels, groups: Sequence[str]) -> tuple[str, ...]:
    """Networks whose best exit is not shown to beat chance, in words."""
    return tuple(str(worth) for worth in worth_of_networks(logits, labels, groups)
                 if not worth.beats_chance)


# ---- answers


def constant_answer(
    answers: Labels, labels: Labels, *, of: str, label_names: Sequence[str]
) -> str | None:
    """That `answers` [N] of `of` are (almost) one label while `labels` are not, in words.

    Said where `CONSTANT_SHARE` of the clips get that answer, and Wilson's interval of this share is
    nearer to 1 than to the share of the most frequent label: of two labels, from 12 clips on.
    """
    counts = np.bincount(answers, minlength=len(label_names))
    top = int(counts.argmax())
    share, usual = Accuracy(int(counts[top]), len(answers)), chance(labels)
    is_shown = share.interval[0] > (1 + usual) / 2
    if share.value < CONSTANT_SHARE or usual >= CONSTANT_SHARE or not is_shown:
        return None
    return (f"{of} answers {label_names[top]!r} for {100 * share.value:.1f} % of {len(answers)}"
            f" clips, of which {100 * float(np.mean(labels == top)):.1f} % are; allowed: less than"
            f" {100 * CONSTANT_SHARE:g} %")


@dataclass(frozen=True)
class Shortfall:
    """A cascade that answers worse than a part of it."""

    of: str
    """The cascade, in words."""
    best: str
    """Its best part: a network (mv) or an exit (mv_3)."""
    difference: Interval
    """Accuracy of the cascade less that of the part, same clips (`cautious_interval`)."""
    best_accuracy: float

    @property
    def is_shown(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.difference.high < 0

    @property
    def best_network(self) -> str:
        """The network of the best part: what `--order` takes."""
        return self.best.split("_")[0]

    def __str__(self) -> str:
        gap = self.difference
        return (f"{self.of} is right {points(gap, sign=-1)} points less often than {self.best}"
                f" alone ({100 * self.best_accuracy:.1f} % of {gap.num_clips} clips); allowed: no"
                " less often than its best part")


def points(interval: Interval, *, sign: int = 1) -> str:
    """A difference in points with its interval; `sign` -1 turns it round."""
    ends = sorted((100 * sign * interval.low, 100 * sign * interval.high))
    return f"{100 * sign * interval.value:.1f} [{ends[0]:.1f}, {ends[1]:.1f}]"


def shortfall(
    answers: Labels, parts: Mapping[str, Labels], labels: Labels, groups: Sequence[str], *, of: str
) -> Shortfall:
    """How `answers` [N] compare with the best of `parts` (name -> answers [N]).

    The best part is chosen on the very clips, which flatters it; a cascade whose weights were
    fitted on them is flattered too.
    """
    right = {name: part == labels for name, part in parts.items()}
    best = max(right, key=lambda name: int(right[name].sum()))
    paired = (answers == labels).astype(np.float64) - right[best]
    return Shortfall(of, best, cautious_interval(paired, groups), float(right[best].mean()))


# ---- a whole cascade


@dataclass(frozen=True)
class Verdicts:
    """What speaks against deploying a cascade; empty: nothing that these clips can show."""

    constant: tuple[str, ...]
    """Answers that are a constant, in words."""
    shortfalls: tuple[Shortfall, ...]
    """Answers worse than those of the best part."""

    @property
    def words(self) -> tuple[str, ...]:
        """All of it, a sentence each."""
        return (*self.constant, *map(str, self.shortfalls))


def judge_cascade(
    logits: ModalityLogits, labels: Labels, groups: Sequence[str], *, weights: WiseWeights,
    policy: ExitPolicy | None = None, fitted: Fitted | None = None, label_names: Sequence[str],
) -> Verdicts:
    """Judge the full chain under `weights`, and the cascade with early exits where `policy` is.

    Its parts are every exit alone and, of several networks, each alone with all its exits,
    weighed by `fitted` where that has its order, else summed.
    """
    order = weights.order
    stacked = in_order(logits, order)
    ways = {"the full chain": prefix_logits(stacked, weights)[:, -1].argmax(axis=1)}
    if policy is not None:
        ways["the cascade with early exits"] = replay(stacked, weights, policy).labels
    parts = _parts(logits, order, fitted or {})
    gaps = [shortfall(answers, parts, labels, groups, of=f"{of}, order {order_key(order)},")
            for of, answers in ways.items()]
    said = [constant_answer(answers, labels, of=of, label_names=label_names)
            for of, answers in ways.items()]
    return Verdicts(tuple(text for text in said if text is not None),
                    tuple(gap for gap in gaps if gap.is_shown))


def _parts(logits: ModalityLogits, order: Order, fitted: Fitted) -> dict[str, Labels]:
    """Answers of each exit alone, and of each network alone where there are several."""
    parts = {f"{m}_{k + 1}": logits[m][:, k].argmax(axis=1) for m in order
             for k in range(NUM_EXITS)}
    for modality in order if len(order) > 1 else ():
        weights = fitted[(modality,)][0] if (modality,) in fitted else WiseWeights.ones((modality,))
        parts[modality] = prefix_logits(logits[modality], weights)[:, -1].argmax(axis=1)
    return parts
