"""What is said beside the numbers of an evaluation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.config import MODALITIES
from edgepkd.logits.clip_logits import ViewsProtocol
from edgepkd.logits.evaluate import evaluate_logits
from edgepkd.pipeline.eval_notes import notes_on
from tests.logits.made_logits import make_logits

ORDER: Order = ("mv",)
FIT = (WiseWeights.ones(ORDER), ExitPolicy.constant(ORDER, threshold=1.0))


def notes(
    *, fitted: Any = None, skipped: tuple[Any, ...] = (), num_looks: int = 1,
    findings: tuple[str, ...] = (), **changes: Any
) -> str:
    answered = make_logits(**{"split": "test", **changes})
    predicted: Any = SimpleNamespace(answered=answered, skipped=skipped)
    run: Any = SimpleNamespace(fitted=fitted or {}, findings=findings)
    evaluation = evaluate_logits(answered, order=ORDER, gmac={"mv": (1.0,) * 4}, fitted={})
    return "\n".join(notes_on(evaluation, predicted, run, num_looks=num_looks))


def test_nothing_but_what_is_so_is_said() -> None:
    assert notes(fitted={ORDER: FIT}, groups=tuple(map(str, range(60)))) == (
        "no top-5: there are 3 labels")


@pytest.mark.parametrize(("changes", "said"), [
    ({}, "nothing was fitted: prefixes are plain sums"),
    ({"fitted": {("iframe",): FIT}}, "nothing was fitted for this order: prefixes"),
    ({"num_looks": 2}, "look 2 at the test split with this run"),
    ({"split": "train"}, "these are train clips: the networks have seen them"),
    ({"split": "calibration"}, "these are calibration clips: WISE, policy or epochs"),
    ({"groups": ("a",) * 30 + ("b",) * 30}, "2 groups only"),
    ({"num_clips": 2}, "no clip of walk"),
    ({"findings": ("mv: the trunk is dead",)}, "after training: mv: the trunk is dead"),
    ({"skipped": (SimpleNamespace(path="x.mp4", reason="it is cut off."),)},
     "1 clips could not be read and are left out, the first: x.mp4: it is cut off."),
    ({"views": ViewsProtocol(dict.fromkeys(MODALITIES, 3), crops=10,
                             crop_px=dict.fromkeys(MODALITIES, 32),
                             resize_px={"mv": 40, "residual": 32, "iframe": 40})},
     "the ten crops of residual are two"),
])
def test_each_doubt_is_a_note(changes: dict[str, Any], said: str) -> None:
    assert said in notes(**changes)


def test_a_second_look_counts_only_at_the_test_split() -> None:
    assert "look" not in notes(split="calibration", num_looks=5)


def test_a_network_at_chance_is_named() -> None:
    rng = np.random.default_rng(0)
    said = notes(logits={m: rng.normal(size=(60, 4, 3)) for m in MODALITIES})
    line = next(line for line in said.splitlines() if line.startswith("mv: "))
    assert "at its best exit, mv_" in line
    assert line.endswith(("chance by 60 clips (33 %)", "better than chance (33 %)"))
    assert "iframe:" not in said  # not in this order


def test_weights_that_make_the_answer_a_constant_are_named_with_a_way_on() -> None:
    none = WiseWeights(ORDER, tuple((0.0,) * k for k in range(1, 5)))
    said = notes(fitted={ORDER: (none, FIT[1])}, groups=tuple(map(str, range(60))))
    assert "the full chain answers 'bend' for 100.0 % of 60 clips, of which 33.3 % are" in said
    assert "points less often than mv_4 alone" in said
    assert "`edgepkd eval` with --order mv has the better part alone" not in said


def test_a_chain_that_is_worse_than_a_network_of_it_is_named() -> None:
    order: Order = ("mv", "iframe")
    answered = make_logits(groups=tuple(map(str, range(60))))
    wise = WiseWeights(order, tuple((0.0,) * (k - 1) + (-1.0,) for k in range(1, 9)))
    run: Any = SimpleNamespace(
        fitted={order: (wise, ExitPolicy.constant(order, threshold=1.0))}, findings=())
    predicted: Any = SimpleNamespace(answered=answered, skipped=())
    evaluation = evaluate_logits(answered, order=order, fitted=run.fitted,
                                 gmac=dict.fromkeys(MODALITIES, (1.0,) * 4))
    said = "\n".join(notes_on(evaluation, predicted, run, num_looks=1))
    assert "the full chain, order mv,iframe, is right " in said
    assert "points less often than iframe" in said
    assert "`edgepkd eval` with --order iframe has the better part alone" in said
