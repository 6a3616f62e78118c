"""Parity: the chain that is compared is the one that a device runs, and what differs is named."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepkd.cascade import Position
from edgepkd.config import Modality
from edgepkd.deploy.parity import (
    SegmentChain,
    compare,
    export_faults,
    format_parity,
)
from edgepkd.libraries import openvino
from edgepkd.logits.clip_logits import ModalityLogits
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from tests.runtime.bundles import make_bundle, make_segments

X = np.random.default_rng(0).normal(size=(2, 2, 32, 32)).astype(np.float32)


def answers(**changed: list[float]) -> dict[Modality, np.ndarray]:
    """Four clips, four exits, two labels; `changed` are the first label's logits of an exit."""
    logits = np.zeros((4, 4, 2))
    logits[:, :, 1] = 1.0
    for name, values in changed.items():
        logits[:, int(name[-1]) - 1, 0] = values
    return {"mv": logits}


def rows_of(form: ModalityLogits, against: ModalityLogits) -> tuple[Any, ...]:
    return compare({"deployed": form, "torch": against}, [("deployed", "torch")])


def test_a_chain_answers_as_the_runner_of_a_device_to_the_last_bit(tmp_path: Path) -> None:
    chain = SegmentChain(make_segments(), "mv", frames=2)
    with closing(OpenVinoRunner(make_bundle(tmp_path))) as runner:
        features: Any = X
        for k, mine in enumerate(chain(X), start=1):
            features, logits = runner.run(Position("mv", k), features)
            assert mine.shape == (2, 2)
            assert np.array_equal(mine, logits)
    assert np.ptp(mine) > 0, "these networks tell motion apart"


def test_chain_and_runner_compile_by_the_same_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[int, str]] = []
    real = openvino.compile_segment

    def counted(content: bytes, *, frames: int, **others: Any) -> Any:
        compiled.append((frames, str(others.get("frame_shape"))))
        return real(content, frames=frames, **others)

    monkeypatch.setattr(openvino, "compile_segment", counted)
    SegmentChain(make_segments(), "mv", frames=2)
    assert compiled == [(2, "None")] * 4
    OpenVinoRunner(make_bundle(tmp_path)).prepare(Position("mv", 1))
    assert compiled[4:] == [(2, "(2, 32, 32)")]


def test_clip_logits_are_the_mean_over_the_temporal_segments() -> None:
    chain = SegmentChain(make_segments(), "mv", frames=2)
    both = np.stack([logits.astype(np.float64) for logits in chain(X)])
    assert np.array_equal(chain.clip_logits(X), both.mean(axis=1))


def test_each_exit_says_how_far_it_is_and_how_often_it_agrees() -> None:
    rows = rows_of(answers(exit2=[0, 0, 0, 2.0]), answers())
    assert [(row.modality, row.exit, row.num_clips) for row in rows] == [
        ("mv", k, 4) for k in (1, 2, 3, 4)]
    assert (rows[0].max_difference, rows[0].agreement) == (0, 1)
    assert rows[1].max_difference == 2.0
    assert rows[1].mean_difference == 2.0 / 8
    assert rows[1].agreement == 0.75


def test_a_shift_of_all_classes_of_a_clip_is_no_difference() -> None:
    moved = {"mv": answers()["mv"] + np.arange(4.0)[:, None, None]}
    row = rows_of(moved, answers())[0]
    assert (row.max_difference, row.rms_difference, row.relative_difference) == (3.0, 0, 0)


@pytest.mark.parametrize(("logits", "share"), [
    ([0.2, 0.2, 0.2, 0.2], 0.2), ([0.3, 0.3, 0.3, 0.3], 0.3), ([0.6, 0, 0, 0], 0.3)])
def test_differences_are_measured_by_the_spread_of_the_logits(
    logits: list[float], share: float
) -> None:
    rows = rows_of(answers(exit2=logits), answers())
    assert rows[1].relative_difference == pytest.approx(share)
    faults = export_faults(rows, form="deployed", against="torch")
    assert faults == (() if share < 0.25 else (
        "logits of mv_2 of deployed differ from those of torch by 30 % of their spread (4 clips);"
        " allowed: 25 %",))
    assert export_faults(rows, form="torch", against="deployed") == ()


def test_an_exit_that_says_nothing_has_no_spread_and_no_fault() -> None:
    silent = {"mv": np.zeros((4, 4, 2))}
    noisy = {"mv": np.full((4, 4, 2), [0.03, 0.0])}
    assert rows_of(silent, silent)[0].relative_difference == 0
    row = rows_of(noisy, silent)[0]
    assert (row.relative_difference, row.rms_difference) == (1.0, 0.015)
    assert export_faults([row], form="deployed", against="torch") == ()


def test_the_table_has_an_exit_a_row() -> None:
    table = format_parity(rows_of(answers(exit2=[0, 0, 0, 2.0]), answers())).splitlines()
    assert len(table) == 2 + 4
    assert table[0].startswith("| exit | deployed against torch")
    assert table[3] == "| mv_2 | 75.0 %, 2, 0.2 |"
