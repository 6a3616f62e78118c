"""What the study of exits leaves: numbers as JSON, a page, plots."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from edgepkd.studies.exits.report import write
from edgepkd.studies.exits.tables import compute
from edgepkd.studies.study import ARMS, load_study
from tests.studies.exits.made_answers import made_answers, made_flatness

pytestmark = pytest.mark.slow


def test_numbers_page_and_plots_lie_side_by_side(tmp_path: Path) -> None:
    found = compute(made_answers(wrong_share={"ce": 0.6, "pkd": 0.2}), [made_flatness()])
    study = load_study("reproduce-quick")
    write([found], study, tmp_path, name="study")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "reproduce-weizmann-exits.png", "reproduce-weizmann-wise.png", "study.json", "study.md"]
    text = (tmp_path / "study.md").read_text()
    for plot in tmp_path.glob("*.png"):
        assert f"({plot.name})" in text

    document = json.loads((tmp_path / "study.json").read_text())
    assert document["claimed_at_best"] == {"pkd": [5.87, 11.42], "wise": [4.28, 9.3]}
    conditions = document["conditions"]
    assert {"cpu", "packages"} <= set(conditions)
    assert conditions["trunk_seeds"] == list(study.trunk_seeds)
    assert conditions["arms"] == {arm.name: asdict(arm) for arm in ARMS}
    numbers = document["sets"]["reproduce-weizmann"]
    assert (numbers["dataset"], numbers["clips"], numbers["groups"], numbers["folds"]) == (
        "Made", 72, 12, 2)
    assert numbers["means"][-1]["less_ce"]["pkd"] == asdict(found.means[-1]["less_ce"]["pkd"])
    assert numbers["flatness"] == [made_flatness()]
    assert len(numbers["exits"]) == 12
