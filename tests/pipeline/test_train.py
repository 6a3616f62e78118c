"""From clips to networks with four exits: what is written, kept, refused and left out."""

from __future__ import annotations

import csv
import errno
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from edgepkd.config import MODALITIES
from edgepkd.datasets.index import read_index
from edgepkd.errors import (
    DataError,
    ModelError,
    StorageError,
    TrainingError,
    UsageError,
)
from edgepkd.models.checkpoint import load_network
from edgepkd.pipeline import train as pipeline
from edgepkd.pipeline.train import (
    ExitsConfig,
    StepDone,
    TrainConfig,
    train_all_exits,
    train_backbones,
)
from edgepkd.pipeline.trained_run import open_run
from edgepkd.recipes import load_recipe, recipe_names
from edgepkd.training.cache import cache_spec, cached_clip
from edgepkd.training.features import FeatureCache
from edgepkd.training.loop import Checkpoint
from edgepkd.training.recipe import load_train_recipe
from edgepkd.training.runs import read_run
from tests.training.tiny_set import (
    Row,
    change_index,
    make_set,
    without_calibration,
    write_recipe,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches and the recipe, which the runs share."""
    folder = tmp_path_factory.mktemp("shared")
    write_recipe(folder / "tiny.toml")
    return folder


def settings(run: Path, data: Path | None, shared: Path, **changes: Any) -> dict[str, Any]:
    return {"run": run, "data": data, "recipe": str(shared / "tiny.toml") if data else None,
            "cache": shared / "cache", "jobs": 1, "threads": 1, **changes}


@pytest.fixture(scope="module")
def trained(data: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three trunks."""
    run = tmp_path_factory.mktemp("run")
    done = list(train_backbones(TrainConfig(**settings(run, data, shared))))
    assert [step.modality for step in done] == list(MODALITIES)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def exits(run: Path, shared: Path, **changes: Any) -> list[StepDone]:
    """Train the exits with what the run knows."""
    return list(train_all_exits(ExitsConfig(**settings(
        run, None, shared, features=FeatureCache(shared / "features"), **changes))))


def weights(path: Path) -> dict[str, Tensor]:
    return load_network(path)[0].state_dict()


def rows(path: Path) -> list[Row]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_trunks_are_written_with_their_logs(trained: Path, data: Path) -> None:
    assert read_run(trained).index == (data / "index.csv").resolve()
    assert read_run(trained).labels == ("left", "right")
    for modality in MODALITIES:
        network, extra = load_network(trained / f"{modality}-trunk")
        assert network.spec.num_classes == 2
        assert extra["values"]["epoch"] == 1
        folder = trained / f"backbone-{modality}"
        assert [row["epoch"] for row in rows(folder / "results.csv")] == ["0", "1"]
        assert float(rows(folder / "results.csv")[1]["loss_calibration"]) > 0
        events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert events[0]["kind"] == "start"
        assert (events[0]["modality"], events[0]["recipe"]["epochs"]) == (modality, 2)
    assert rows(trained / "skipped.csv") == []


def test_exits_follow_from_what_the_run_knows(run: Path, shared: Path) -> None:
    done = exits(run, shared, method="pkd", last_teacher="iframe")
    assert [(step.step, step.modality, step.kept) for step in done] == [
        ("exits", modality, False) for modality in MODALITIES]
    for modality in MODALITIES:
        trunk, network = weights(run / f"{modality}-trunk"), weights(run / modality)
        for key in trunk:
            if ".trunk." in key or key.startswith("segments.3."):
                assert torch.equal(trunk[key], network[key]), key
        assert not torch.equal(trunk["segments.0.head.conv.weight"],
                               network["segments.0.head.conv.weight"])
        extra = load_network(run / modality)[1]
        assert (extra["method"], extra["last_teacher"]) == ("pkd", "iframe")
        assert set(done[0].values) >= {"loss", "loss_exit_3", "accuracy_calibration_exit_1"}
    recipe = read_run(run).recipe
    assert (recipe.exits.scheme, recipe.exits.last_teacher) == ("pkd", "iframe")


def test_without_calibration_clips_training_goes_on_and_says_so(
    data: Path, shared: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(data, tmp_path / "data"))
    change_index(own, without_calibration)
    run, shown = tmp_path / "run", Console(file=io.StringIO(), width=80)
    one: dict[str, Any] = {"modalities": ("mv",), "console": shown}
    list(train_backbones(TrainConfig(**settings(run, own, shared, **one))))
    exits(run, shared, method="ce", modalities=("mv",))
    for step in ("backbone", "exits"):
        assert "loss" in rows(run / f"{step}-mv" / "results.csv")[-1]
        assert "loss_calibration" not in rows(run / f"{step}-mv" / "results.csv")[-1]
    said = shown.file.getvalue()  # type: ignore[attr-defined]
    assert ("train 4 clips of 2 classes in 2 groups; calibration none; test 2 clips of 2 classes in"
            " 1 group\n") in said
    assert "note: no calibration part is drawn: there are 4 training clips" in said
    best = settings(tmp_path / "best", own, shared, changes={"backbones.mv.select": "best"})
    with pytest.raises(TrainingError, match="there are no calibration clips"):
        list(train_backbones(TrainConfig(**{**best, "modalities": ("mv",)})))
    assert not (tmp_path / "best" / "backbone-mv" / "checkpoint.safetensors").exists()


def test_classes_without_test_clips_are_named_at_the_start(
    data: Path, shared: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(data, tmp_path / "data"))
    change_index(own, lambda row: None if (row["split"], row["label"]) == ("test", "left") else row)
    shown = Console(file=io.StringIO(), width=80)
    list(train_backbones(TrainConfig(**settings(
        tmp_path / "run", own, shared, modalities=("mv",), console=shown))))
    assert "note: no test clip of left: no result says anything of them\n" in (
        shown.file.getvalue())  # type: ignore[attr-defined]


def test_a_network_that_learned_nothing_is_said_in_every_step(
    data: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features that always were zero, and few clips: said after the trunk, the exits, and kept."""
    real = pipeline.train_backbone

    def killing(*arguments: Any, **keywords: Any) -> Any:
        network = real(*arguments, **keywords)
        for name, tensor in list(network)[-1].trunk.named_parameters():
            if ".bn2." in name:
                tensor.data.fill_(-1 if "bias" in name else 0)
            if "downsample" in name:
                tensor.data.zero_()
        return network

    monkeypatch.setattr(pipeline, "train_backbone", killing)
    config = TrainConfig(**settings(tmp_path / "run", data, shared, modalities=("mv",)))
    (trunk,) = train_backbones(config)
    assert trunk.notes[0].startswith("mv: 64 of 64 last features are always zero (")
    assert f"try edgepkd train backbone {tmp_path / 'run-2'}" in trunk.notes[-1]
    (again,) = train_backbones(replace(config, resume=True))
    assert (again.kept, again.notes) == (True, trunk.notes)
    (done,) = exits(tmp_path / "run", shared, modalities=("mv",), method="ce")
    assert done.notes[0] == trunk.notes[0]
    health = load_network(tmp_path / "run" / "mv")[1]["health"]
    assert (health["exits"], health["num_zero"], health["train"]["num_clips"]) == (
        [1, 2, 3, 4], 64, 4)


def test_a_sound_network_is_not_complained_of(run: Path, shared: Path) -> None:
    health = load_network(run / "mv-trunk")[1]["health"]
    losses = [float(row["loss"]) for row in rows(run / "backbone-mv" / "results.csv")]
    assert (health["first_loss"], health["lowest_loss"]) == pytest.approx(losses)
    assert health["num_features"] == 64
    (done,) = exits(run, shared, modalities=("mv",), method="ce")
    assert load_network(run / "mv")[1]["health"]["first_loss"] == health["first_loss"]
    assert not any("zero" in note for note in done.notes)


def test_resume_keeps_what_is_there_and_force_replaces_it(run: Path, shared: Path) -> None:
    one: dict[str, Any] = {"modalities": ("mv",), "method": "ce"}
    (first,) = exits(run, shared, **one)
    with pytest.raises(UsageError, match=r"mv\.json exists"):
        exits(run, shared, **one)
    content = (run / "mv.safetensors").read_bytes()
    (kept,) = exits(run, shared, resume=True, **one)
    assert (kept.kept, kept.values) == (True, first.values)
    (again,) = exits(run, shared, force=True, **one)
    assert not again.kept
    assert (run / "mv.safetensors").read_bytes() == content
    with pytest.raises(UsageError, match="made with other settings, weights or clips"):
        exits(run, shared, resume=True, modalities=("mv",), method="anticurriculum")


def test_a_step_that_was_killed_before_its_last_file_is_only_written(
    run: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "save_network", kill)
        with pytest.raises(KeyboardInterrupt):
            exits(run, shared, modalities=("mv",), method="ce")
    assert not (run / "mv.json").exists()
    (done,) = exits(run, shared, modalities=("mv",), method="ce", resume=True)
    expected = rows(run / "exits-mv" / "results.csv")[-1]
    assert done.values["loss"] == pytest.approx(float(expected["loss"]))
    assert done.values["epoch"] == 2
    assert len(rows(run / "exits-mv" / "results.csv")) == 3


def test_training_stopped_between_epochs_goes_on_to_the_same_network(
    run: Path, shared: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mv-trunk.json", "mv-trunk.safetensors"):
        (run / name).unlink()
    shutil.rmtree(run / "backbone-mv")
    real = pipeline.train_backbone

    def stop_after_one(*arguments: Any, checkpoint: Checkpoint, log: Any, **keywords: Any) -> Any:
        class Stop(type(log)):  # type: ignore[misc]
            def row(self, *, epoch: int, **values: Any) -> None:
                if epoch == 1:
                    raise KeyboardInterrupt
                super().row(epoch=epoch, **values)

        log.__class__ = Stop
        return real(*arguments, checkpoint=checkpoint, log=log, **keywords)

    config = TrainConfig(**settings(run, None, shared, modalities=("mv",)))
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "train_backbone", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            list(train_backbones(config))
    assert not (run / "mv-trunk.json").exists()
    (done,) = train_backbones(replace(config, resume=True))
    assert not done.kept
    assert (run / "mv-trunk.safetensors").read_bytes() == (
        trained / "mv-trunk.safetensors").read_bytes()
    assert [row["epoch"] for row in rows(run / "backbone-mv" / "results.csv")] == ["0", "1"]


def test_online_exits_are_another_step(run: Path, shared: Path) -> None:
    (cached,) = exits(run, shared, modalities=("mv",), method="ce")
    with pytest.raises(UsageError, match="made with other settings"):
        exits(run, shared, modalities=("mv",), method="ce", online=True, resume=True)
    (online,) = exits(run, shared, modalities=("mv",), method="ce", online=True, force=True)
    assert online.values["loss"] != cached.values["loss"]


def test_networks_may_have_exits_of_their_own(run: Path, shared: Path) -> None:
    """Another teacher and other views for one network: both reach the features."""
    done = exits(run, shared, modalities=("mv",), method="ce", changes={
        "exit_changes.mv.num_views": 3, "exit_changes.mv.epochs": 1})
    assert done[0].values["epoch"] == 0
    exits(run, shared, modalities=("mv",), force=True, changes={
        "exits.scheme": "ce", "exit_changes.mv.scheme": "iframe"})
    assert load_network(run / "mv")[1]["method"] == "iframe"


def test_changes_come_on_top_of_the_run(run: Path, shared: Path) -> None:
    """The trunks' own settings need not be said again."""
    exits(run, shared, modalities=("mv",), changes={"exits.epochs": 1, "exits.scheme": "ce"})
    recipe = read_run(run).recipe
    assert (recipe.name, recipe.exits.epochs, recipe.backbones["mv"].epochs) == ("tiny", 1, 2)


@pytest.mark.parametrize(("changes", "name"), [
    ({"seed": 5}, "seed"), ({"dataset": "other"}, "dataset"),
    ({"changes": {"backbones.mv.epochs": 9}}, "backbones"),
    ({"changes": {"clip.clip_frames": 30}}, "clip"),
])
def test_a_run_does_not_become_another_one(
    run: Path, shared: Path, data: Path, changes: dict[str, Any], name: str
) -> None:
    other = data.with_name("with-column")
    if not other.exists():
        shutil.copytree(data, other)
        change_index(other, lambda row: {**row, "dataset": "other"})
    source = other if "dataset" in changes else None
    if source:
        document = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(
            {**document, "index": str((other / "index.csv").resolve())}))
    before = (run / "run.json").read_bytes()
    with pytest.raises(UsageError, match=f"holds a run with other {name}"):
        list(train_backbones(TrainConfig(**settings(run, None, shared, resume=True, **changes))))
    assert (run / "run.json").read_bytes() == before


def test_other_data_is_refused(run: Path, shared: Path, data: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(data, tmp_path / "other"))
    with pytest.raises(UsageError, match="holds a run with other index"):
        list(train_backbones(TrainConfig(**settings(run, other, shared, resume=True))))


def test_clips_that_changed_are_noticed(
    data: Path, shared: Path, tmp_path: Path
) -> None:
    """The same index, with one clip less: the trunk that is there is not of these clips."""
    own = Path(shutil.copytree(data, tmp_path / "data"))
    config = TrainConfig(**settings(tmp_path / "run", own, shared, modalities=("mv",)))
    list(train_backbones(config))
    change_index(own, lambda row: None if row["path"].endswith("left/scene00.mp4") else row)
    with pytest.raises(UsageError, match="made with other settings, weights or clips"):
        list(train_backbones(replace(config, resume=True)))


def test_a_clip_that_cannot_be_read_is_listed_and_left_out(
    data: Path, shared: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(data, tmp_path / "data"))
    broken = own / "videos" / "left" / "scene00.mp4"
    broken.write_bytes(b"nothing")
    change_index(own, lambda row: {**row, "sha256": ""} if row["path"].endswith(
        "left/scene00.mp4") else row)
    config = TrainConfig(**settings(tmp_path / "run", own, shared, modalities=("mv",)))
    (done,) = train_backbones(config)
    assert done.values["loss"] > 0
    (skipped,) = rows(tmp_path / "run" / "skipped.csv")
    assert (skipped["path"], skipped["label"]) == (str(broken), "left")
    assert skipped["reason"]


def one_class(row: Row) -> Row | None:
    return row if row["label"] == "left" else None


@pytest.mark.parametrize(("change", "message"), [
    (one_class, r"the clips have 1 label \(left\); allowed: 2 or more"),
    (lambda row: {**row, "split": "train"}, "split test is empty; allowed: at least one clip"),
    (lambda row: {**row, "group": "same"}, "share the group same"),
    (lambda row: {**row, "path": row["path"] + ".gone"}, "8 of 8 clips of .* are absent"),
])
def test_data_that_cannot_be_trained_on_are_refused_and_leave_no_run(
    data: Path, shared: Path, tmp_path: Path, change: Any, message: str
) -> None:
    own = Path(shutil.copytree(data, tmp_path / "data"))
    change_index(own, change)
    with pytest.raises(DataError, match=message):
        list(train_backbones(TrainConfig(**settings(tmp_path / "run", own, shared))))
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_leaves_no_part_of_a_decoded_clip(
    data: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = read_index(data / "index.csv")[0]
    spec = cache_spec(load_train_recipe(str(shared / "tiny.toml")))
    save = np.save

    def fill(path: Path, array: np.ndarray) -> None:
        save(path, array[:1])
        if path.name != "mv.npy":
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", fill)
        with pytest.raises(StorageError, match=r"decoded clips cannot .*: No space"):
            cached_clip(sample, spec=spec, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert cached_clip(sample, spec=spec, folder=tmp_path).gop_lengths == (12, 1)


def test_a_missing_trunk_names_the_command(run: Path, shared: Path) -> None:
    """Of a teacher, too; a network whose teachers are there is trained."""
    (run / "iframe-trunk.json").unlink()
    with pytest.raises(ModelError, match="the trunk of iframe is needed") as caught:
        exits(run, shared, modalities=("mv",), method="iframe")
    assert "edgepkd train backbone" in str(caught.value)
    assert len(exits(run, shared, modalities=("mv",), method="ce")) == 1


def test_a_loss_that_is_not_finite_loses_nothing(data: Path, shared: Path, tmp_path: Path) -> None:
    config = TrainConfig(**settings(tmp_path / "run", data, shared, changes={
        "backbones.residual.learning_rate": 1e30, "backbones.residual.optimizer": "sgd",
        "backbones.residual.warmup_share": 0, "backbones.residual.epochs": 4}))
    done: list[StepDone] = []
    with pytest.raises(TrainingError, match="it must be finite"):
        done.extend(train_backbones(config))
    assert [s.modality for s in done] == ["mv"]
    events = (tmp_path / "run" / "backbone-residual" / "log.jsonl").read_text().splitlines()
    assert "TrainingError" in json.loads(events[-1])["error"]


def test_another_method_gets_a_run_of_its_own(run: Path, shared: Path, tmp_path: Path) -> None:
    """The same trunks, other exits; the first run stays as it is, and the second needs it not."""
    exits(run, shared, modalities=("mv",), method="pkd")
    before = {path: path.read_bytes() for path in sorted(run.iterdir()) if path.is_file()}
    out = tmp_path / "mine-ce"
    (done,) = exits(run, shared, modalities=("mv",), method="ce", out=out)
    assert done.path == out / "mv.json"
    assert {path: path.read_bytes() for path in before} == before
    assert read_run(out).trunks_from == str(run.resolve())
    assert (read_run(out).recipe.exits.scheme, read_run(run).recipe.exits.scheme) == ("ce", "pkd")
    shutil.move(run, tmp_path / "gone")
    one, other = weights(tmp_path / "gone" / "mv"), weights(out / "mv")
    assert torch.equal(one["segments.3.head.fc.weight"], other["segments.3.head.fc.weight"])
    assert not torch.equal(one["segments.0.head.conv.weight"], other["segments.0.head.conv.weight"])
    assert list(open_run(out).networks) == ["mv"]
    exits(out, shared, modalities=("mv",), method="ce", force=True)
    assert read_run(out).trunks_from == str(run.resolve())


SHIPPED = [name for name in recipe_names("calibration")
           if "backbones" in load_recipe("calibration", name)]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_trains_on_own_data(
    data: Path, shared: Path, tmp_path: Path, name: str
) -> None:
    """One step of the motion network and of its exits, on pictures small enough for a test."""
    changes: dict[str, Any] = {
        "backbones.mv.epochs": 1, "backbones.mv.step_epochs": [], "exits.epochs": 1,
        "exits.step_epochs": [], "exits.scheme": "ce", "exits.num_views": 1,
        "inputs.mv.resize_px": 40, "inputs.mv.crop_px": 32}
    config = TrainConfig(**{**settings(tmp_path / "run", data, shared), "recipe": name},
                         changes=changes, modalities=("mv",))
    (done,) = train_backbones(config)
    assert done.values["loss"] > 0
    assert read_run(tmp_path / "run").recipe.dataset == ""
    assert len(exits(tmp_path / "run", shared, modalities=("mv",))) == 1


def test_without_data_a_new_run_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no data was named") as caught:
        list(train_backbones(TrainConfig(run=tmp_path / "run")))
    assert "--data FOLDER" in str(caught.value)
