"""What is said beside the numbers of an evaluation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgepkd.config import MODALITIES
from edgepkd.logits.clip_logits import ViewsProtocol
from edgepkd.logits.evaluate import evaluate_logits
from edgepkd.pipeline.eval_notes import notes_on
from tests.logits.made_logits import make_logits

ORDER = ("mv",)


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
    assert notes(fitted={ORDER: None}, groups=tuple(map(str, range(60)))) == (
        "no top-5: there are 3 labels")


@pytest.mark.parametrize(("changes", "said"), [
    ({}, "nothing was fitted: prefixes are plain sums"),
    ({"fitted": {("iframe",): None}}, "nothing was fitted for this order: prefixes"),
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
