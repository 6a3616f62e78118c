"""Recipes: every shipped one loads; mistakes are named."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from edgepkd.config import MODALITIES, ClipSpec, Modality, facts_of
from edgepkd.errors import ConfigError
from edgepkd.recipes import load_recipe, recipe_names, room_path
from edgepkd.studies.study import load_study
from edgepkd.training.exits import view_plan
from edgepkd.training.recipe import (
    AugmentRecipe,
    BackboneRecipe,
    ExitRecipe,
    FinetuneRecipe,
    augment_facts,
    changed_recipe,
    load_train_recipe,
    recipe_of,
)

DEMOS = [name for name in recipe_names("calibration") if name.startswith("demo-")]
STUDIES = [name for name in recipe_names("calibration")
           if "sets" in load_recipe("calibration", name)]
INT8 = [name for name in recipe_names("calibration")
        if "quantizer" in load_recipe("calibration", name)]
PAPERS = ("paper-ucf101", "paper-hmdb51")


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
    ("[inputs.mv]", "[inputs.flow]", "inputs: key flow is 'unknown'; allowed: iframe, mv, "),
    ("backbone = \"resnet18\"", "backbone = \"vgg\"", "backbone is 'vgg'"),
    ("accuracy_loss = 0", "accuracy_loss = 2", "accuracy_loss is 2"),
    ("[wise]", "[vise]", "key vise is 'unknown'; allowed: augment, backbones, choose_stack, clip"),
])
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (room_path("calibration") / "demo-weizmann.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "own.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_train_recipe(str(path))


@pytest.mark.parametrize(
    "name", [n for n in recipe_names("calibration") if n not in (*STUDIES, *INT8)])
def test_every_training_recipe_loads_and_survives_being_written(name: str) -> None:
    recipe = load_train_recipe(name)
    assert (recipe.name, recipe.purpose != "") == (name, True)
    assert recipe_of(asdict(recipe), where=name) == recipe
    for modality in MODALITIES:
        assert recipe.exits_of(modality).for_clips(50).epochs >= 1


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_loads_with_its_sets(name: str) -> None:
    study = load_study(name)
    assert study.sets
    if study.only_training:  # it measures its floor itself, and has a recipe to compare with
        assert all(plan.tuned for plan in study.sets)
    else:
        assert all(0.5 < plan.floor < 1 for plan in study.sets)


def test_studies_are_told_apart_from_training_recipes() -> None:
    assert "reproduce" in STUDIES
    with pytest.raises(ConfigError, match="key exit_seeds"):
        load_train_recipe("reproduce")


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize(("modality", "backbone", "rate", "stem", "batch"), [
    ("mv", "resnet18", 0.01, 10, 80), ("residual", "resnet18", 0.005, 10, 80),
    ("iframe", "resnet50", 0.0003, 1, 40),
])
def test_backbones_of_the_paper(
    name: str, modality: Modality, backbone: str, rate: float, stem: float, batch: int
) -> None:
    """paper.md 3.1: Adam, 510 epochs; the classifier has the full rate, the trunk a hundredth."""
    recipe = load_train_recipe(name).backbones[modality]
    assert recipe.learning_rate == pytest.approx(rate / 100)
    assert recipe == BackboneRecipe(
        backbone=backbone, optimizer="adam", epsilon=1e-3,  # type: ignore[arg-type]
        weight_decay=1e-4, decay_biases=False, epochs=510, decline="steps",
        step_epochs=(150, 270, 390), step_factor=0.1, warmup_share=0, train_segments=3,
        learning_rate=recipe.learning_rate, head_multiplier=100, stem_multiplier=stem,
        batch_clips=batch,
        label_smoothing=0, dropout=0, select="best", width=1.0)


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize(("modality", "rate"), [
    ("mv", 0.01), ("residual", 0.005), ("iframe", 0.0003)])
def test_exits_of_the_paper(name: str, modality: Modality, rate: float) -> None:
    """paper.md 3.2: 300 epochs of PKD, a rate for each network, one Adam for each head."""
    recipe = load_train_recipe(name).exits_of(modality)
    assert recipe == ExitRecipe(
        scheme="pkd", last_teacher="own", optimizer="adam", epsilon=1e-3, weight_decay=1e-4,
        decay_biases=False, epochs=300, decline="steps", step_epochs=(150, 200, 250),
        learning_rate=rate, batch_views=32, num_views=8, temperature=1.0, label_share=0.0,
        select="best")


@pytest.mark.parametrize("name", PAPERS)
def test_the_paper_is_at_full_size_and_in_its_order(name: str) -> None:
    recipe = load_train_recipe(name)
    assert {(spec.resize_px, spec.crop_px) for spec in recipe.inputs.values()} == {(256, 224)}
    assert recipe.default_order == ("residual", "mv", "iframe")
    assert recipe.seed == 4711


def test_single_values_can_be_changed() -> None:
    changes: dict[str, Any] = {
        "backbones.mv.epochs": 7, "exits.epochs": 5,
        "exits.step_epochs": [1, 2], "seed": 9, "clip.sampling": "gop",
        "exit_changes.mv.learning_rate": 0.5, "exits.label_share": 0}
    recipe, plain = load_train_recipe("small", changes), load_train_recipe("small")
    assert recipe.backbones["mv"].epochs == 7
    assert recipe.backbones["iframe"] == plain.backbones["iframe"]
    assert recipe.exits.step_epochs == (1, 2)
    assert recipe.seed == 9
    assert recipe.clip == ClipSpec(sampling="gop")
    assert recipe.exits_of("mv").learning_rate == 0.5
    assert recipe.exits_of("iframe").learning_rate == plain.exits.learning_rate
    assert changed_recipe(plain, changes) == recipe
    assert changed_recipe(changed_recipe(plain, {"seed": 9}), {"exits.epochs": 2}).seed == 9


def test_epochs_follow_from_steps_and_the_number_of_clips() -> None:
    backbone = BackboneRecipe(backbone="resnet18", epochs=0, steps=300, min_epochs=5,
                              learning_rate=1, batch_clips=8)
    assert [backbone.for_clips(n).epochs for n in (3, 50, 87, 500, 5000)] == [300, 50, 30, 5, 5]
    resolved = backbone.for_clips(50)
    assert (resolved.steps, resolved.for_clips(9)) == (0, resolved)
    exits = ExitRecipe(epochs=0, steps=300, num_views=6, batch_views=64)
    assert [exits.for_clips(n).epochs for n in (5, 50, 5000)] == [300, 60, 1]
    assert exits.for_rows(300) == exits.for_clips(50)
    assert FinetuneRecipe(epochs=0, steps=60).for_clips(50).epochs == 10
    assert (backbone.length, resolved.length) == ("300 steps", "50 epochs")


def test_a_length_in_steps_replaces_one_in_epochs_and_the_other_way_round(tmp_path: Path) -> None:
    text = (room_path("calibration") / "small.toml").read_text(encoding="utf-8")
    path = tmp_path / "own.toml"
    path.write_text(text[: text.index("[exits]")] + '[exits]\nsteps = 200\n[wise]\n')
    recipe = load_train_recipe(str(path), {"backbones.mv.steps": 70, "exit_changes.mv.epochs": 9})
    assert (recipe.exits.epochs, recipe.exits.steps) == (0, 200)
    assert (recipe.backbones["mv"].epochs, recipe.backbones["mv"].steps) == (0, 70)
    assert (recipe.exits_of("mv").epochs, recipe.exits_of("mv").steps) == (9, 0)
    assert recipe.exits_of("iframe").steps == 200
    assert recipe_of(asdict(recipe), where="x") == recipe
    back = changed_recipe(recipe, {"backbones.mv.epochs": 4, "exits.epochs": 3})
    assert (back.backbones["mv"].epochs, back.backbones["mv"].steps) == (4, 0)
    assert (back.exits.epochs, back.exits.steps) == (3, 0)
    with pytest.raises(ConfigError, match="epochs is '4, and steps 70'; allowed: one of the two"):
        changed_recipe(recipe, {"exits.epochs": 4, "exits.steps": 70})


def test_keys_that_came_later_are_not_in_the_facts_of_older_recipes() -> None:
    """Hashes of runs that know nothing of them stay what they were."""
    older = {"epochs", "learning_rate", "optimizer", "epsilon", "momentum", "weight_decay",
             "decay_biases", "decline", "step_epochs", "step_factor", "warmup_share", "select"}
    plain = ExitRecipe(epochs=7)
    assert set(facts_of(plain)) == older | {
        "scheme", "last_teacher", "batch_views", "num_views", "temperature", "label_share"}
    backbone = BackboneRecipe(backbone="resnet18", epochs=7, learning_rate=1)
    assert set(facts_of(backbone)) == older | {
        "backbone", "width", "imagenet", "frozen_stages", "frozen_batch_norm", "head_multiplier",
        "stem_multiplier", "train_segments", "batch_clips", "label_smoothing", "dropout"}


def test_augmentation_is_in_the_views_of_exits_and_in_hashes_only_where_it_is_asked_for() -> None:
    plain = load_train_recipe("demo-weizmann")
    assert plain.augment == AugmentRecipe()
    assert augment_facts(plain) == {}
    assert "augment" not in facts_of(view_plan(plain, "mv"))
    changed = changed_recipe(plain, {"augment.gamma": 0.4, "augment.flip": False})
    assert changed.augment == AugmentRecipe(gamma=0.4, flip=False)
    assert augment_facts(changed)["augment"]["gamma"] == 0.4
    assert facts_of(view_plan(changed, "mv"))["augment"]["flip"] is False
    assert recipe_of(asdict(changed), where="x") == changed


@pytest.mark.parametrize(("key", "value", "message"), [
    ("exits.class_weights", "even", "class_weights is 'even'; allowed: none, balanced, auto"),
    ("backbones.mv.class_weights", "x", "class_weights is 'x'; allowed: none, balanced, auto"),
    ("exits.teacher_temperature", 0, "teacher_temperature is 0; allowed: above 0"),
    ("exits.teacher_temperature", "hot", "teacher_temperature is 'hot'; allowed: a number"),
    ("backbones.mv.accumulate", 0, "accumulate is 0; allowed: 1 or more"),
    ("backbones.mv.batch_norm_momentum", 0, "batch_norm_momentum is 0; allowed: 0 < value <= 1"),
    ("augment.gamma", 2, "gamma is 2; allowed: 0..1"),
    ("augment.flip", 1, "small: augment: flip is 1; allowed: true, false"),
    ("exits.steps", -1, "steps is -1; allowed: 1 or more"),
    ("exits.steps", 0.5, "small: exits: steps is 0.5; allowed: a whole number"),
    ("exits.epochs", 0, "epochs is 0; allowed: 1 or more"),
    ("exits.min_epochs", 0, "min_epochs is 0; allowed: 1 or more"),
    ("exits.epoch", 3, "small: exits: key epoch is 'unknown'; allowed: batch_views, class_weights"),
    ("backbones.mv.lr", 1, "small: backbones.mv: key lr is 'unknown'; allowed: accumulate, "),
    ("exit", 3, "small: key exit is 'unknown'; allowed: augment, backbones, choose_stack"),
    ("seed.x", 3, "small: seed.x is 'a key of a plain value'"),
    ("backbones.mv", 3, "small: backbones.mv is 3; allowed: a table of keys and values"),
    ("clip", 3, "small: clip is 3; allowed: a table"),
    ("exit_changes", 3, "small: exit_changes is 3; allowed: a table"),
    ("exit_changes.mv", 3, "small: exit_changes.mv is 3; allowed: a table"),
    ("exit_changes.flow.epochs", 3, "small: exit_changes: key flow is 'unknown'; "),
    ("exit_changes.mv.epoch", 3, "small: exit_changes.mv: key epoch is 'unknown'"),
    ("exits.epochs", "many", "small: exits: epochs is 'many'; allowed: a whole number"),
    ("exits.epochs", 2.5, "small: exits: epochs is 2.5; allowed: a whole number"),
    ("exits.learning_rate", True, "learning_rate is True; allowed: a number"),
    ("exits.decay_biases", 1, "decay_biases is 1; allowed: true, false"),
    ("exits.step_epochs", 3, "step_epochs is 3; allowed: a list"),
    ("exits.step_epochs", ["a"], "step_epochs is .*; allowed: a list"),
    ("exits.step_epochs", [2, 1], "step_epochs is .*; allowed: rising epoch numbers"),
    ("exits.scheme", ["pkd"], "scheme is .*; allowed: pkd, anticurriculum, iframe, ce"),
    ("exits.last_teacher", "mv", "last_teacher is 'mv'; allowed: own, iframe"),
    ("exits.temperature", 0, "temperature is 0; allowed: above 0"),
    ("exits.epsilon", 0, "epsilon is 0; allowed: above 0"),
    ("backbones.mv.momentum", 1, "momentum is 1; allowed: 0 <= value < 1"),
    ("backbones.mv.label_smoothing", 1.5, "label_smoothing is 1.5"),
    ("backbones.mv.dropout", 1, "dropout is 1; allowed: 0 <= value < 1"),
    ("inputs.mv.crop_px", 500, "crop_px is 500"),
])
def test_a_wrong_change_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_train_recipe("small", {key: value})
    with pytest.raises(ConfigError, match=message):
        changed_recipe(load_train_recipe("small"), {key: value})


def test_a_stacked_input_is_trained_with_all_its_segments() -> None:
    with pytest.raises(ConfigError, match=r"train_segments is 4; allowed: 8, because .*stack") as e:
        load_train_recipe("small", {"inputs.mv.stack": True})
    assert e.value.hint == "Add --set backbones.mv.train_segments=8"
    changes = {"inputs.mv.stack": True, "backbones.mv.train_segments": 8}
    recipe = load_train_recipe("small", changes)
    assert recipe.inputs["mv"].input_shape == (1, 16, 64, 64)
    assert recipe_of(asdict(recipe), where="x") == recipe_of(facts_of(recipe), where="x") == recipe
    with pytest.raises(ConfigError, match=r"inputs\.mv: stack is 1; allowed: true, false"):
        load_train_recipe("small", {"inputs.mv.stack": 1})
