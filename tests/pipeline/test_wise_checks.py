"""Logits that nothing should be fitted on, and networks that are not those of the logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepkd.cascade import Order
from edgepkd.errors import DataError
from edgepkd.pipeline.wise_checks import check_logits, check_networks
from tests.logits.made_logits import make_logits

ORDERS: tuple[Order, ...] = (("mv",),)


def notes(**changes: Any) -> tuple[str, ...]:
    return check_logits(make_logits(**changes), orders=ORDERS)


def test_plain_logits_need_no_note() -> None:
    assert notes() == ()


@pytest.mark.parametrize(("changes", "match"), [
    ({"split": "test"}, r"of the test split.*--allow-test"),
    ({"labels": np.ones(60, int)}, "holds one class, jump; allowed: clips of two or more"),
    ({"num_clips": 0}, "holds no clips"),
    ({"labels": np.arange(60) % 4}, r"labels are 0\.\.3; allowed: 0\.\.2 for 3 label names"),
    ({"labels": np.arange(60) % 3 - 1}, r"labels are -1\.\.1; allowed: 0\.\.2"),
])
def test_doubtful_logits_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        notes(**changes)


def test_only_networks_that_take_part_must_be_finite() -> None:
    logits = {m: x.copy() for m, x in make_logits().logits.items()}
    logits["iframe"][[7, 9], 2, 1] = np.nan, np.inf
    assert notes(logits=logits) == ()
    with pytest.raises(DataError, match=r"iframe_3 for clip7\.mp4 are not finite \(2 clips"):
        check_logits(make_logits(logits=logits), orders=(("mv",), ("mv", "iframe")))


def test_the_test_split_may_be_allowed_and_is_noted() -> None:
    (note,) = check_logits(make_logits(split="test"), orders=ORDERS, allow_test=True)
    assert "do not report accuracies" in note
    assert "surer than" in notes(split="train")[0]


def test_classes_without_clips_and_too_few_clips_are_noted() -> None:
    absent, few = notes(num_clips=2)
    assert absent.startswith("no clip of walk")
    assert few.startswith("2 clips for vectors of up to 4 weights")


def test_networks_are_compared_by_their_weights(tmp_path: Path) -> None:
    answered = make_logits()
    assert check_networks(answered, tmp_path) == ()
    (tmp_path / "mv.json").write_text(json.dumps({"weights_sha256": "m" * 64}))
    assert check_networks(answered, tmp_path) == ("mv",)
    (tmp_path / "iframe.json").write_text(json.dumps({"weights_sha256": "f" * 64}))
    with pytest.raises(DataError, match=r"of iframe come from weights iiii.*holds ffff"):
        check_networks(answered, tmp_path)
    (tmp_path / "iframe.json").write_text("[]")
    with pytest.raises(DataError, match=r"iframe\.json cannot be read"):
        check_networks(answered, tmp_path)
