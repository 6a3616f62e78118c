"""What `wise fit` names where it refuses a fit: the order that has no fault, the next command."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgepkd.cascade import Order, order_key
from edgepkd.errors import DataError
from edgepkd.logits.trial import Trial


def best_order(trials: Iterable[Trial], label_names: tuple[str, ...]) -> Order | None:
    """Of the orders without a fault that whose cascade is right most often; the shorter of two."""
    sound = [trial for trial in trials if trial.fault(label_names) is None]
    if not sound:
        return None
    return max(sound, key=lambda trial: (float(trial.right.mean()), -len(trial.order))).order


def refused(
    what: str, *, named: Path, out: Path, better: Order | None, take_auto: bool
) -> DataError:
    """The error that says `what` is wrong, and the command that helps."""
    command = f"edgepkd wise fit {named}" + ("" if out == named else f" --out {out}")
    if take_auto:
        return DataError(f"{what}.", hint=f"Let cross-fitting choose: {command} --take auto")
    if better is not None:
        return DataError(f"{what}.", hint=f"Ask other networks: {command} --order"
                                          f" {order_key(better)}")
    return DataError(f"{what}.", hint="No order is better: the networks need more training"
                                      " (`edgepkd train backbone`), or more groups of clips.")
