"""What `wise fit` refuses, in what words, and which command it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepkd.cascade import ExitPolicy, Order
from edgepkd.logits.trial import Trial
from edgepkd.pipeline.wise_verdict import best_order, fault, refused

NAMES = ("bend", "jump", "walk")
RUN = Path("runs/a")


def trial(order: Order = ("mv",), *, right: float = 0.8, best: float = 0.8,
          **changes: Any) -> Trial:
    """60 clips of six groups; shares of right answers."""
    number = np.random.default_rng(0).permutation(60)
    values: dict[str, Any] = {
        "policy": ExitPolicy.constant(order, threshold=1.0), "right": number < 60 * right,
        "exits": np.full(60, 4), "full": np.arange(60) % 3, "best": number < 60 * best,
        "labels": np.arange(60) % 3, "groups": tuple(f"g{i // 10}" for i in range(60))}
    return Trial(order, **{**values, **changes})


def test_a_sound_cascade_has_no_fault() -> None:
    assert fault(trial(), NAMES) is None
    assert fault(trial(right=0.78), NAMES) is None  # within the interval


def test_a_constant_answer_is_named() -> None:
    assert fault(trial(full=np.r_[np.full(58, 2), 0, 1]), NAMES) == (
        "with all exits of mv, 58 of 60 held-out clips are answered 'walk', whatever they show")


def test_a_handful_of_clips_condemns_nothing() -> None:
    few = {name: getattr(trial(), name)[:9] for name in ("exits", "labels", "groups")}
    assert fault(trial(**few, full=np.zeros(9, int)), NAMES) is None


def test_a_cascade_below_its_best_exit_is_named_with_both_numbers() -> None:
    what = fault(trial(("mv", "iframe"), right=0.3, best=0.8), NAMES)
    assert what is not None
    assert what.startswith("the cascade mv,iframe answers 30.0 % of the held-out clips rightly, the"
                           " best of its exits alone 80.0 % (difference -50.0 points, 95 %: -")


def test_the_best_order_is_sound_and_the_shorter_of_two() -> None:
    trials = [trial(("mv", "iframe"), right=0.9, best=1.0),
              trial(("iframe", "mv"), right=0.7, best=0.7), trial(("iframe",), right=0.7, best=0.7)]
    assert fault(trials[0], NAMES) is not None
    assert best_order(trials, NAMES) == ("iframe",)
    assert best_order(trials[:1], NAMES) is None


@pytest.mark.parametrize(("better", "auto", "out", "command"), [
    (("residual", "iframe"), False, RUN, "edgepkd wise fit runs/a --order residual,iframe"),
    (None, True, RUN, "edgepkd wise fit runs/a --take auto"),
    (("mv",), True, Path("b"), "edgepkd wise fit runs/a --out b --take auto"),
    (None, False, RUN, "edgepkd train backbone")])
def test_the_command_that_helps(
    better: Order | None, auto: bool, out: Path, command: str
) -> None:
    error = refused("it is so", named=RUN, out=out, better=better, take_auto=auto)
    assert error.message == "it is so."
    assert command in (error.hint or "")
