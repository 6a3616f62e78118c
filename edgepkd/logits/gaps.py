"""How far two forms of one cascade are apart in what they answer, step by step.

What is deployed is an ensemble that grows along an order and stops when it is sure, so that is what
is compared: the answers and the loss of every prefix, and of the cascade with early exits. Steps
that change nothing (WISE weight 0) are left out. Few clips prove little: a gap is refused where its
interval lies beyond what is allowed, and doubted where it is shown to be worse, and its value alone
lies there. numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgepkd.cascade import (
    ExitPolicy,
    Floats,
    Labels,
    WiseWeights,
    positions,
    prefix_logits,
    replay,
    softmax,
)
from edgepkd.config import check
from edgepkd.logits.clip_logits import ModalityLogits
from edgepkd.logits.metrics import Accuracy, Interval, label_losses
from edgepkd.logits.verdicts import cautious_interval, chance, points
from edgepkd.logits.wise import in_order

CASCADE = "cascade"
"""Name of the answers with early exits, beside those of the steps (mv_1 ...)."""
ACCURACY_LOSS = 0.02
"""Share of right answers that a form may lose against the one it came from, 0.02 = 2 points."""
NLL_LOSS = 0.05
"""Nats of mean log-likelihood that it may lose."""
_CHANGED = 1e-3
"""Share of the largest weight from which on a weight counts as changed: solvers stop early."""


@dataclass(frozen=True, eq=False)
class Form:
    """One form of a cascade: what it answers, and how its answers are combined."""

    name: str
    logits: ModalityLogits
    weights: WiseWeights
    policy: ExitPolicy


@dataclass(frozen=True)
class Gap:
    """One form against another, at one step of the cascade or with early exits."""

    step: str
    """mv_1 ... for the ensemble up to there, `CASCADE` for the answers with early exits."""
    form: str
    against: str
    agreement: Accuracy
    """Clips with the same answer; Wilson's interval, as close calls are decided clip by clip."""
    accuracy_loss: Interval | None
    """Accuracy of `against` less that of `form` on the same clips; None without labels."""
    nll_loss: Interval | None
    """Mean negative log-likelihood of `form` less that of `against`, in nats."""
    exit_flips: float | None
    """Of `CASCADE`: share of clips that leave at another exit."""
    is_judged: bool
    """False: an answer that is no better than chance in `against`, and that no clip is given."""


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """How far forms may be apart."""

    agreement: float
    """Least share of clips with the same answer."""
    accuracy_loss: float = ACCURACY_LOSS
    nll_loss: float = NLL_LOSS


def gaps_along(
    form: Form, against: Form, labels: Labels | None, groups: Sequence[str]
) -> tuple[Gap, ...]:
    """Compare two forms at every step that changes the ensemble, then with early exits.

    Without `labels` [N] only agreement and exits are compared, and every step is judged.

    Raises:
        ConfigError: they are for different orders.
    """
    check(form.weights.order == against.weights.order, "order of the forms",
          got=form.weights.order, allowed=f"{against.weights.order}, as the other form's")
    ours, theirs = _Replayed(form), _Replayed(against)
    steps = _changing_steps(form.weights, against.weights)
    names = [str(position) for position in positions(form.weights.order)]
    gaps = []
    for k in steps:
        a, b = ours.at(k), theirs.at(k)
        judged = labels is None or k == steps[-1] or _beats_chance(b, labels) or any(
            (replayed.exits == k + 1).any() for replayed in (ours, theirs))
        gaps.append(_gap(names[k], form, against, a, b, labels=labels, groups=groups,
                         exit_flips=None, is_judged=judged))
    return (*gaps, _gap(CASCADE, form, against, ours.taken(), theirs.taken(), labels=labels,
                        groups=groups, is_judged=True,
                        exit_flips=float(np.mean(ours.exits != theirs.exits))))


class _Replayed:
    """A form's probabilities [N, classes] at every step, and where it stops."""

    def __init__(self, form: Form) -> None:
        stacked = in_order(form.logits, form.weights.order)
        self.exits = replay(stacked, form.weights, form.policy).exits
        self._all = softmax(prefix_logits(stacked, form.weights)
                            / np.asarray(form.policy.temperatures)[:, None])

    def at(self, k: int) -> Floats:
        return self._all[:, k]

    def taken(self) -> Floats:
        return self._all[np.arange(len(self.exits)), self.exits - 1]


def _changing_steps(*weights: WiseWeights) -> list[int]:
    """Steps at which any of `weights` makes another ensemble than at the step before."""
    return [k for k in range(len(weights[0].vectors))
            if any(_is_changed(one.vectors[k], one.vectors[k - 1] if k else ()) for one in weights)]


def _is_changed(vector: Sequence[float], before: Sequence[float]) -> bool:
    now, then = np.asarray(vector), np.append(before, 0.0)
    return bool(np.abs(now - then).max() > _CHANGED * max(np.abs(now).max(), np.abs(then).max()))


def _beats_chance(probabilities: Floats, labels: Labels) -> bool:
    right = int((probabilities.argmax(axis=1) == labels).sum())
    return Accuracy(right, len(labels)).interval[0] > chance(labels)


def _gap(
    step: str, form: Form, against: Form, ours: Floats, theirs: Floats, *, labels: Labels | None,
    groups: Sequence[str], exit_flips: float | None, is_judged: bool,
) -> Gap:
    a, b = ours.argmax(axis=1), theirs.argmax(axis=1)
    accuracy_loss = nll_loss = None
    if labels is not None:
        accuracy_loss = cautious_interval((b == labels).astype(np.float64) - (a == labels), groups)
        nll_loss = cautious_interval(
            label_losses(ours, labels) - label_losses(theirs, labels), groups)
    return Gap(step, form.name, against.name, Accuracy(int((a == b).sum()), len(a)),
               accuracy_loss, nll_loss, exit_flips, is_judged)


# ---- judged


def refused(gaps: Sequence[Gap], allowed: Allowed) -> tuple[str, ...]:
    """Judged gaps that the clips show to be beyond what is allowed, in words."""
    return tuple(text for gap in gaps if gap.is_judged
                 for text, is_shown, _ in _findings(gap, allowed) if is_shown)


def doubted(gaps: Sequence[Gap], allowed: Allowed) -> tuple[str, ...]:
    """Judged gaps whose value is beyond what is allowed, while its interval is not, in words.

    Losses only where some loss is shown: of twenty clips one is 5 points.
    """
    return tuple(f"{text}; {gap.agreement.num_clips} clips are too few to say" for gap in gaps
                 if gap.is_judged for text, is_shown, is_doubted in _findings(gap, allowed)
                 if is_doubted and not is_shown)


def _findings(gap: Gap, allowed: Allowed) -> Iterator[tuple[str, bool, bool]]:
    """Each figure of a gap: in words, whether its interval is beyond its limit, whether its value
    is."""
    what = "the cascade with early exits" if gap.step == CASCADE else f"the ensemble at {gap.step}"
    clips = f"{gap.agreement.num_clips} clips"
    yield (f"{what} of {gap.form} gives the answer of {gap.against} for {gap.agreement} of {clips};"
           f" allowed: {100 * allowed.agreement:g} % or more",
           gap.agreement.interval[1] < allowed.agreement,
           gap.agreement.value < allowed.agreement)
    if gap.accuracy_loss is not None:
        yield (f"{what} of {gap.form} is right {points(gap.accuracy_loss)} points less often than"
               f" that of {gap.against} on {clips}; allowed: {100 * allowed.accuracy_loss:g}",
               gap.accuracy_loss.low > allowed.accuracy_loss,
               gap.accuracy_loss.value > allowed.accuracy_loss and gap.accuracy_loss.low > 0)
    if gap.nll_loss is not None:
        loss = gap.nll_loss
        yield (f"{what} of {gap.form} has {loss.value:.2f} [{loss.low:.2f}, {loss.high:.2f}] nats"
               f" more loss than that of {gap.against} on {clips}; allowed:"
               f" {allowed.nll_loss:g}", loss.low > allowed.nll_loss,
               loss.value > allowed.nll_loss and loss.low > 0)
