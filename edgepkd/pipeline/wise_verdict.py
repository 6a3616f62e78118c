"""Fits that `wise fit` refuses: a constant answer, a cascade below the best of its own exits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgepkd.cascade import Order, order_key
from edgepkd.errors import DataError
from edgepkd.logits.trial import Trial

ENOUGH_CLIPS = 10
"""On fewer, neither a constant answer nor a difference says anything."""


def fault(trial: Trial, label_names: tuple[str, ...]) -> str | None:
    """What is wrong with the cascade, in a sentence with its numbers; None: nothing."""
    name = order_key(trial.order)
    if len(trial.labels) < ENOUGH_CLIPS:
        return None
    if trial.is_constant:
        counts = np.bincount(trial.full, minlength=len(label_names))
        return (f"with all exits of {name}, {counts.max()} of {len(trial.full)} held-out clips are"
                f" answered {label_names[int(counts.argmax())]!r}, whatever they show")
    if trial.is_below_best:
        gap = trial.against_best
        return (f"the cascade {name} answers {100 * trial.right.mean():.1f} % of the held-out clips"
                f" rightly, the best of its exits alone {100 * trial.best.mean():.1f} %"
                f" (difference {100 * gap.value:+.1f} points, 95 %: {100 * gap.low:+.1f} to"
                f" {100 * gap.high:+.1f})")
    return None


def best_order(trials: Iterable[Trial], label_names: tuple[str, ...]) -> Order | None:
    """Of the orders without a fault that whose cascade is right most often; the shorter of two."""
    sound = [trial for trial in trials if fault(trial, label_names) is None]
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
