"""What the INT8 study leaves: numbers as JSON, and a page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.int8 import load_int8_recipe
from edgepkd.studies.int8.report import write
from edgepkd.studies.int8.tables import compute
from edgepkd.studies.study import load_study
from tests.studies.int8.made_int8 import GMAC, made_int8

pytestmark = pytest.mark.slow


def test_numbers_and_page_lie_side_by_side(tmp_path: Path) -> None:
    recipe = load_int8_recipe("int8", {"finetune.epochs": 7, "calibration_clips": 33})
    study = replace(load_study("reproduce"), exit_seeds=(4711,))
    wrong = {"qad": {"all": range(20), "residual_3": range(30)}}
    write([compute(made_int8(wrong), gmac=GMAC)], study, recipe, tmp_path, name="int8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8.json", "int8.md"]
    assert "([JSON](int8.json))" in (tmp_path / "int8.md").read_text()

    document = json.loads((tmp_path / "int8.json").read_text())
    conditions = document["conditions"]
    assert {"cpu", "packages"} <= set(conditions)
    assert conditions["recipe"]["finetune"]["epochs"] == 7
    assert conditions["recipe"]["quantizer"]["weight_bits"] == 7
    assert conditions["exit_seeds"] == [4711]
    found = document["sets"]["reproduce-weizmann"]
    assert (found["clips"], found["groups"], found["folds"]) == (100, 20, 2)
    assert len(found["exits"]) == 12
    assert found["seconds"]["qad"] == [8.0, 9.0]
    assert found["verdict"]["full_within"] == {"ptq-plain": True, "ptq": True, "qat": True,
                                              "qad": False}
