"""Answers to held-out clips, and which run they belong to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.datasets.index import read_index
from edgepkd.errors import DataError
from edgepkd.logits.clip_logits import load_logits, save_logits
from edgepkd.pipeline.held_out import (
    again,
    answer_split,
    belongs_to,
    clip_names,
    network_hashes,
    pooled_folds,
    read_folds,
)
from edgepkd.training.runs import read_run
from tests.logits.made_logits import make_logits
from tests.training.tiny_set import make_run, make_set


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return make_run(folder / "a", make_set(folder / "data"))


@pytest.mark.slow
def test_calibration_clips_are_answered_by_the_runs_networks(run: Path, tmp_path: Path) -> None:
    answered = answer_split(run, cache=tmp_path)
    expected = {s.group for s in read_index(run.parent / "data" / "index.csv")
                if s.split == "calibration"}
    assert set(answered.groups) == expected
    assert answered.split == "calibration"
    assert answered.weights_sha256 == network_hashes(run)


def test_folds_are_pooled_with_what_answered_and_whom_they_belong_to(run: Path) -> None:
    parts = [make_logits(num_clips=6, seed=i, weights_sha256=dict.fromkeys(
        ("mv", "residual", "iframe"), str(i) * 64)) for i in range(2)]
    pooled = pooled_folds(run, parts, seed=9)
    save_logits(pooled, run / "folds" / "logits.npz")
    read = read_folds(run)
    assert read is not None
    assert read.folds == pooled.folds
    assert read.folds is not None
    assert read.folds.fold_of == (0,) * 6 + (1,) * 6
    assert [one["mv"][0] for one in read.folds.weights_sha256] == ["0", "1"]
    assert (read.folds.belongs_to, read.folds.seed) == (belongs_to(run), 9)
    assert (read.split, len(read)) == ("folds", 12)
    assert read.weights_sha256 == network_hashes(run)
    assert (read.logits["mv"][6:] == parts[1].logits["mv"]).all()


def test_logits_that_are_no_folds_are_refused(run: Path) -> None:
    save_logits(make_logits(), run / "folds" / "logits.npz")
    with pytest.raises(DataError, match="is of folds with another recipe"):
        read_folds(run)
    (run / "folds" / "logits.npz").unlink()
    assert read_folds(run) is None


def test_what_folds_belong_to_changes_with_all_that_they_depend_on(run: Path) -> None:
    own, document = belongs_to(run), (run / "run.json").read_text()
    changed = json.loads(document)
    for keys, value in ((("seed",), 8), (("recipe", "backbones", "mv", "epochs"), 9),
                        (("recipe", "exits", "scheme"), "ce"), (("labels",), ["a", "b", "left",
                                                                              "right"])):
        table = changed = json.loads(document)
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value
        (run / "run.json").write_text(json.dumps(changed))
        assert belongs_to(run) != own, keys
    changed = json.loads(document)
    changed["recipe"]["augment"] = {"gamma": 0.5}
    (run / "run.json").write_text(json.dumps(changed))
    assert belongs_to(run) != own
    changed = json.loads(document)
    changed["recipe"]["default_order"] = ["iframe"]  # no network depends on it
    (run / "run.json").write_text(json.dumps(changed))
    assert belongs_to(run) == own
    (run / "run.json").write_text(document)
    (run / "quantize.json").write_text('{"networks": {"mv": {"settings": {"a": 1}, "seed": 0}}}')
    assert belongs_to(run) != own
    (run / "quantize.json").unlink()


def test_clips_are_named_by_content_and_group(run: Path) -> None:
    record = read_run(run)
    samples = read_index(record.index)
    moved = [replace(s, path=Path("elsewhere") / s.path.name) for s in samples]
    assert clip_names(record, samples) == clip_names(record, moved)
    unhashed = [replace(s, sha256="") for s in samples]
    assert clip_names(record, unhashed) == clip_names(record, samples), "content, not the path"
    regrouped = [replace(s, group="one") for s in samples]
    assert clip_names(record, samples) != clip_names(record, regrouped)


def test_the_verb_that_makes_them_again(run: Path, tmp_path: Path) -> None:
    assert again(run) == f"Train them again: edgepkd train folds {run} --force"
    (tmp_path / "int8-ptq").mkdir()
    (tmp_path / "int8-ptq" / "quantize.json").touch()
    assert again(tmp_path / "int8-ptq").endswith(
        f"edgepkd quantize {tmp_path} --method ptq --force")


def test_pooled_answers_are_read_as_they_were_written(run: Path, tmp_path: Path) -> None:
    pooled = pooled_folds(run, [make_logits(num_clips=6), make_logits(num_clips=3)], seed=1)
    save_logits(pooled, tmp_path / "a.npz")
    assert load_logits(tmp_path / "a.npz").folds == pooled.folds
