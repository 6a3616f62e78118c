"""What `train` says when a network learned nothing: the finding, and a command that may help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepkd.datasets.index import Sample
from edgepkd.models.checkpoint import save_network
from edgepkd.pipeline import train_notes
from edgepkd.pipeline.train_config import ExitsConfig, TrainConfig
from edgepkd.pipeline.train_notes import (
    balance_line,
    flips,
    health_notes,
    logged_losses,
    mirror_notes,
    mirror_warning,
    training_time,
)
from edgepkd.training.health import Answered, Health
from edgepkd.training.loader import LabelledClips
from edgepkd.training.mirror import MirrorAnswers
from edgepkd.training.recipe import changed_recipe, load_train_recipe
from edgepkd.training.runs import Run
from tests.models.networks import small_network
from tests.training.tiny_set import write_recipe

DEAD: dict[str, Any] = {"num_zero": 97}
FLAT: dict[str, Any] = {"lowest_loss": 1.6, "train": Answered(
    num_clips=50, num_most_frequent=10, num_right=(10,))}


def health(**changes: Any) -> Health:
    return replace(Health(
        exits=(4,), num_features=100, num_zero=10, num_zero_at_start=8, first_loss=1.6,
        lowest_loss=0.4, train=Answered(num_clips=50, num_most_frequent=10, num_right=(45,)),
        calibration=None), **changes)


def advice(modality: Any = "iframe", *, recipe: str = "small", of_exits: bool = False,
           changes: dict[str, Any] | None = None, named: str | None = None, **found: Any) -> str:
    run = Run(Path("runs/my run"), changed_recipe(load_train_recipe(recipe), changes or {}),
              Path("my-data/index.csv"), ("a", "b"), 1)
    config = (ExitsConfig if of_exits else TrainConfig)(
        run=run.folder, data=None if of_exits else Path("my-data"), recipe=named,
        changes=changes or {})
    *_, last = health_notes(config, run, modality, health(**found)) or ("",)
    return last


def test_nothing_is_said_of_a_network_that_learned() -> None:
    assert advice() == ""
    config = TrainConfig(run=Path("r"))
    run = Run(Path("r"), load_train_recipe("small"), Path("i"), ("a", "b"), 1)
    assert health_notes(config, run, "mv", None) == ()


def test_a_dead_trunk_is_trained_again_with_what_was_measured_to_help() -> None:
    """Into another folder: a run does not become another one."""
    told = advice(changes={"backbones.iframe.frozen_batch_norm": True,
                           "backbones.iframe.batch_clips": 4}, **DEAD)
    assert told.startswith("iframe: try edgepkd train backbone 'runs/my run-2' --data my-data"
                           " --recipe small --set ")
    assert "--set backbones.iframe.frozen_batch_norm=false" in told
    assert "--set backbones.iframe.batch_clips=16" in told
    assert "frozen_batch_norm=true" not in told
    told = advice(changes={"backbones.iframe.frozen_batch_norm": False,
                           "backbones.iframe.batch_clips": 16,
                           "backbones.iframe.learning_rate": 1e-4}, **DEAD)
    assert "--set backbones.iframe.learning_rate=2e-05" in told


def test_a_network_that_learned_nothing_gets_more_steps() -> None:
    assert "--preset best" in advice("mv", **FLAT)
    told = advice("mv", recipe="demo-ut", named="demo-ut", **FLAT)
    assert "--preset" not in told
    assert "--recipe demo-ut --set backbones.mv.epochs=180" in told


def test_changes_that_were_made_are_kept() -> None:
    told = advice("mv", changes={"backbones.mv.dropout": 0.1, "backbones.mv.epochs": 1}, **FLAT)
    assert "--preset best --set backbones.mv.dropout=0.1" in told
    assert "epochs" not in told


def test_early_exits_alone_are_trained_longer_in_place() -> None:
    train = Answered(num_clips=50, num_most_frequent=10, num_right=(10, 40, 40, 45))
    told = advice("mv", of_exits=True, changes={"exits.epochs": 20}, exits=(1, 2, 3, 4),
                  train=train)
    assert told == ("mv: try edgepkd train exits 'runs/my run' --modality mv --force"
                    " --set exits.epochs=60")


def test_what_does_not_hold_for_other_groups_needs_other_clips() -> None:
    unseen = Answered(num_clips=20, num_most_frequent=4, num_right=(2,))
    assert "clips of more groups" in advice(calibration=unseen)


def test_losses_of_a_step_are_those_of_its_table(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("epoch,loss,seconds\n0,1.5,2\n1,0.5,2\n")
    assert logged_losses(tmp_path) == (1.5, 0.5)
    (tmp_path / "results.csv").write_text("epoch,loss\n0,\n")
    assert logged_losses(tmp_path) == ()
    assert logged_losses(tmp_path / "absent") == ()


def sample(label: str, group: str, split: str) -> Sample:
    return Sample(Path(f"{label}{group}{split}.mp4"), label, group, split)


def test_the_largest_and_the_smallest_class_are_named() -> None:
    samples = (*(sample("run", group, "train") for group in "abc"), sample("walk", "b", "train"),
               sample("run", "d", "calibration"), sample("walk", "d", "calibration"),
               sample("walk", "e", "test"))
    assert balance_line(samples) == (
        "training clips of the classes: smallest walk 1, largest run 3 (3.0 times)")


def test_classes_of_one_size_are_said_to_be() -> None:
    samples = [sample(label, group, split) for label in ("run", "walk")
               for group, split in (("a", "train"), ("b", "calibration"), ("c", "test"))]
    assert balance_line(samples) == "training clips of the classes: 1 each"


def test_labels_that_name_a_side_are_warned_of_before_training() -> None:
    recipe = load_train_recipe("small")
    assert flips(recipe)
    assert mirror_warning(("upright", "walk"), recipe) == ()
    (said,) = mirror_warning(("turn_left", "turn_right", "L_jab", "R_jab"), recipe)
    assert "'turn_left' of 'turn_right' and 1 more" in said
    assert "--set augment.flip=false" in said


def test_sides_that_the_motion_network_mixes_up_are_said_after_it(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(Path("r"), load_train_recipe("small"), Path("i"), ("left", "right", "wave"), 1)
    labels = np.repeat([0, 1, 2], 10)
    data: Any = LabelledClips([None] * 30, labels.tolist())  # type: ignore[list-item]

    def said(plain: Any, mirrored: Any) -> tuple[str, ...]:
        found = MirrorAnswers(labels, np.array(plain), np.array(mirrored))
        monkeypatch.setattr(train_notes, "mirror_answers", lambda *_, **__: found)
        return mirror_notes(small_network(num_classes=3), data, run)

    assert said(labels, labels) == ()
    (note,) = said(labels, [1] * 10 + [0] * 10 + [2] * 10)
    assert note == ("mv: mirrored, 20 of 20 clips of 'left' and 'right' are taken for the other (0"
                    " as they are): --set augment.flip=false keeps them apart")
    half = [0, 1] * 10 + [2] * 10
    (note,) = said(half, half)
    assert note.startswith("mv: it does not tell 'left' from 'right': 50.0 %")
    assert "of 20 clips; --set augment.flip=false may help" in note


@pytest.mark.slow
def test_the_time_is_measured_for_what_is_still_to_be_trained(tmp_path: Path) -> None:
    recipe = replace(load_train_recipe(str(write_recipe(tmp_path / "tiny.toml"))), name="small")
    run = Run(tmp_path / "run", recipe, tmp_path, ("a", "b"), 1)
    samples = tuple(sample(label, f"{split}{i}", split) for i in range(2)
                    for split in ("train", "calibration", "test") for label in "ab")
    save_network(small_network(num_classes=2), run.trunk("mv"))

    def lines(config: TrainConfig) -> tuple[str, ...]:
        return training_time(config, run, samples)

    kept = TrainConfig(run=run.folder, modalities=("mv",), cache=tmp_path / "cache")
    assert lines(kept) == ()
    first, network, others = lines(replace(kept, force=True))
    assert first.startswith("small: about ")
    assert "  mv        4 steps: " in network
    assert others.startswith("other presets: quick ")
    two = lines(ExitsConfig(run=run.folder, modalities=("mv",), cache=tmp_path / "cache"))
    assert (len(two), "steps" in two[1]) == (2, False)


@pytest.mark.parametrize("value", [True, [1, 2], "cosine", 0.5])
def test_values_are_written_as_set_takes_them(value: Any) -> None:
    from edgepkd.cli.training_options import recipe_changes
    from edgepkd.pipeline.train_notes import _toml

    assert recipe_changes([f"a.b={_toml(value)}"]) == {"a.b": value}
