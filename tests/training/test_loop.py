"""The loop over epochs: kill and resume, selection, checkpoints that do not fit, NaN, full disk."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgepkd.config import InputSpec
from edgepkd.errors import StorageError, TrainingError
from edgepkd.training.backbone import new_network, train_backbone
from edgepkd.training.exits import (
    CachedFeatures,
    ViewPlan,
    calibration_views,
    collect_views,
    label_rows,
    train_exits,
)
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import (
    Checkpoint,
    Log,
    Silent,
    hash_of,
    mix_seed,
    run_epochs,
    settle_selection,
)
from edgepkd.training.optimizers import make_optimizer
from edgepkd.training.recipe import BackboneRecipe, ExitRecipe, OptimizerRecipe, Selection
from edgepkd.training.runlog import RunLog
from tests.disks import FULL, full_disk
from tests.processes import started
from tests.training.fake_clips import fake_clip

SPEC = InputSpec("residual", num_segments=2, resize_px=32, crop_px=32)
DATA = LabelledClips([fake_clip(seed=i, brightness=170 * (i % 2)) for i in range(6)],
                     [i % 2 for i in range(6)])
HELD_OUT = LabelledClips([fake_clip(seed=20 + i, brightness=170 * i) for i in range(2)], [0, 1])
EPOCHS = 6


def train(kind: str, folder: Path | None, *, resume: bool = False) -> dict[str, Tensor]:
    """Weights after training in `folder`, with dropout, selection and log as in earnest."""
    torch.set_num_threads(1)
    checkpoint = folder and Checkpoint(folder / "checkpoint.safetensors", kind, resume=resume)
    log = RunLog(folder, resume=resume) if folder else None
    backbone = BackboneRecipe(backbone="resnet18", width=0.125, epochs=EPOCHS, dropout=0.3,
                              learning_rate=1e-2, train_segments=1, batch_clips=3, select="best")
    if kind == "backbone":
        return train_backbone(DATA, spec=SPEC, recipe=backbone, num_classes=2, rule="centre",
                              seed=3, calibration=HELD_OUT, log=log, checkpoint=checkpoint
                              ).state_dict()
    torch.manual_seed(3)
    network = new_network(SPEC, backbone, num_classes=2)
    features = CachedFeatures(
        collect_views(network, DATA.clips, ViewPlan(SPEC, 2, 1, "centre", seed=3)), {})
    train_exits(network, features, label_rows(DATA, num_views=2), seed=3, log=log,
                recipe=ExitRecipe(scheme="ce", epochs=EPOCHS, batch_views=4, select="best"),
                calibration=calibration_views(network, HELD_OUT, spec=SPEC),
                checkpoint=checkpoint)
    return network.state_dict()


# ---- kill and resume

SLOW = """
import sys, time
from pathlib import Path
from edgepkd.training import loop, losses, backbone, exits
from tests.training.test_loop import train

def slow(function):
    def wrapped(*arguments, **keywords):
        time.sleep(0.1)
        return function(*arguments, **keywords)
    return wrapped

backbone.clip_loss = slow(backbone.clip_loss)
exits.exit_loss = slow(exits.exit_loss)
train(sys.argv[1], Path(sys.argv[2]))
"""


def epochs_in(folder: Path) -> list[int]:
    path = folder / "results.csv"
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [int(row["epoch"]) for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Two processes that train, each ended by SIGKILL in the third epoch or soon after."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("backbone", "exits")}
    deadline = time.monotonic() + 120
    with ExitStack() as stack:
        running = {kind: stack.enter_context(started(
            [sys.executable, "-c", SLOW, kind, str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"})) for kind, folder in folders.items()}
        for kind, process in running.items():
            while len(epochs_in(folders[kind])) < 2:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.05)
            process.kill()
            assert process.wait() == -9
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["backbone", "exits"])
def test_a_killed_run_goes_on_to_the_weights_of_one_that_was_not(
    killed: Mapping[str, Path], kind: str
) -> None:
    before = epochs_in(killed[kind])
    assert 2 <= len(before) < EPOCHS
    resumed = train(kind, killed[kind], resume=True)
    whole = train(kind, None)
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)
    assert epochs_in(killed[kind]) == list(range(EPOCHS))
    log = (killed[kind] / "log.jsonl").read_text()
    assert '"kind": "resume", "epochs_done": 0' not in log
    assert '"kind": "resume"' in log


# ---- the loop on one number


class Line(nn.Module):
    """One weight, whose epochs count it up by 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class Seen(Silent):
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.events: dict[str, dict[str, Any]] = {}

    def event(self, kind: str, **values: Any) -> None:
        self.events[kind] = values

    def row(self, *, epoch: int, **values: float | int | str) -> None:
        self.rows.append({"epoch": epoch, **values})


STEPS = OptimizerRecipe(epochs=4, learning_rate=0.1)


def count(
    recipe: OptimizerRecipe = STEPS, *, checkpoint: Checkpoint | None = None,
    log: Log | None = None,
    losses: Mapping[int, float] | None = None, held_out: Sequence[float] | None = None,
    stop_in: int | None = None,
) -> float:
    """Run the loop over epochs that add 1 to the weight; returns the weight."""
    module = Line()
    optimizer = make_optimizer([(module.named_parameters(), 1.0)], recipe)

    def train_epoch(epoch: int) -> Mapping[str, float]:
        if epoch == stop_in:
            raise KeyboardInterrupt
        with torch.no_grad():
            module.weight += 1
        return {"loss": (losses or {}).get(epoch, 1.0)}

    def evaluate() -> Mapping[str, float]:
        assert held_out is not None
        return {"loss_calibration": held_out[int(module.weight.item()) - 1]}

    run_epochs(module, [optimizer], recipe=recipe, train_epoch=train_epoch, log=log,
               evaluate=evaluate if held_out else None, checkpoint=checkpoint)
    return module.weight.item()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "checkpoint.safetensors", "this run")


def resumed(checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    return replace(checkpoint, resume=True, **changes)


@pytest.mark.parametrize(("select", "expected"), [("best", 2), ("last", 4)])
def test_the_epoch_with_the_best_calibration_loss_is_kept(
    select: Selection, expected: int
) -> None:
    log = Seen()
    assert count(replace(STEPS, select=select), held_out=[3, 1, 2, 1], log=log) == expected
    assert len(log.rows) == 4
    assert log.events == ({"selected": {"epoch": 1, "loss_calibration": 1}}
                          if select == "best" else {})


@pytest.mark.parametrize(("start", "expected"), [(0.5, 0), (2.5, 2)])
def test_no_epoch_at_all_may_be_the_best(start: float, expected: int) -> None:
    module, values = Line(), [start, 3.0, 1.0, 2.0, 4.0]
    optimizer = make_optimizer([(module.named_parameters(), 1.0)], STEPS)

    def train_epoch(epoch: int) -> Mapping[str, float]:
        with torch.no_grad():
            module.weight += 1
        return {"loss": 1.0}

    run_epochs(module, [optimizer], recipe=replace(STEPS, select="best"), train_epoch=train_epoch,
               evaluate=lambda: {"distance": values[int(module.weight.item())]},
               choose_by="distance", start_counts=True)
    assert module.weight.item() == expected


@pytest.mark.parametrize(("held_out", "expected"), [([1, 3, 2, 2], 1), ([3, 2, 4, 1], 4)])
def test_the_best_epoch_survives_a_stop(
    checkpoint: Checkpoint, held_out: list[float], expected: int
) -> None:
    recipe = replace(STEPS, select="best")
    with pytest.raises(KeyboardInterrupt):
        count(recipe, held_out=held_out, checkpoint=checkpoint, stop_in=2)
    log = Seen()
    assert count(recipe, held_out=held_out, checkpoint=resumed(checkpoint), log=log) == expected
    assert [row["epoch"] for row in log.rows] == [2, 3]


# best in the second epoch; two epochs of patience are over after the fourth
FALLING = (3, 1, 2, 2, 0, 0, 0, 0)


def patient(epochs: int, patience: float) -> OptimizerRecipe:
    return replace(STEPS, epochs=epochs, select="best", patience=patience)


@pytest.mark.parametrize(("patience", "seen", "kept"), [
    (0.25, 4, 2), (0.2, 4, 2), (0.375, 8, 5), (0.0, 8, 5), (0.1, 3, 2)])
def test_training_stops_when_the_loss_has_not_fallen_for_its_share_of_epochs(
    patience: float, seen: int, kept: int
) -> None:
    log = Seen()
    assert count(patient(8, patience), held_out=FALLING, log=log) == kept
    assert len(log.rows) == seen
    assert log.events.get("stopped_early") == (
        None if seen == 8 else {"epochs_done": seen, "of": 8})


def test_patience_counts_only_where_the_calibration_loss_chooses() -> None:
    log = Seen()
    count(replace(patient(8, 0.25), select="last"), held_out=FALLING, log=log)
    assert len(log.rows) == 8


def test_a_run_that_had_stopped_early_does_not_go_on(checkpoint: Checkpoint) -> None:
    rare = replace(checkpoint, every_epochs=100)
    count(patient(8, 0.25), held_out=FALLING, checkpoint=rare)
    log = Seen()
    assert count(patient(8, 0.25), held_out=FALLING, checkpoint=resumed(rare), log=log) == 2
    assert log.rows == []


@pytest.mark.parametrize(("clips", "groups", "classes", "expected"), [
    (50, 4, 2, "best"), (49, 4, 2, "last"), (50, 3, 2, "last"), (50, 4, 1, "last"),
    (0, 0, 0, "last"),
])
def test_auto_lets_calibration_choose_where_there_is_enough_of_it(
    clips: int, groups: int, classes: int, expected: str
) -> None:
    log = Seen()
    settled = settle_selection(
        replace(STEPS, select="auto"), labels=[i % classes for i in range(clips)], log=log,
        groups=[f"person {i % groups}" for i in range(clips)], num_classes=2)
    assert settled == replace(STEPS, select=expected)  # type: ignore[arg-type]
    assert log.events["selection"] == {
        "select": expected, "num_clips": clips, "num_groups": groups, "num_classes": classes,
        "of": 2}


@pytest.mark.parametrize("select", ["best", "last"])
def test_a_choice_that_is_named_is_not_settled(select: Selection) -> None:
    log = Seen()
    recipe = replace(STEPS, select=select)
    assert settle_selection(recipe, labels=(), groups=(), num_classes=2, log=log) == recipe
    assert log.events == {}


def test_a_backbone_and_its_exits_settle_the_choice_on_their_calibration_clips() -> None:
    """Groups reach both: without them 'auto' would be 'last'."""
    many = LabelledClips(list(HELD_OUT.clips) * 25, [0, 1] * 25, [str(i) for i in range(50)])
    log = Seen()
    network = train_backbone(
        DATA, spec=SPEC, num_classes=2, rule="centre", seed=3, calibration=many, log=log,
        recipe=BackboneRecipe(backbone="resnet18", width=0.125, epochs=1, learning_rate=1e-2,
                              train_segments=1, batch_clips=3, select="auto"))
    assert log.events["selection"]["select"] == "best"
    log = Seen()
    features = CachedFeatures(
        collect_views(network, DATA.clips, ViewPlan(SPEC, 2, 1, "centre", seed=3)), {})
    train_exits(network, features, label_rows(DATA, num_views=2), seed=3, log=log,
                recipe=ExitRecipe(scheme="ce", epochs=1, batch_views=4, select="auto"),
                calibration=calibration_views(network, many, spec=SPEC))
    assert log.events["selection"]["select"] == "best"
    assert log.events["selected"]["epoch"] == 0


def test_selection_without_calibration_clips_is_refused() -> None:
    with pytest.raises(TrainingError, match="there are no calibration clips") as caught:
        count(replace(STEPS, select="best"))
    assert "select = 'last'" in str(caught.value)


def test_a_run_that_was_over_tells_its_last_numbers_again(checkpoint: Checkpoint) -> None:
    count(checkpoint=checkpoint, losses={3: 0.25})
    log = Seen()
    assert count(checkpoint=resumed(checkpoint), log=log) == 4
    assert log.rows == []
    assert log.events["resume"]["epochs_done"] == 4
    assert log.events["resume"]["values"]["loss"] == 0.25


def test_without_resume_training_starts_anew(checkpoint: Checkpoint) -> None:
    count(checkpoint=checkpoint)
    log = Seen()
    count(checkpoint=checkpoint, log=log)
    assert len(log.rows) == 4


def test_checkpoints_can_be_rarer_than_epochs_but_the_last_epoch_has_one(
    checkpoint: Checkpoint,
) -> None:
    rare = replace(checkpoint, every_epochs=3)
    with pytest.raises(KeyboardInterrupt):
        count(checkpoint=rare, stop_in=2)
    assert not rare.path.exists()
    count(checkpoint=rare)
    log = Seen()
    count(checkpoint=resumed(rare), log=log)
    assert log.rows == []


def test_a_checkpoint_of_another_run_is_refused(checkpoint: Checkpoint) -> None:
    count(checkpoint=checkpoint)
    with pytest.raises(TrainingError, match="of a run with other settings or other data"):
        count(checkpoint=resumed(checkpoint, key=hash_of({"seed": 2})))


@pytest.mark.parametrize("damage", [
    lambda content: content[: len(content) // 2], lambda content: b"",
    lambda content: content[:-1], lambda content: b"\xff" * len(content),
    lambda content: content.replace(b"module.weight", b"module.wright"),
    lambda content: content.replace(b"epochs_done", b"epochs_gone"),
])
def test_a_damaged_checkpoint_is_named(
    checkpoint: Checkpoint, damage: Callable[[bytes], bytes]
) -> None:
    count(checkpoint=checkpoint)
    checkpoint.path.write_bytes(damage(checkpoint.path.read_bytes()))
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors is damaged") as caught:
        count(checkpoint=resumed(checkpoint))
    assert "Delete it" in str(caught.value)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_keeps_the_checkpoint_before(
    checkpoint: Checkpoint, loss: float
) -> None:
    with pytest.raises(TrainingError, match=f"loss is {loss} in epoch 3"):
        count(checkpoint=checkpoint, losses={2: loss})
    log = Seen()
    assert count(checkpoint=resumed(checkpoint), log=log) == 4
    assert [row["epoch"] for row in log.rows] == [2, 3]


def test_weights_that_explode_end_the_training_of_a_backbone() -> None:
    recipe = BackboneRecipe(backbone="resnet18", width=0.125, epochs=3, learning_rate=1e30,
                            optimizer="sgd", train_segments=1, batch_clips=3, warmup_share=0.0)
    with pytest.raises(TrainingError, match="it must be finite"):
        train_backbone(DATA, spec=SPEC, recipe=recipe, num_classes=2, rule="centre", seed=3)


def test_a_full_disk_keeps_the_checkpoint_before(checkpoint: Checkpoint) -> None:
    with pytest.raises(KeyboardInterrupt):
        count(checkpoint=checkpoint, stop_in=2)
    before = checkpoint.path.read_bytes()

    with full_disk(), pytest.raises(StorageError, match=FULL):
        count(checkpoint=resumed(checkpoint))
    assert checkpoint.path.read_bytes() == before
    assert list(checkpoint.path.parent.iterdir()) == [checkpoint.path]
    assert count(checkpoint=resumed(checkpoint)) == 4


def test_hashes_and_seeds_depend_on_every_part() -> None:
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1}) != hash_of({"a": 1, "b": 3})
    assert mix_seed(1, "mv") == mix_seed(1, "mv")
    assert len({mix_seed(1, "mv"), mix_seed(1, "iframe"), mix_seed(2, "mv")}) == 3
    assert 0 <= mix_seed(1, "mv") < 2**32
