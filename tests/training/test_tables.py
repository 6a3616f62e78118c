"""Keys by their paths: what is allowed, what a wrong one is nearly called, values by type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest

from edgepkd.errors import ConfigError
from edgepkd.int8 import load_int8_recipe
from edgepkd.training.recipe import TrainRecipe, changed_recipe, load_train_recipe
from edgepkd.training.tables import key_paths, refuse_unknown, typed_table, with_changes


@dataclass(frozen=True)
class Inner:
    speed: int = 1
    limit: float | None = None


@dataclass(frozen=True)
class Outer:
    one: Inner
    named: Mapping[Literal["a", "b"], Inner]
    plain: Mapping[Literal["a"], Mapping[str, Any]] = field(
        default_factory=dict, metadata={"table": Inner})
    free: tuple[int, ...] = ()


def test_paths_go_through_dataclasses_and_named_tables() -> None:
    assert list(key_paths(Outer)) == [
        "one", "one.speed", "one.limit",
        "named", "named.a", "named.b", "named.a.speed", "named.a.limit", "named.b.speed",
        "named.b.limit", "plain", "plain.a", "plain.a.speed", "plain.a.limit", "free"]


def test_every_value_of_a_shipped_recipe_has_its_path() -> None:
    recipe = load_train_recipe("small", {"exit_changes.mv.num_views": 3})
    refuse_unknown(asdict(recipe), TrainRecipe, where="small")
    assert {"backbones.mv.epochs", "inputs.iframe.crop_px", "exit_changes.residual.label_share",
            "augment.flip", "wise.l2"} <= set(key_paths(TrainRecipe))


@pytest.mark.parametrize(("key", "hint"), [
    ("backbones.mv.epoch", "backbones.mv.epoch: did you mean backbones.mv.epochs?"),
    ("backbones.mvs.epochs", "backbones.mvs: did you mean backbones.mv?"),
    ("backbone.mv.epochs", "backbone: did you mean backbones?"),
    ("exit.epochs", "exit: did you mean exits?"),
    ("inputs.iframes.crop_px", "inputs.iframes: did you mean inputs.iframe?"),
    ("exit_changes.mv.lable_share",
     "exit_changes.mv.lable_share: did you mean exit_changes.mv.label_share?"),
    ("augment.colour", "augment.colour: did you mean augment.color?"),
    ("exits.xyzzyx", None),
])
def test_a_near_miss_is_named_by_its_whole_path(key: str, hint: str | None) -> None:
    for load in (lambda: load_train_recipe("small", {key: 3}),
                 lambda: changed_recipe(load_train_recipe("small"), {key: 3})):
        with pytest.raises(ConfigError, match="is 'unknown'; allowed: ") as caught:
            load()
        assert caught.value.hint == hint


def test_int8_recipes_name_near_misses_too() -> None:
    with pytest.raises(ConfigError) as caught:
        load_int8_recipe("int8", {"finetune.epoch": 3})
    assert caught.value.hint == "finetune.epoch: did you mean finetune.epochs?"


def test_a_value_that_may_be_absent_has_a_type_all_the_same() -> None:
    assert typed_table(Inner, {"limit": None}, where="x") == Inner()
    assert typed_table(Inner, {"limit": 2}, where="x") == Inner(limit=2)
    with pytest.raises(ConfigError, match="x: limit is 'two'; allowed: a number"):
        typed_table(Inner, {"limit": "two"}, where="x")


def test_changes_make_tables_that_are_missing_and_go_through_no_plain_value() -> None:
    assert with_changes({}, {"named.a.speed": 4}, where="x") == {"named": {"a": {"speed": 4}}}
    with pytest.raises(ConfigError, match=r"x: free\.a is 'a key of a plain value'"):
        with_changes({"free": 3}, {"free.a": 1}, where="x")
