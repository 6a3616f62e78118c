"""Options of training become values; --json never lands on what training reads or writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.cli.training_options import (
    execution,
    json_target,
    modalities,
    pair,
    recipe_changes,
    recipe_of_preset,
)
from edgepkd.errors import ConfigError, UsageError
from edgepkd.outputs import Output
from edgepkd.pipeline.quantize_config import QuantizeConfig
from edgepkd.pipeline.train_config import TrainConfig
from edgepkd.training.recipe import load_train_recipe


def test_networks_are_all_or_those_named() -> None:
    assert modalities("all") == ("mv", "residual", "iframe")
    assert modalities("iframe, mv") == ("iframe", "mv")


def test_changes_of_a_recipe_are_toml_values() -> None:
    assert recipe_changes(None) == {}
    assert recipe_changes(["a.b=3", "c=[1, 2]", "d=x=y", "e = true"]) == {
        "a.b": 3, "c": [1, 2], "d": "x=y", "e": True}


@pytest.mark.parametrize("text", ["", "a", "=3"])
def test_a_pair_has_a_key_and_a_value(text: str) -> None:
    with pytest.raises(UsageError, match=r"--set is .*; allowed: KEY=VALUE"):
        pair(text, option="--set")
    assert pair("a=", option="--set") == ("a", "")


def test_a_preset_names_a_recipe_and_excludes_another() -> None:
    assert recipe_of_preset(None, None) is None
    assert recipe_of_preset(None, "a.toml") == "a.toml"
    for preset in ("quick", "small", "best"):
        name = recipe_of_preset(preset, None)
        assert name is not None
        assert load_train_recipe(name).name == preset
    with pytest.raises(UsageError, match="--preset best and --recipe small both name a recipe"):
        recipe_of_preset("best", "small")
    with pytest.raises(UsageError, match="preset is 'demo-ut'; allowed: quick, small, best"):
        recipe_of_preset("demo-ut", None)


def test_where_to_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgepkd.training import execution as module

    assert execution("cpu", 2).workers == 2
    monkeypatch.setattr(module, "auto_device", lambda: "cpu")
    assert execution("auto").device == "cpu"
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        execution("tpu")


def test_json_goes_beside_what_training_uses(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = TrainConfig(run=run, data=tmp_path / "data", recipe=str(tmp_path / "a.toml"))
    place = json_target(str(tmp_path / "lines.json"), config)
    assert isinstance(place, Output)
    for taken in (run / "mv.json", run / "mv-trunk.safetensors", tmp_path / "data" / "index.csv",
                  tmp_path / "a.toml", tmp_path / "init.pth"):
        with pytest.raises(UsageError):
            json_target(str(taken), config, tmp_path / "init.pth")
    with pytest.raises(UsageError):
        json_target(str(run / "int8-qad" / "mv.json"), QuantizeConfig(run=run))
    assert json_target("-", config) == "-"
    assert json_target(None, config) is None
