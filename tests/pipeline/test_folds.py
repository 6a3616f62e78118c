"""`train folds` on a tiny set: what is trained on what, what is kept, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepkd.config import Modality
from edgepkd.errors import DataError, UsageError
from edgepkd.logits.clip_logits import load_logits
from edgepkd.models.checkpoint import load_network
from edgepkd.pipeline.clips import clips_in_splits
from edgepkd.pipeline.folds import (
    FoldsConfig,
    FoldsDone,
    FoldsPlan,
    fold_folders,
    quantize_folds,
    train_folds,
)
from edgepkd.pipeline.held_out import answer_split, network_hashes, read_folds
from edgepkd.pipeline.quantize import quantize
from edgepkd.pipeline.quantize_config import QuantizeConfig
from edgepkd.pipeline.synth import SynthConfig, synth
from edgepkd.pipeline.train_config import StepDone
from edgepkd.training.execution import Execution
from edgepkd.training.features import FeatureCache
from edgepkd.training.runs import read_run
from tests.training.tiny_set import make_run, make_set

TRAINED: tuple[Modality, ...] = ("mv",)


def config(run: Path, **changes: Any) -> FoldsConfig:
    values: dict[str, Any] = {
        "run": run, "folds": 2, "threads": 1, "execution": Execution(device="cpu"), "jobs": 1,
        "cache": run.parent / "cache", "features": FeatureCache(run.parent / "features")}
    return FoldsConfig(**{**values, **changes})


def without_teachers(run: Path) -> Path:
    """The run with exits that learn from labels: no other trunk is needed."""
    path = run / "run.json"
    path.write_text(path.read_text().replace('"scheme": "pkd"', '"scheme": "ce"'))
    assert read_run(run).recipe.exits.scheme == "ce"
    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes of two labels: three train."""
    folder = tmp_path_factory.mktemp("folds") / "data"
    list(synth(SynthConfig(folder=folder, num_classes=2, num_clips=12, clip_frames=13)))
    return folder


Events = Sequence[FoldsPlan | StepDone | FoldsDone]


@pytest.fixture(scope="module")
def trained(data: Path) -> tuple[Path, Events]:
    """A run of the motion network with its folds."""
    run = without_teachers(make_run(data.parent / "a", data, modalities=TRAINED))
    return run, list(train_folds(config(run, modalities=TRAINED)))


@pytest.mark.slow
def test_each_training_clip_is_answered_by_a_network_that_never_saw_its_group(
    trained: tuple[Path, Events],
) -> None:
    run, events = trained
    answered = load_logits(run / "folds" / "logits.npz")
    own = [s for s in clips_in_splits(read_run(run), None, None).samples if s.split == "train"]
    assert sorted(answered.groups) == sorted(s.group for s in own)
    assert answered.folds is not None
    assert answered.split == "folds"
    fold_of = np.array(answered.folds.fold_of)
    for i, folder in enumerate(fold_folders(run)):
        record = read_run(folder)
        clips = clips_in_splits(record, None, None).samples
        seen = {s.group for s in clips if s.split == "train"}
        mine = {g for g, fold in zip(answered.groups, fold_of, strict=True) if fold == i}
        assert mine.isdisjoint(seen)
        assert answered.folds.weights_sha256[i] == network_hashes(folder)
        np.testing.assert_array_equal(
            answered.logits["mv"][fold_of == i],
            answer_split(folder, cache=run.parent / "cache").logits["mv"])
    assert events[0] == FoldsPlan(2, (4, 2), (), None)
    assert [(e.modality, e.step) for e in events if isinstance(e, StepDone)] == [
        ("mv", "backbone")] * 2 + [("mv", "exits")] * 2
    assert events[-1] == FoldsDone(run / "folds" / "logits.npz", 6, 3)


@pytest.mark.slow
def test_held_out_clips_choose_nothing(trained: tuple[Path, Events]) -> None:
    run, events = trained
    for event in events:
        if isinstance(event, StepDone):
            assert not [name for name in event.values if "calibration" in name]
    assert read_run(run / "folds" / "0").recipe.backbones["mv"].select == "last"


@pytest.mark.slow
def test_what_is_there_is_kept_unless_it_is_to_be_replaced(
    trained: tuple[Path, Events], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained[0], tmp_path / "a"))
    shutil.copytree(trained[0].parent / "cache", tmp_path / "cache")
    with pytest.raises(UsageError, match=r"folds exists\..*--resume"):
        list(train_folds(config(run, modalities=TRAINED)))
    with pytest.raises(UsageError, match="another cut than 3 folds"):
        list(train_folds(config(run, folds=3, resume=True)))
    shutil.rmtree(run / "folds" / "1")
    (run / "folds" / "logits.npz").unlink()
    events = list(train_folds(config(run, modalities=TRAINED, resume=True)))
    assert [e.kept for e in events if isinstance(e, StepDone)] == [True, False, True, False]
    again, first = (load_logits(place / "folds" / "logits.npz") for place in (run, trained[0]))
    assert (again.logits["mv"] == first.logits["mv"]).all()
    assert again.folds == first.folds


@pytest.mark.slow
def test_processes_give_the_networks_that_one_gives(
    trained: tuple[Path, Events], tmp_path: Path
) -> None:
    run = without_teachers(
        make_run(tmp_path / "a", trained[0].parent / "data", modalities=TRAINED))
    list(train_folds(config(run, processes=2, cache=trained[0].parent / "cache")))
    for ours, theirs in zip(fold_folders(run), fold_folders(trained[0]), strict=True):
        for one, other in zip(load_network(ours / "mv")[0].parameters(),
                              load_network(theirs / "mv")[0].parameters(), strict=True):
            assert bool((one == other).all())


@pytest.mark.slow
def test_quantised_folds_are_pooled_beside_the_quantised_networks(
    trained: tuple[Path, Events], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained[0], tmp_path / "a"))
    settings = QuantizeConfig(run=run, method="ptq", force_few=True, threads=1, jobs=1,
                              execution=Execution(device="cpu"), cache=trained[0].parent / "cache")
    list(quantize(settings))
    events = list(quantize_folds(settings))
    assert events[-1] == FoldsDone(settings.out / "folds" / "logits.npz", 6, 3)
    pooled, floats = read_folds(settings.out), read_folds(run)
    assert pooled is not None
    assert floats is not None
    assert pooled.folds is not None
    assert pooled.weights_sha256 == network_hashes(settings.out)
    for one, folder in zip(pooled.folds.weights_sha256, fold_folders(run), strict=True):
        assert one == network_hashes(folder / "int8-ptq")
    assert pooled.paths == floats.paths
    assert 0 < np.abs(pooled.logits["mv"] - floats.logits["mv"]).max() < 1
    assert list(quantize_folds(replace(settings, data=tmp_path))) == []


def test_what_has_no_folds_is_refused_before_any_work(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", make_set(tmp_path / "data"), modalities=TRAINED)
    with pytest.raises(DataError, match="2 groups can be held out, for 4 folds"):
        list(train_folds(config(run, folds=4)))
    with pytest.raises(DataError, match="no network with all exits that folds could be of"):
        list(train_folds(config(run, modalities=("iframe",))))
    (run / "quantize.json").touch()
    with pytest.raises(UsageError, match="holds quantised networks"):
        list(train_folds(config(run)))
    assert not (run / "folds").exists()
