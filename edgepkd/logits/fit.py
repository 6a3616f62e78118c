"""WISE weights and exit policies of whole cascades, from stored logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from edgepkd.cascade import ExitPolicy, Floats, Labels, Order, WiseWeights, prefix_logits
from edgepkd.config import check
from edgepkd.logits.choice import CrossFit, Evidence, Take, choose, parts_of
from edgepkd.logits.clip_logits import ModalityLogits
from edgepkd.logits.fit_files import Fitted
from edgepkd.logits.policy import fit_policy_on
from edgepkd.logits.wise import Convex, fit_orders, in_order


@dataclass(frozen=True)
class WiseRecipe:
    """How WISE weights and the exit policy are fitted on held-out logits."""

    take: Take = "auto"
    """'auto': WISE where answers held out from it show that it is better than plain sums, else
    these (`choice.choose`); 'wise' or 'sums': that one, unseen."""
    l2: float = 0.01
    """With 'wise': pull of its weights towards zero, which spreads them over exits that agree."""
    accuracy_loss: float = 0.01
    """What the policy may lose on the held-out clips against the full chain, 0.01 = 1 point."""
    min_confidence: float = 0.8
    """No threshold is lower."""
    safety_clips: int = 2
    """Clips that an exit gives back when it meets the limit of `accuracy_loss`."""

    def __post_init__(self) -> None:
        check(self.take in get_args(Take), "take", got=self.take,
              allowed=", ".join(get_args(Take)))
        check(self.l2 >= 0, "l2", got=self.l2, allowed="0 or more")
        check(0 <= self.accuracy_loss < 1, "accuracy_loss", got=self.accuracy_loss,
              allowed="0 <= value < 1")
        check(0 <= self.min_confidence < 1, "min_confidence", got=self.min_confidence,
              allowed="0 <= value < 1")
        check(self.safety_clips >= 0, "safety_clips", got=self.safety_clips, allowed="0 or more")


def fit_deployed(
    logits: ModalityLogits, labels: Labels, *, groups: Sequence[str], orders: Sequence[Order],
    settings: WiseRecipe, folds: Sequence[int] | None = None,
) -> Fitted:
    """Weights and exit policy of each order, from deployed logits of held-out clips.

    `groups` [N] are never cut where weights are compared; `folds` [N] are the networks that
    answered, where there are several.
    """
    evidence = Evidence(logits, labels, tuple(groups), parts_of(labels, groups, folds),
                        next(iter(logits.values())).shape[2])
    if settings.take != "auto" or evidence.shortage:
        weights = (fit_orders(logits, labels, orders=orders, method=Convex(l2=settings.l2))
                   if settings.take == "wise" else {o: WiseWeights.ones(o) for o in orders})
        return {order: (weights[order], fit_order_policy(logits, labels, weights=weights[order],
                                                         settings=settings)) for order in orders}
    cross, fitted = CrossFit(evidence), {}
    for order in orders:
        taken = choose(cross.tracks(order), evidence).taken
        fitted[order] = (taken.weights, policy_on(taken.combined, labels, order=order,
                                                  settings=settings))
    return fitted


def policy_on(
    combined: Floats, labels: Labels, *, order: Order, settings: WiseRecipe
) -> ExitPolicy:
    """The exit policy for what an ensemble says at each position: `combined` [N, K, classes]."""
    return fit_policy_on(
        combined, labels, order=order, accuracy_loss=settings.accuracy_loss,
        min_confidence=settings.min_confidence, safety_clips=settings.safety_clips)


def fit_order_policy(
    logits: ModalityLogits, labels: Labels, *, weights: WiseWeights, settings: WiseRecipe
) -> ExitPolicy:
    """The exit policy that goes with `weights`."""
    return policy_on(prefix_logits(in_order(logits, weights.order), weights), labels,
                     order=weights.order, settings=settings)
