"""The gate: what is answered is judged, what is computed is checked, and the report is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.config import Modality
from edgepkd.deploy.answers import DEPLOYED, FAKE_QUANT, FP32
from edgepkd.deploy.gate import (
    Evidence,
    Parity,
    format_gate,
    judge,
    parity_facts,
    refuse,
    refuse_broken,
    write_report,
)
from edgepkd.engines.targets import load_target
from edgepkd.errors import ModelError
from edgepkd.logits.verdicts import Verdicts

TARGET = replace(load_target("openvino"), agreement_floor=0.95, float_agreement_floor=0.8)
ORDER: Order = ("mv",)
LAST_ONLY = WiseWeights(ORDER, ((0.0,), (0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))
NEVER = ExitPolicy.constant(ORDER, threshold=1.0)
TWINS = [(DEPLOYED, FAKE_QUANT), (FAKE_QUANT, FP32), (DEPLOYED, FP32)]
CLIPS = 60


def answers(flipped: int = 0, *, exit: int = 4, scale: float = 1.0) -> dict[Modality, np.ndarray]:
    """Sixty clips of label 0, right at every exit; `flipped` of them wrong at one."""
    logits = np.tile([1.0, 0.0], (CLIPS, 4, 1))
    logits[:flipped, exit - 1] = [0.0, 1.0]
    return {"mv": logits * scale}


def evidence(forms: dict[str, Any], **changes: Any) -> Evidence:
    given: dict[str, Any] = {
        "clips": "calibration clips", "answers": forms, "pairs": TWINS, "labels": None,
        "fits": {DEPLOYED: (LAST_ONLY, NEVER)}, "groups": [str(i) for i in range(CLIPS)]}
    return Evidence(**{**given, **changes})


def int8(deployed: Any, twin: Any, **changes: Any) -> Parity:
    return judge([evidence({DEPLOYED: deployed, FAKE_QUANT: twin, FP32: answers()}, **changes)],
                 target=TARGET)


def test_exits_of_weight_0_may_answer_as_they_like() -> None:
    found = int8(answers(40, exit=1), answers(40, exit=1))
    assert found.refused == ()
    assert next(row.agreement for row in found.rows if row.against == FP32) == pytest.approx(1 / 3)


def test_what_is_answered_is_held_against_fp32() -> None:
    found = int8(answers(30), answers(30))
    assert [text.split(" for ")[0] for text in found.drifts] == [
        f"calibration clips: {what} of OpenVINO gives the answer of torch FP32"
        for what in ("the ensemble at mv_4", "the cascade with early exits")]
    assert found.faults == ()


def test_few_clips_leave_a_doubt_where_the_floor_is_missed() -> None:
    found = int8(answers(14), answers(14))  # 77 % of 60
    assert found.refused == ()
    assert found.doubts[0].endswith("80 % or more; 60 clips are too few to say")


def test_segments_that_compute_something_else_are_a_fault_even_if_they_answer_alike() -> None:
    found = int8(answers(scale=1.3), answers())
    assert found.drifts == ()
    assert found.faults[0] == (
        "logits of mv_1 of OpenVINO differ from those of torch INT8 by 30 % of their spread"
        " (60 clips); allowed: 25 %")
    assert len(found.faults) == 4
    assert int8(answers(scale=1.2), answers()).refused == ()


def test_a_float_network_is_held_against_its_twin() -> None:
    found = judge([evidence({DEPLOYED: answers(scale=-1), FP32: answers()},
                            pairs=[(DEPLOYED, FP32)])], target=TARGET)
    assert "differ from those of torch FP32 by 200 %" in found.faults[0]
    assert found.drifts[0].endswith("allowed: 95 % or more")


def test_forms_without_segments_stand_for_what_is_deployed() -> None:
    folds = evidence({FAKE_QUANT: answers(30), FP32: answers()}, pairs=[(FAKE_QUANT, FP32)],
                     fits={FAKE_QUANT: (LAST_ONLY, NEVER), FP32: (LAST_ONLY, NEVER)},
                     clips="held-out clips", labels=np.arange(CLIPS) % 2)
    found = judge([evidence({DEPLOYED: answers(), FP32: answers()}, pairs=[(DEPLOYED, FP32)]),
                   folds], target=TARGET)
    assert [one.clips for one in found.along] == ["calibration clips", "held-out clips"]
    assert found.drifts[0].startswith("held-out clips: the ensemble at mv_4 of torch INT8")


def test_all_that_speaks_against_it_is_said_with_the_report_and_a_way_on() -> None:
    refuse(Parity((), doubts=("who knows",)), hint="Never.")
    parity = Parity((), faults=("a",), drifts=("b",), verdicts=("c",))
    with pytest.raises(ModelError) as caught:
        refuse(parity, hint="Try this.", report=Path("x.parity.md"))
    assert caught.value.message == "a; b; c. Exit by exit: x.parity.md."
    assert str(caught.value.hint).startswith("Try this. --allow-drift writes")


def test_verdicts_refuse_too() -> None:
    found = judge([], target=TARGET, verdicts=Verdicts(("it says one thing",), ()))
    assert found.refused == ("it says one thing",)


def test_logits_that_are_not_finite_are_named() -> None:
    refuse_broken({FP32: answers()})
    broken = answers()
    broken["mv"][3, 1, 0] = np.nan
    with pytest.raises(ModelError, match="mv_2 of OpenVINO are not finite for 1 of 60 clips"):
        refuse_broken({FP32: answers(), DEPLOYED: broken})


# ---- told


def test_the_report_lies_there_in_both_forms(tmp_path: Path) -> None:
    parity = int8(answers(30), answers(30), labels=np.arange(CLIPS) % 2)
    path = write_report(parity, tmp_path / "a.b", name="[a](b)")
    assert path == tmp_path / "a.b.parity.md"
    text = path.read_text()
    assert text.startswith(r"# Parity of \[a\](b)")
    assert "Refused:\n\n- calibration clips: the ensemble at mv_4" in text
    facts = json.loads((tmp_path / "a.b.parity.json").read_text())
    assert facts["schema_version"] == 1
    assert len(facts["refused"]) == len(parity.refused) > 0
    assert len(facts["exits"]) == 3 * 4
    assert [row["step"] for row in facts["cascade"]] == ["mv_4", "cascade"] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.b.parity.json", "a.b.parity.md"]


def test_the_manifest_says_what_was_allowed() -> None:
    parity = int8(answers(30), answers(30))
    facts = parity_facts(parity)
    assert facts["allowed_drift"] == list(parity.refused)
    assert facts["cascade"][0]["agreement"] == {"num_right": 60, "num_clips": 60}
    assert facts["exits"][0]["agreement"] == 1.0


def test_the_cascade_stands_before_single_exits() -> None:
    lines = format_gate(int8(answers(3), answers(3), labels=np.arange(CLIPS) % 2)).splitlines()
    assert lines[0] == "Along the cascade, OpenVINO against torch INT8, 60 calibration clips:"
    row = next(line for line in lines[12:] if line.startswith("| cascade |"))
    assert row.startswith("| cascade | 95.0 % [86.3, 98.3] | ")
    assert row.endswith(" | 0.0 % |")
    assert any(line.startswith("| mv_1 | 100.0 %, 0, 0 |") for line in lines)
