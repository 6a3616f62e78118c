"""The study's arms and settings."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.config import MODALITIES
from edgepkd.errors import ConfigError
from edgepkd.studies.study import ARMS, EQUAL, UNEQUAL, load_study
from edgepkd.training.exits import teacher_at
from edgepkd.training.recipe import ExitRecipe, load_train_recipe


def test_the_study_compares_what_it_promises() -> None:
    study = load_study("reproduce")
    assert [plan.recipe.dataset for plan in study.sets] == [
        "Weizmann", "UT-Interaction", "surv-fight"]
    assert [plan.floor for plan in study.sets] == [0.78, 0.71, 0.67]
    assert len(study.exit_seeds) >= 3
    assert {arm.scheme for arm in EQUAL} == {"ce", "pkd", "anticurriculum", "iframe"}


def test_equal_arms_have_equal_epochs_and_unequal_ones_the_papers_ratio() -> None:
    base = ExitRecipe(epochs=30)
    assert {arm.recipe(base).epochs for arm in EQUAL} == {30}
    assert {arm.recipe(base).epochs for arm in UNEQUAL} == {60}
    changed = {arm.recipe(base).learning_rate for arm in ARMS}
    assert changed == {base.learning_rate}


def test_arms_are_told_apart_but_where_they_teach_the_same() -> None:
    base = ExitRecipe(epochs=12)
    for arm in EQUAL:
        for modality in MODALITIES:
            plain = arm.same_as(modality)

            def taught(recipe: ExitRecipe, modality: str = modality) -> list[str]:
                teachers = [teacher_at(recipe.scheme, epoch=e, num_epochs=recipe.epochs,
                                       last_teacher=recipe.last_teacher) for e in range(12)]
                return [modality if name == "own" else name for name in teachers]

            assert taught(arm.recipe(base)) == taught(plain.recipe(base))
            assert (plain.name != arm.name) == (
                arm.name == "pkd_last_iframe" and modality == "iframe")


def test_a_study_with_a_key_too_many_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('trunk_seeds = [1]\nexit_seeds = [1]\nflatness_clips = 2\n'
                    'flatness_probes = 2\nspeed = 1\n[sets]\nreproduce-ut = 0.7\n')
    with pytest.raises(ConfigError, match="speed"):
        load_study(str(path))
    path.write_text('trunk_seeds = [1]\nexit_seeds = []\nflatness_clips = 2\n'
                    'flatness_probes = 2\n[sets]\nreproduce-ut = 0.7\n')
    with pytest.raises(ConfigError, match="exit_seeds"):
        load_study(str(path))


@pytest.mark.parametrize(("clips", "probes", "words"), [
    (0, 2, "flatness_clips is 0; allowed: 1 or more"),
    (2, 1, "flatness_probes is 1; allowed: 2 or more"),
])
def test_flatness_that_cannot_be_measured_is_refused_before_anything_is_trained(
    tmp_path: Path, clips: int, probes: int, words: str
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(f'trunk_seeds = [1]\nexit_seeds = [1]\nflatness_clips = {clips}\n'
                    f'flatness_probes = {probes}\n[sets]\nreproduce-ut = 0.7\n')
    with pytest.raises(ConfigError, match=words):
        load_study(str(path))


def test_the_study_of_the_defaults_is_of_the_default_recipe_alone() -> None:
    study, small = load_study("defaults"), load_train_recipe("small")
    assert [plan.recipe.dataset for plan in study.sets] == [
        "Weizmann", "UT-Interaction", "surv-fight"]
    for plan in study.sets:
        assert replace(plan.recipe, name=small.name, dataset="", index=small.index) == small
        assert plan.tuned is not None
        assert math.isnan(plan.floor)
    assert len(study.trunk_seeds) == 3
    assert study.only_training


def test_a_set_without_a_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('trunk_seeds = [1]\nexit_seeds = [1]\n[sets.mine]\ndataset = "Mine"\n')
    with pytest.raises(ConfigError, match=r"sets.mine: key recipe is 'missing'"):
        load_study(str(path))
