"""Recipes: every shipped one loads; mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.config import MODALITIES
from edgepkd.errors import ConfigError
from edgepkd.recipes import recipe_names, room_path
from edgepkd.training.recipe import load_train_recipe

DEMOS = [name for name in recipe_names("calibration") if name.startswith("demo-")]


def test_the_three_sets_have_a_recipe() -> None:
    assert DEMOS == ["demo-fights", "demo-ut", "demo-weizmann"]


@pytest.mark.parametrize("name", DEMOS)
def test_a_shipped_recipe_loads(name: str) -> None:
    recipe = load_train_recipe(name)
    assert recipe.name == name
    assert tuple(recipe.inputs) == tuple(recipe.backbones) == MODALITIES
    assert recipe.terms.strip()
    assert recipe.decode.gop_frames == recipe.clip.gop_frames


@pytest.mark.parametrize(("old", "new", "message"), [
    ("scheme = \"pkd\"", "scheme = \"kd\"", "scheme is 'kd'"),
    ("num_folds = ", "num_fold = ", "key num_fold"),
    ("[inputs.mv]", "[inputs.flow]", "modality is 'flow'"),
    ("backbone = \"resnet18\"", "backbone = \"vgg\"", "backbone is 'vgg'"),
    ("accuracy_loss = 0", "accuracy_loss = 2", "accuracy_loss is 2"),
])
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (room_path("calibration") / "demo-weizmann.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "own.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_train_recipe(str(path))
