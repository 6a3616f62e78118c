"""Averaged or stacked: what decides, what is tried, and that a run keeps what was decided."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgepkd.pipeline.motion_form import FORM_FILE, judge_forms, with_form
from edgepkd.pipeline.synth import SynthConfig, synth
from edgepkd.pipeline.train import train_backbones
from edgepkd.pipeline.train_config import TrainConfig
from edgepkd.training.execution import Execution
from edgepkd.training.recipe import load_train_recipe
from edgepkd.training.runs import read_run
from tests.training.tiny_set import make_set, write_recipe

LABELS = np.arange(60) % 3
GROUPS = [str(i // 6) for i in range(60)]


def logits(worth: float, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return worth * np.eye(3)[LABELS] + rng.normal(size=(60, 3))


@pytest.mark.parametrize(("averaged", "stacked", "expected"), [
    (3.0, 0.5, False), (0.5, 3.0, True), (2.0, 2.0, True)])
def test_averaged_is_taken_only_where_it_is_better_by_more_than_the_noise(
    averaged: float, stacked: float, expected: bool
) -> None:
    choice = judge_forms(logits(averaged, 0), logits(stacked, 1), labels=LABELS, groups=GROUPS)
    assert choice.is_stacked is expected
    assert choice.averaged is not None
    assert choice.stacked is not None
    assert choice.averaged.accuracy == (logits(averaged, 0).argmax(1) == LABELS).mean()
    assert "on 60 held-out clips: averaged" in choice.why


def test_scale_is_nothing_to_the_choice() -> None:
    """An overfit network is too sure of itself; its temperature is fitted later."""
    loud = 20 * logits(2.5, 3)
    choice = judge_forms(logits(2.5, 3), loud, labels=LABELS, groups=GROUPS)
    assert choice.averaged is not None
    assert choice.stacked is not None
    assert choice.stacked.loss == pytest.approx(choice.averaged.loss, abs=1e-3)


def test_groups_that_differ_as_wholes_widen_the_noise() -> None:
    """What a form gains on the clips of one person counts once, not six times."""
    luck = np.random.default_rng(0).normal(size=10)[np.array(GROUPS, int)]
    stacked = logits(1.5, 5)
    averaged = stacked + luck[:, None] * np.eye(3)[LABELS]
    alone, grouped = (
        float(judge_forms(averaged, stacked, labels=LABELS, groups=groups).why.split("± ")[1])
        for groups in ([str(i) for i in range(60)], GROUPS))
    assert grouped > 1.5 * alone


def test_a_stacked_network_trains_on_all_that_it_sees() -> None:
    recipe = load_train_recipe("small")
    assert recipe.choose_stack
    stacked, averaged = (with_form(recipe, is_stacked=it) for it in (True, False))
    assert stacked.inputs["mv"].stack
    assert not stacked.choose_stack
    assert stacked.backbones["mv"].train_segments == recipe.inputs["mv"].num_segments
    assert averaged == replace(recipe, choose_stack=False)


def undecided(path: Path) -> Path:
    recipe = write_recipe(path)
    recipe.write_text("choose_stack = true\n" + recipe.read_text().replace(
        "[inputs.mv]\nnum_segments = 1", "[inputs.mv]\nnum_segments = 2"))
    return recipe


def config(run: Path, data: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "run": run, "data": data, "recipe": str(run.with_name("tiny.toml")), "threads": 1,
        "modalities": ("mv",), "cache": run.parent / "cache", "jobs": 1,
        "execution": Execution(device="cpu")}
    return TrainConfig(**{**values, **changes})


@pytest.mark.slow
def test_a_run_tries_both_once_and_keeps_the_choice(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "a"
    list(synth(SynthConfig(folder=data, num_classes=2, num_clips=24, clip_frames=25)))
    undecided(tmp_path / "tiny.toml")
    shown = Console(file=io.StringIO(), width=200)
    list(train_backbones(config(run, data, console=shown)))
    choice = json.loads((run / FORM_FILE).read_text())
    assert 0 <= choice["averaged"]["accuracy"] <= 1
    recipe = read_run(run).recipe
    assert not recipe.choose_stack
    assert recipe.inputs["mv"].stack is choice["is_stacked"]
    said = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "before that, both forms of the motion network on 3 folds: " in said
    assert f"motion network: {'stacked' if choice['is_stacked'] else 'averaged'} fields (on" in said
    (run / FORM_FILE).unlink()
    (done,) = train_backbones(config(run, data, resume=True))
    assert done.kept
    assert not (run / FORM_FILE).exists(), "it is decided"


@pytest.mark.slow
def test_few_groups_are_averaged_and_a_form_that_is_named_is_not_tried(tmp_path: Path) -> None:
    data, run = make_set(tmp_path / "data"), tmp_path / "a"
    undecided(tmp_path / "tiny.toml")
    list(train_backbones(config(run, data)))
    assert json.loads((run / FORM_FILE).read_text())["why"] == "fewer than 4 groups to try it on"
    assert not read_run(run).recipe.inputs["mv"].stack
    named = {"inputs.mv.stack": True, "backbones.mv.train_segments": 2}
    list(train_backbones(config(tmp_path / "b", data, changes=named)))
    assert not (tmp_path / "b" / FORM_FILE).exists()
    assert read_run(tmp_path / "b").recipe.inputs["mv"].stack
