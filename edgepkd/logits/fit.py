"""WISE weights and exit policies of whole cascades, from stored logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgepkd.cascade import ExitPolicy, Labels, Order, WiseWeights
from edgepkd.config import check
from edgepkd.logits.clip_logits import ModalityLogits
from edgepkd.logits.fit_files import Fitted
from edgepkd.logits.policy import fit_policy
from edgepkd.logits.wise import Convex, fit_orders, in_order


@dataclass(frozen=True)
class WiseRecipe:
    """How WISE weights and the exit policy are fitted on held-out logits."""

    l2: float = 0.01
    """Pull of the WISE weights towards zero, which spreads them over exits that agree."""
    accuracy_loss: float = 0.01
    """What the policy may lose on the held-out clips against the full chain, 0.01 = 1 point."""
    min_confidence: float = 0.8
    """No threshold is lower."""
    safety_clips: int = 2
    """Clips that an exit gives back when it meets the limit of `accuracy_loss`."""

    def __post_init__(self) -> None:
        check(self.l2 >= 0, "l2", got=self.l2, allowed="0 or more")
        check(0 <= self.accuracy_loss < 1, "accuracy_loss", got=self.accuracy_loss,
              allowed="0 <= value < 1")
        check(0 <= self.min_confidence < 1, "min_confidence", got=self.min_confidence,
              allowed="0 <= value < 1")
        check(self.safety_clips >= 0, "safety_clips", got=self.safety_clips, allowed="0 or more")


def fit_deployed(
    logits: ModalityLogits, labels: Labels, *, orders: Sequence[Order], settings: WiseRecipe
) -> Fitted:
    """WISE weights and exit policy of each order, from deployed logits of held-out clips."""
    weights = fit_orders(logits, labels, orders=orders, method=Convex(l2=settings.l2))
    return {order: (weights[order], fit_order_policy(logits, labels, weights=weights[order],
                                                     settings=settings)) for order in orders}


def fit_order_policy(
    logits: ModalityLogits, labels: Labels, *, weights: WiseWeights, settings: WiseRecipe
) -> ExitPolicy:
    """The exit policy that goes with `weights`."""
    return fit_policy(
        in_order(logits, weights.order), labels, weights=weights,
        accuracy_loss=settings.accuracy_loss, min_confidence=settings.min_confidence,
        safety_clips=settings.safety_clips)
