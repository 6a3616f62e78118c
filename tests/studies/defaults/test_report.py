"""What the study of the defaults leaves."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from edgepkd.studies.defaults.report import write
from edgepkd.studies.study import load_study
from tests.studies.defaults.made_defaults import made_defaults


@pytest.mark.slow
def test_numbers_and_page_lie_side_by_side(tmp_path: Path) -> None:
    found, study = made_defaults({"mv": 0.2}), load_study("defaults-quick")
    write([found], study, tmp_path, name="study")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.json", "study.md"]
    document = json.loads((tmp_path / "study.json").read_text())
    assert document["conditions"]["trunk_seeds"] == [1, 2]
    made = document["sets"]["made"]
    assert made["cascade"] == asdict(found.interval(found.early))
    assert made["exits"]["mv_4"]["value"] == pytest.approx(
        sum(right.mean() for right in found.exit("mv", 3)) / 2)
    assert made["rgb_floor"]["value"] == 0.5
    assert [seed["motion"]["is_stacked"] for seed in made["seeds"]] == [True, False]
    assert made["within_3_points"] is True
