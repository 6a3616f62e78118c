"""The INT8 study's report says what its tables say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.int8 import load_int8_recipe
from edgepkd.studies.int8.report import write
from edgepkd.studies.int8.tables import compute
from edgepkd.studies.study import load_study
from tests.studies.int8.made_int8 import GMAC, Wrong, made_int8

pytestmark = pytest.mark.slow


def report(folder: Path, wrong: Wrong) -> tuple[str, dict[str, Any]]:
    recipe = load_int8_recipe("int8", {"finetune.epochs": 7, "calibration_clips": 33})
    study = load_study("reproduce")
    write([compute(made_int8(wrong), gmac=GMAC)], replace(study, exit_seeds=(4711,)), recipe,
          folder, name="int8")
    return (folder / "int8.md").read_text(), json.loads((folder / "int8.json").read_text())


def test_a_loss_of_qad_is_called_one(tmp_path: Path) -> None:
    text, document = report(tmp_path, {"qad": {"all": range(20), "residual_3": range(30)}})
    assert "QAD is within 1.0 point of FP32 at 0 of 12 exits (PTQ 12, QAT 12)" in text
    assert text.count("QAD is **not** within 1.0 point of FP32; the interval shows it") == 2
    assert "PTQ is better" in text
    assert "QAT is better" in text
    assert "QAD residual_3 (-30.0)" in text
    assert "| mv_1 | 100.0 [100.0, 100.0] | 100.0 | 100.0 | 80.0 |" in text
    assert document["sets"]["reproduce-weizmann"]["verdict"]["full_within"]["qad"] is False


def test_a_gain_of_qad_over_ptq_is_called_one(tmp_path: Path) -> None:
    text, _ = report(tmp_path, {"ptq": {"all": range(40)}, "qat": {"all": range(20)}})
    assert "at 12 of 12 exits (PTQ 0, QAT 0); the interval alone shows it at 12" in text
    assert text.count("QAD is within 1.0 point of FP32; the interval shows it too") == 2
    assert "QAD less PTQ **+40.0" in text
    assert text.count("QAD is better") == 2  # than PTQ, and than QAT


def test_where_nothing_tells_ptq_apart_it_says_so(tmp_path: Path) -> None:
    text, _ = report(tmp_path, {"ptq": {"all": [3]}, "qad": {"all": [4]}, "qat": {"all": [5]}})
    assert "no difference shown: as far as these clips tell, PTQ is as good" in text
    assert "no difference shown: as far as these clips tell, QAT is as good" in text
    assert "QAD is within 1.0 point of FP32; the interval does not show it" in text
    assert "PTQ mv_1, mv_2, mv_3 and 9 more (-1.0)" in text


def test_conditions_caveats_and_tables_are_there(tmp_path: Path) -> None:
    text, document = report(tmp_path, {})
    for words in ("trunks 4711", "exits (PKD) 4711", "weights of 7 bits", "calibrator max",
                  "up to 33 training clips", "7 epochs", "not a proof", "One clip is 1.0 (Made)",
                  "Seconds a fold", "| Made | QAD | 8 | 9 |", "| Made | 100 | 3 | 20 | 2 |"):
        assert words in text
    for head in ("In short", "Made, each exit", "Made, networks and cascade", "Time"):
        assert f"## {head}\n" in text
    found = document["sets"]["reproduce-weizmann"]
    assert len(found["exits"]) == 12
    assert found["seconds"]["qad"] == [8.0, 9.0]
    conditions = document["conditions"]
    assert conditions["recipe"]["finetune"]["epochs"] == 7
    assert conditions["recipe"]["quantizer"]["weight_bits"] == 7
    assert conditions["exit_seeds"] == [4711]
    assert {"cpu", "packages"} <= set(conditions)


def test_few_groups_are_said(tmp_path: Path) -> None:
    answered = made_int8({})
    few = replace(answered, groups=tuple(str(int(g[1:]) % 9) for g in answered.groups))
    write([compute(few, gmac=GMAC)], load_study("reproduce"), load_int8_recipe("int8"), tmp_path,
          name="int8")
    words = "fewer than 10 groups"
    assert words in (tmp_path / "int8.md").read_text()
    assert words not in report(tmp_path, {})[0]
