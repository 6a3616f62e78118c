"""The folds of a study, how exits start anew, and jobs in processes."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from edgepkd.config import MODALITIES
from edgepkd.datasets.index import read_index
from edgepkd.errors import DataError, TrainingError
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.studies.parts import ExitInputs, load_clips
from edgepkd.studies.study import SetPlan, Study, load_study
from edgepkd.studies.units import (
    Unit,
    by_seed,
    done_part,
    files_by_seed,
    in_turn,
    listed_seconds,
    run_jobs,
    timed,
    train_new_exits,
    units_by_set,
)
from tests.models.networks import small_network
from tests.studies.tiny_parts import tiny_recipe, tiny_unit, write_index

# ---- folds


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Six groups of two clips in three folds, under two trunk seeds."""
    write_index(tmp_path / "index.csv", num_groups=6, num_test=2)
    recipe = replace(tiny_recipe(), name="made", dataset="Made", index="index.csv", num_folds=3)
    return Study((4711, 2), (7, 8), (SetPlan(recipe, 0.5),), 2, 2)


def units(study: Study, folder: Path) -> list[Unit]:
    (found,) = units_by_set(study, data=folder, out=folder / "out", cache=folder / "cache")
    return found


def test_every_clip_is_held_out_once_under_each_seed(study: Study, tmp_path: Path) -> None:
    found = units(study, tmp_path)
    assert [unit.part.name for unit in found] == [
        f"trunk{seed}-fold{fold}" for seed in (4711, 2) for fold in range(3)]
    everything = set(read_index(tmp_path / "index.csv"))
    for seed in (4711, 2):
        parts = [unit.part for unit in found if unit.part.recipe.seed == seed]
        assert sorted(s.path for p in parts for s in p.answer) == sorted(s.path for s in everything)
        for part in parts:
            assert {s.group for s in part.fit} & {s.group for s in part.answer} == set()
            assert set(part.fit) | set(part.answer) == everything
    assert {unit.part.folder for unit in found} == {tmp_path / "out" / "made"}
    assert {unit.exit_seeds for unit in found} == {(7, 8)}
    assert found[4].title == "made trunk2-fold1"


def test_folds_are_the_same_under_every_seed(study: Study, tmp_path: Path) -> None:
    found = units(study, tmp_path)
    for one, other in zip(found[:3], found[3:], strict=True):
        assert one.part.answer == other.part.answer


def test_files_are_listed_fold_by_fold_for_each_seed(study: Study, tmp_path: Path) -> None:
    files = files_by_seed(units(study, tmp_path), lambda unit, seed: unit.part.path(f"{seed}.npz"))
    assert list(files) == ["4711/7", "4711/8", "2/7", "2/8"]
    assert files["2/8"] == [tmp_path / "out" / "made" / f"trunk2-fold{i}" / "8.npz"
                            for i in range(3)]


def test_sets_take_turns_until_each_is_done(tmp_path: Path) -> None:
    a, b, c = (replace(tiny_unit(tmp_path), exit_seeds=(i,)) for i in range(3))
    assert in_turn([[a, b], [c]]) == [a, c, b]


def test_a_report_is_of_the_trunk_seeds_of_which_every_set_is_done(tmp_path: Path) -> None:
    study = replace(load_study("reproduce"), trunk_seeds=(1, 2))
    plain = tiny_unit(tmp_path, exit_seeds=(7, 8))

    def unit(dataset: str, trunk_seed: int, *, done: tuple[int, ...]) -> Unit:
        recipe = replace(plain.part.recipe, seed=trunk_seed)
        made = replace(plain, part=replace(plain.part, recipe=recipe, folder=tmp_path / dataset,
                                           name=f"trunk{trunk_seed}-fold0"))
        for seed in done:
            path = made.part.path(f"answers-{seed}.npz")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return made

    by_set = [[unit("a", 1, done=(7, 8)), unit("a", 2, done=(7, 8))],
              [unit("b", 1, done=(7,)), unit("b", 2, done=(7, 8))]]
    left, units = done_part(
        study, by_set, lambda unit, seed: unit.part.path(f"answers-{seed}.npz"))
    assert left.trunk_seeds == (2,)
    assert units == [by_set[0][1:], by_set[1][1:]]


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no trunk seed of the study has all its folds done"):
        done_part(replace(load_study("reproduce"), trunk_seeds=(1,)), [[tiny_unit(tmp_path)]],
                  lambda unit, seed: unit.part.path("answers.npz"))


def test_folds_are_put_together_by_seed(study: Study, tmp_path: Path) -> None:
    found = units(study, tmp_path)
    assert by_seed(found) == [found[:3], found[3:]]


def test_of_the_training_split_alone_no_test_clip_is_touched(study: Study, tmp_path: Path) -> None:
    (found,) = units_by_set(replace(study, only_training=True), data=tmp_path, out=tmp_path,
                            cache=tmp_path)
    train = {s for s in read_index(tmp_path / "index.csv") if s.split == "train"}
    assert len(train) == 8
    for unit in found:
        assert set(unit.part.fit) | set(unit.part.answer) == train


# ---- exits


def heads(network: SegmentedNetwork) -> list[torch.Tensor]:
    return [tensor.clone() for name, tensor in network.state_dict().items()
            if ".head." in name and not name.startswith("segments.3.")]


@pytest.mark.slow
@pytest.mark.usefixtures("fake_clips")
def test_exits_depend_on_their_seed_and_not_on_what_was_there(tmp_path: Path) -> None:
    unit = tiny_unit(tmp_path)
    networks = {m: small_network(modality=m, num_classes=2) for m in MODALITIES}
    inputs = ExitInputs.of(unit.part, networks, load_clips(unit.part, unit.part.fit))

    def trained(seed: int) -> list[torch.Tensor]:
        train_new_exits(unit, networks["mv"], inputs, recipe=unit.part.recipe.exits,
                        exit_seed=seed)
        return heads(networks["mv"])

    trunk = {name: tensor.clone() for name, tensor in networks["mv"].state_dict().items()
             if ".trunk." in name or name.startswith("segments.3.")}
    before, first, other, again = heads(networks["mv"]), trained(1), trained(2), trained(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.ndim > 1)
    assert not any(torch.equal(a, b) for a, b in zip(first, before, strict=True) if a.ndim > 1)
    state = networks["mv"].state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in trunk.items())


# ---- jobs


def note(path: Path, text: str) -> str:
    path.write_text(text)
    return text


def fail(message: str) -> str:
    raise DataError(message)


def die() -> str:
    os._exit(9)


@pytest.mark.slow
def test_jobs_run_and_are_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "new" / "progress.log"
    jobs = [partial(note, tmp_path / str(i), f"job {i}") for i in range(3)]
    run_jobs(jobs, processes=1, log=log)
    assert {(tmp_path / str(i)).read_text() for i in range(3)} == {"job 0", "job 1", "job 2"}
    lines = log.read_text().splitlines()
    assert [line.split()[2] for line in lines] == ["1/3", "2/3", "3/3"]
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.slow
def test_an_error_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clip"):
        run_jobs([partial(fail, "no clip")], processes=1, log=tmp_path / "progress.log")


@pytest.mark.slow
def test_a_process_that_dies_is_an_error_with_a_way_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"a job of the study failed: .*--jobs"):
        run_jobs([die], processes=1, log=tmp_path / "progress.log")


def test_seconds_add_up_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 3.0, 10.0, 14.4])
    monkeypatch.setattr("edgepkd.studies.units.time.perf_counter", lambda: next(clock))
    seconds: dict[str, float] = {}
    for _ in range(2):
        with timed(seconds, "qad"):
            pass
    assert seconds == {"qad": pytest.approx(6.4)}
    assert listed_seconds({**seconds, "ptq": 0.6}) == "qad 6 s, ptq 1 s"
