"""`--data` and `--dataset` mean the same to every verb."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.errors import DataError
from edgepkd.pipeline.clips import clips_of_run, clips_to_train_on
from edgepkd.training.recipe import TrainRecipe, load_train_recipe
from edgepkd.training.runs import Run


def recipe(**changes: str) -> TrainRecipe:
    return replace(load_train_recipe("small"), **changes)  # type: ignore[arg-type]


def index(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:
        (path.parent / row.partition(",")[0]).touch()
    path.write_text("\n".join(("path,label,dataset", *rows)) + "\n")
    return path


def run_of(own: Path, *, labels: tuple[str, ...] = ("run", "walk"), **changes: str) -> Run:
    return Run(own.parent / "runs", recipe(**changes), own, labels, 0)


def test_a_folder_and_its_index_are_the_same_to_all(tmp_path: Path) -> None:
    own = index(tmp_path / "own" / "index.csv", "a.avi,run,S", "b.avi,walk,S")
    other = index(tmp_path / "other" / "index.csv", "c.avi,run,T")
    run = run_of(own)
    for named, path in ((own.parent, own), (own, own), (other.parent, other), (other, other)):
        assert clips_to_train_on(named, recipe=recipe()).index == path
        assert clips_of_run(run, named, None).index == path
    assert clips_to_train_on(own.parent, recipe=recipe()) == clips_of_run(run, None, None)


def test_a_recipe_may_name_an_index_of_another_name(tmp_path: Path) -> None:
    nested = index(tmp_path / "sets" / "clips.tsv", "a.avi,run,S")
    named = recipe(index="sets/clips.tsv")
    assert clips_to_train_on(tmp_path, recipe=named).index == nested
    plain = index(tmp_path / "plain" / "index.csv", "b.avi,run,S")
    assert clips_of_run(run_of(nested, index="sets/clips.tsv"), plain.parent, None).index == plain


def test_the_dataset_of_the_run_counts_for_its_own_index_alone(tmp_path: Path) -> None:
    own = index(tmp_path / "own" / "index.csv", "a.avi,run,S", "b.avi,walk,T")
    other = index(tmp_path / "other" / "index.csv", "c.avi,run,T", "d.avi,walk,U")
    run = run_of(own, dataset="S")

    def names(data: Path | None, dataset: str | None = None) -> list[str]:
        return [s.path.name for s in clips_of_run(run, data, dataset).samples]

    assert names(None) == names(own.parent) == ["a.avi"]
    assert names(own.parent, "T") == ["b.avi"]
    assert names(other.parent) == ["c.avi", "d.avi"]
    assert names(other.parent, "U") == ["d.avi"]
    assert clips_of_run(run, other, None).dataset == ""
    assert clips_to_train_on(own, recipe=recipe(dataset="T")).samples[0].path.name == "b.avi"


@pytest.mark.parametrize(("named", "message"), [
    ("nowhere", r"index .*nowhere/index\.csv cannot be read"),
    ("nowhere.csv", r"index .*nowhere\.csv cannot be read"),
    (".", r"index .*/index\.csv cannot be read"),
])
def test_what_holds_no_index_is_an_error(tmp_path: Path, named: str, message: str) -> None:
    run = run_of(index(tmp_path / "own" / "index.csv", "a.avi,run,S"))
    with pytest.raises(DataError, match=message):
        clips_of_run(run, tmp_path / named, None)
    with pytest.raises(DataError, match=message):
        clips_to_train_on(tmp_path / named, recipe=recipe())


def test_a_label_the_networks_do_not_know_is_refused(tmp_path: Path) -> None:
    run = run_of(index(tmp_path / "own" / "index.csv", "a.avi,run,S"))
    other = index(tmp_path / "other" / "index.csv", "c.avi,jump,T")
    with pytest.raises(DataError, match="labelled jump, which the networks do not know; allowed: "
                                        "run, walk") as caught:
        clips_of_run(run, other, None)
    assert "--dataset" in str(caught.value)
