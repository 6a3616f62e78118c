"""The study's report says what the tables say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgepkd.studies.exits.report import write
from edgepkd.studies.exits.tables import compute
from edgepkd.studies.study import load_study
from tests.studies.exits.made_answers import made_answers

pytestmark = pytest.mark.slow


def flatness(scale: float) -> dict[str, Any]:
    return {m: {"backbone": "resnet18", "trace_per_parameter": 1e-4,
                "trace": {"mean": k * scale, "standard_error": 0.1, "relative_mean": k * scale,
                          "relative_standard_error": 0.1, "loss": 0.5},
                "sharpness": {"value": k * scale}}
            for k, m in enumerate(("residual", "mv", "iframe"), start=1)}


def report(folder: Path, wrong_share: dict[str, float]) -> tuple[str, dict[str, Any]]:
    result = compute(made_answers(wrong_share=wrong_share), [flatness(1.0)])
    write([result], load_study("reproduce-quick"), folder, name="study")
    return (folder / "study.md").read_text(), json.loads((folder / "study.json").read_text())


def test_a_gain_is_called_one(tmp_path: Path) -> None:
    text, document = report(tmp_path, {"ce": 0.6, "pkd": 0.2})
    assert "**Made, PKD against CE**" in text
    assert "PKD is better" in text
    found = document["sets"]["reproduce-weizmann"]["means"][-1]["less_ce"]["pkd"]
    assert found["low"] > 0
    assert f"{100 * found['value']:+.1f} [" in text
    assert document["claimed_at_best"] == {"pkd": [5.87, 11.42], "wise": [4.28, 9.3]}


def test_a_loss_is_called_one_and_none_none(tmp_path: Path) -> None:
    worse, _ = report(tmp_path / "a", {"ce": 0.1, "pkd": 0.5})
    assert "CE is better" in worse
    equal, _ = report(tmp_path / "b", {"ce": 0.4, "pkd": 0.4})
    assert "no difference shown" in equal


def test_every_table_and_plot_is_there(tmp_path: Path) -> None:
    text, document = report(tmp_path, {})
    for head in ("equal epochs", "the paper's epochs", "Made, each exit", "Made, WISE",
                 "Flatness of the trunks", "Time"):
        assert f"## {head}" in text or f"## Internal classifiers, {head}" in text
    assert "residual < mv < iframe. The paper: iframe < residual < mv." in text
    for plot in tmp_path.glob("*.png"):
        assert f"({plot.name})" in text
    assert len(list(tmp_path.glob("*.png"))) == 2
    assert len(document["sets"]["reproduce-weizmann"]["exits"]) == 12
    assert {"cpu", "packages", "trunk_seeds", "arms"} <= set(document["conditions"])
