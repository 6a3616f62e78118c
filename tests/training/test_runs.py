"""A run's folder: what is written is read again; two runs are not mixed in one."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.datasets.index import Sample
from edgepkd.errors import DataError, UsageError
from edgepkd.training.recipe import load_train_recipe
from edgepkd.training.runs import (
    FoldOf,
    Run,
    read_run,
    refuse_other_run,
    write_run,
    write_skipped,
)

RECIPE = load_train_recipe("paper-ucf101")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", RECIPE, tmp_path / "index.csv", ("a", "b"), 7)


def test_a_run_is_read_as_it_was_written(run: Run) -> None:
    write_run(run)
    again = read_run(run.folder)
    assert again == run
    refuse_other_run(run, again)
    document = json.loads((run.folder / "run.json").read_text())
    assert document["seed"] == 7
    assert {"edgepkd", "python", "torch", "av", "numpy"} == set(document["versions"])


def test_a_fold_says_which_it_is_and_a_run_does_not(run: Run) -> None:
    write_run(run)
    assert "fold" not in json.loads((run.folder / "run.json").read_text())
    fold = replace(run, fold=FoldOf(1, 3, 7))
    write_run(fold)
    assert read_run(run.folder) == fold


@pytest.mark.parametrize("fold", [{"index": 3, "of": 3, "seed": 0}, {"index": 0, "of": 1}, [1]])
def test_a_fold_that_cannot_be_is_a_damaged_run(run: Run, fold: Any) -> None:
    write_run(run)
    path = run.folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fold": fold}))
    with pytest.raises(DataError, match="is damaged"):
        read_run(run.folder)


def test_a_relative_index_is_found_from_elsewhere(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(replace(run, index=Path("index.csv")))
    monkeypatch.chdir("/")
    assert read_run(run.folder).index == run.index


def test_files_of_a_run_have_fixed_places(run: Run) -> None:
    assert run.trunk("mv") == run.folder / "mv-trunk"
    assert run.network("mv") == run.folder / "mv"
    assert run.step("exits", "mv") == run.folder / "exits-mv"


@pytest.mark.parametrize(("name", "changes"), [
    ("labels", {"labels": ("a", "c")}),
    ("index", {"index": Path("/elsewhere/index.csv")}),
    ("seed", {"seed": 8}),
    ("clip", {"recipe": replace(RECIPE, clip=replace(RECIPE.clip, clip_frames=30))}),
    ("inputs", {"recipe": replace(RECIPE, inputs={
        **RECIPE.inputs, "mv": replace(RECIPE.inputs["mv"], crop_px=192)})}),
    ("dataset", {"recipe": replace(RECIPE, dataset="other")}),
    ("backbones", {"recipe": replace(RECIPE, backbones={
        **RECIPE.backbones, "mv": replace(RECIPE.backbones["mv"], epochs=3)})}),
])
def test_another_run_is_refused_and_what_differs_is_named(
    run: Run, name: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(UsageError) as caught:
        refuse_other_run(run, replace(run, **changes))
    assert caught.value.message == f"{run.folder} holds a run with other {name}."


def test_exits_may_change_within_a_run(run: Run) -> None:
    other = replace(run, recipe=replace(RECIPE, exits=replace(
        RECIPE.exits, scheme="ce", epochs=2)))
    refuse_other_run(run, other)
    with pytest.raises(UsageError) as caught:
        refuse_other_run(run, replace(other, seed=8))
    assert caught.value.message == f"{run.folder} holds a run with other seed."


def test_a_folder_without_a_run_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no training run: run\.json cannot") as caught:
        read_run(tmp_path)
    assert "edgepkd train backbone" in str(caught.value)


@pytest.mark.parametrize("damage", [
    lambda document: [], lambda document: {**document, "recipe": 3},
    lambda document: {**document, "recipe": {**document["recipe"], "epochs": 3}},
    lambda document: {k: v for k, v in document.items() if k != "labels"},
])
def test_a_damaged_run_file_is_named(run: Run, damage: Any) -> None:
    write_run(run)
    path = run.folder / "run.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(DataError, match=r"run\.json is damaged"):
        read_run(run.folder)
    path.write_bytes(path.read_bytes()[:-5] + b"\xff")
    with pytest.raises(DataError, match=r"run\.json is damaged"):
        read_run(run.folder)


def test_a_newer_run_file_is_refused(run: Run) -> None:
    write_run(run)
    path = run.folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))
    with pytest.raises(DataError, match="schema_version 2; allowed: 1"):
        read_run(run.folder)


def test_skipped_clips_are_listed_with_their_reasons(run: Run) -> None:
    sample = Sample(Path("/data/a,b.mp4"), "a", "g", "train")
    write_skipped(run, {sample: 'it is "empty", they say'})
    with (run.folder / "skipped.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row == {"path": "/data/a,b.mp4", "label": "a", "reason": 'it is "empty", they say'}
