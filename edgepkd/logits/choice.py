"""Which weights a cascade gets: WISE, plain sums or the best exit, by answers held out from each.

Every clip is answered by weights that were fitted without its part of the groups (`parts_of`). WISE
is taken only where that shows it to be better than what fits nothing: with few clips its weights
follow their luck and lose to plain sums (all weights 1).

WISE is fitted here with a pull towards plain sums, not towards 0. For a prefix with logits_j
[N, classes], v_j the mean variance of logits_j over the classes, and s the scale that makes plain
sums most likely (1 / temperature), the weights w >= 0 solve

    min_w  mean_n -log softmax(sum_j w_j logits_nj)[label_n] + l2 / 2 * sum_j v_j (w_j - s)^2

so that a large l2 gives plain sums, and its unit does not depend on the scale of the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgepkd.cascade import (
    Floats,
    Labels,
    Order,
    Position,
    WiseWeights,
    positions,
    softmax,
)
from edgepkd.logits.clip_logits import ModalityLogits
from edgepkd.logits.metrics import label_losses, mean_and_error, negative_log_likelihood
from edgepkd.logits.policy import likeliest_scales
from edgepkd.logits.wise import (
    FULL,
    Convex,
    Method,
    WiseVariant,
    fit_prefix,
    fit_vector,
    in_order,
)

Take = Literal["auto", "wise", "sums"]
Kind = Literal["wise", "sums", "best"]

STRENGTHS = (0.01, 0.1, 1.0)
"""Values of l2 that WISE is tried with."""
MIN_CLIPS, MIN_GROUPS, MIN_PER_CLASS = 40, 3, 3
"""With fewer, plain sums are taken without a comparison."""
NUM_PARTS = 5
_TOLERANCE = 1e-8
"""Of the solver, where thousands of fits are compared and none of them is an optimum to show."""
_NAMES: Mapping[Kind, str] = {"wise": "WISE", "sums": "plain sums", "best": "the best exit so far"}

Bools = NDArray[np.bool_]


# ---- the clips


@dataclass(frozen=True, eq=False)
class Evidence:
    """Logits of N held-out clips, cut into parts for the cross-fitting."""

    logits: ModalityLogits
    labels: Labels
    groups: tuple[str, ...]
    parts: Labels
    """[N]: clips of one part are answered by what was fitted on the others."""
    num_classes: int

    @property
    def shortage(self) -> str | None:
        """Why these clips are too few to weigh exits by; None: they are enough."""
        counts = np.bincount(self.labels, minlength=self.num_classes)
        few = [f"{got} {what} of at least {least}" for got, what, least in (
            (len(self.labels), "clips", MIN_CLIPS), (len(set(self.groups)), "groups", MIN_GROUPS),
            (int(counts.min()), "clips of the rarest class", MIN_PER_CLASS)) if got < least]
        return ", ".join(few) or None


def parts_of(
    labels: Labels, groups: Sequence[str], folds: Sequence[int] | None = None
) -> Labels:
    """Parts [N] of a cross-fitting: the `folds` of the networks that answered, else whole groups.

    Groups go, the largest first, to the part that has fewest clips of their labels; of fewer than
    two groups single clips are dealt out.
    """
    if folds is not None and len(set(folds)) > 1:
        return np.unique(np.asarray(folds, np.int64), return_inverse=True)[1].astype(np.int64)
    names, group_of = np.unique(np.asarray(groups, str), return_inverse=True)
    if len(names) < 2:
        group_of = np.arange(len(labels))
    counts = np.zeros((group_of.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (group_of, labels), 1)
    held = np.zeros((min(NUM_PARTS, len(counts)), counts.shape[1]), np.int64)
    part_of = np.zeros(len(counts), np.int64)
    for group in np.argsort(-counts.sum(axis=1), kind="stable"):
        part_of[group] = min(range(len(held)), key=lambda part: (
            int(held[part] @ counts[group]), int(held[part].sum())))
        held[part_of[group]] += counts[group]
    chosen: Labels = part_of[group_of]
    return chosen


# ---- candidates


def fit_towards_sums(logits: Floats, labels: Labels, *, l2: float) -> Floats:
    """WISE weights [k] of `logits` [N, k, classes], pulled towards plain sums (formula above)."""
    scale = float(likeliest_scales(logits.sum(axis=1)[:, None], labels)[0])
    return fit_vector(logits, labels, l2=l2 * logits.var(axis=2).mean(axis=0),
                      centre=scale, tolerance=_TOLERANCE)


def best_exit(logits: Floats, labels: Labels) -> Floats:
    """Weights [k] that leave one exit of `logits` [N, k, classes]: that of the lowest loss."""
    scaled = logits * likeliest_scales(logits, labels)[:, None]
    losses = [negative_log_likelihood(softmax(scaled[:, j]), labels)
              for j in range(logits.shape[1])]
    chosen: Floats = np.eye(len(losses))[int(np.argmin(losses))]
    return chosen


@dataclass(frozen=True)
class _Candidate:
    kind: Kind
    l2: float | None
    """Strength of the pull; None: nothing that was tried at several."""
    fit: Callable[[Floats, Labels], Floats]
    is_scaled: bool = False
    """Whether its weights are of the likeliest scale already."""


def _candidates(method: Method | None, variant: WiseVariant) -> tuple[_Candidate, ...]:
    """Plain sums and the best exit first, then WISE by `method`, None: at several strengths."""
    def towards_sums(l2: float) -> Callable[[Floats, Labels], Floats]:
        return lambda logits, labels: fit_towards_sums(logits, labels, l2=l2)

    named = [_Candidate("wise", None, lambda logits, labels: np.array(
        fit_prefix(logits, labels, method=method, variant=variant)),
        is_scaled=isinstance(method, Convex) and variant == FULL)] if method else [
            _Candidate("wise", l2, towards_sums(l2), is_scaled=True) for l2 in STRENGTHS]
    return (_Candidate("sums", None, lambda logits, labels: np.ones(logits.shape[1])),
            _Candidate("best", None, best_exit), *named)


@dataclass(frozen=True, eq=False)
class _Prefix:
    """One candidate at one prefix."""

    vector: tuple[float, ...]
    """Fitted on all clips."""
    combined: Floats
    """[N, classes], by weights fitted without the clip's part."""
    losses: Floats
    """[N], -log probability of the label, at a temperature fitted without the clip's part."""


@dataclass(frozen=True, eq=False)
class Track:
    """One candidate along one order, cross-fitted: K positions."""

    kind: Kind
    l2: float | None
    weights: WiseWeights
    """Fitted on all clips."""
    combined: Floats
    """[N, K, classes]"""
    losses: Floats
    """[N, K], nats."""
    right: Bools
    """[N, K]"""


class CrossFit:
    """Candidates for all orders over one set of clips; prefixes that orders share are fitted once.

    `method`: how WISE is fitted; None: at `STRENGTHS`, with a pull towards plain sums. Where the
    clips are too few for it and nothing was named, it is not tried.
    """

    def __init__(
        self, evidence: Evidence, *, method: Method | None = None, variant: WiseVariant = FULL,
        take: Take = "auto",
    ) -> None:
        self.evidence = evidence
        skips = take != "wise" and evidence.shortage
        self._candidates = tuple(one for one in _candidates(method, variant)
                                 if not (skips and one.kind == "wise"))
        self._known: dict[tuple[int, tuple[Position, ...]], _Prefix] = {}

    def tracks(self, order: Order) -> tuple[Track, ...]:
        """Plain sums, the best exit so far, and WISE as often as it was tried."""
        places, logits = positions(order), in_order(self.evidence.logits, order)
        tracks = []
        for number, candidate in enumerate(self._candidates):
            prefixes = [self._prefix(number, places[:k], logits[:, :k])
                        for k in range(1, len(places) + 1)]
            combined = np.stack([prefix.combined for prefix in prefixes], axis=1)
            tracks.append(Track(
                candidate.kind, candidate.l2,
                WiseWeights(order, tuple(prefix.vector for prefix in prefixes)), combined,
                np.stack([prefix.losses for prefix in prefixes], axis=1),
                combined.argmax(axis=2) == self.evidence.labels[:, None]))
        return tuple(tracks)

    def _prefix(self, number: int, places: tuple[Position, ...], logits: Floats) -> _Prefix:
        if (number, places) not in self._known:
            self._known[number, places] = _cross_fitted(self._candidates[number], logits,
                                                        self.evidence)
        return self._known[number, places]


def _cross_fitted(candidate: _Candidate, logits: Floats, evidence: Evidence) -> _Prefix:
    labels, parts = evidence.labels, evidence.parts
    combined, losses = np.zeros(logits[:, 0].shape), np.zeros(len(labels))
    for part in np.unique(parts):
        mine = parts == part
        vector = candidate.fit(logits[~mine], labels[~mine])
        seen = np.einsum("j,njc->nc", vector, logits[~mine])
        scale = 1.0 if candidate.is_scaled else likeliest_scales(seen[:, None], labels[~mine])[0]
        combined[mine] = np.einsum("j,njc->nc", vector, logits[mine])
        losses[mine] = label_losses(softmax(combined[mine] * scale), labels[mine])
    return _Prefix(tuple(candidate.fit(logits, labels).tolist()), combined, losses)


# ---- which one


@dataclass(frozen=True, eq=False)
class Choice:
    """What was taken for one order, what it was compared with, and why."""

    taken: Track
    why: str
    tracks: Mapping[Kind, Track]
    """The best of each kind."""


def choose(tracks: Sequence[Track], evidence: Evidence, *, take: Take = "auto") -> Choice:
    """Plain sums, unless another candidate is better by more than the noise (`is_better`).

    Of several, that with the lowest cross-fitted loss, mean over clips and positions; WISE is
    that of the strength where this is lowest.
    """
    of: dict[Kind, Track] = {}
    for track in sorted(tracks, key=lambda track: -track.losses.mean()):
        of[track.kind] = track  # the lowest loss comes last
    if take != "auto":
        return Choice(of[take], "as asked", of)
    if shortage := evidence.shortage:
        return Choice(of["sums"], f"too few clips to weigh exits by: {shortage}", of)
    better = [of[kind] for kind in ("wise", "best")
              if is_better(of[kind], of["sums"], evidence.groups)]
    taken = min(better, key=lambda track: float(track.losses.mean()), default=of["sums"])
    return Choice(taken, _reason(taken, of), of)


def is_better(a: Track, b: Track, groups: Sequence[str]) -> bool:
    """Whether the loss of `a`, mean along the order, is below that of `b` by over one standard
    error (paired, over groups), and its accuracy not below by as much.
    """
    gain, error = mean_and_error((b.losses - a.losses).mean(axis=1), groups)
    lost, lost_error = mean_and_error(
        b.right.mean(axis=1) - a.right.mean(axis=1), groups)
    return gain > error and lost <= lost_error


def _reason(taken: Track, of: Mapping[Kind, Track]) -> str:
    others = [of[kind] for kind in ("wise", "sums") if kind != taken.kind]
    against = " and ".join(f"{100 * track.right[:, -1].mean():.1f} % of {_NAMES[track.kind]}"
                           for track in others)
    losses = " and ".join(f"{track.losses.mean():.3f}" for track in others)
    tied = taken.kind == "sums" and of["wise"].losses.mean() < taken.losses.mean()
    how = "WISE was not better by more than the noise" if tied else \
        f"{_NAMES[taken.kind]} {'were' if taken.kind == 'sums' else 'was'} better"
    return (f"{how}: {100 * taken.right[:, -1].mean():.1f} % against {against} with all exits,"
            f" mean loss {taken.losses.mean():.3f} against {losses}")
