"""Which order and which command `wise fit` names where it refuses a fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepkd.cascade import ExitPolicy, Order
from edgepkd.logits.trial import Trial
from edgepkd.pipeline.wise_verdict import best_order, refused

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


def test_the_best_order_is_sound_and_the_shorter_of_two() -> None:
    trials = [trial(("mv", "iframe"), right=0.9, best=1.0),
              trial(("iframe", "mv"), right=0.7, best=0.7), trial(("iframe",), right=0.7, best=0.7)]
    assert trials[0].fault(NAMES) is not None
    assert trials[1].fault(NAMES) is None
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
