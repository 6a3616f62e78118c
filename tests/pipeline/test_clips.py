"""`--data` and `--dataset` mean the same to every verb."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.errors import DataError
from edgepkd.pipeline.clips import (
    ClipSet,
    clips_in_splits,
    clips_of_run,
    clips_to_train_on,
    of_split,
    refuse_other_sides,
    refuse_trained_on,
    splits_of_run,
)
from edgepkd.training.recipe import TrainRecipe, load_train_recipe
from edgepkd.training.runs import FoldOf, Run


def recipe(**changes: str) -> TrainRecipe:
    return replace(load_train_recipe("small"), **changes)  # type: ignore[arg-type]


def index(path: Path, *rows: str, columns: str = "path,label,dataset") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:
        (path.parent / row.partition(",")[0]).touch()
    path.write_text("\n".join((columns, *rows)) + "\n")
    return path


def split_index(path: Path, *rows: str) -> Path:
    """An index of rows `path,label,group,split,sha256`."""
    return index(path, *rows, columns="path,label,group,split,sha256")


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
    (".", r"test_what_holds.* has no index\.csv.*edgepkd data prepare .* NEW-FOLDER"),
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


# ---- splits

OWN = ("a.avi,run,a,train,1", "b.avi,walk,a,train,2", "c.avi,run,c,val,3", "d.avi,walk,c,val,4",
       "e.avi,run,e,test,5", "f.avi,walk,e,test,6")


def names(clips: ClipSet, split: str) -> list[str]:
    return [s.path.stem for s in of_split(clips, split)]  # type: ignore[arg-type]


def test_splits_are_those_that_training_makes(tmp_path: Path) -> None:
    run = run_of(split_index(tmp_path / "index.csv", *OWN))
    clips = clips_in_splits(run, None, None)
    assert [names(clips, split) for split in ("train", "calibration", "test")] == [
        ["a", "b"], ["c", "d"], ["e", "f"]]
    drawn = split_index(tmp_path / "drawn" / "index.csv", *(
        f"{n}.avi,{label},{n},," for n in range(5) for label in ("run",)))
    assert {s.split for s in clips_in_splits(run, drawn, None).samples} == {
        "train", "calibration", "test"}


def test_an_index_of_test_clips_alone_is_taken_as_it_is(tmp_path: Path) -> None:
    run = run_of(split_index(tmp_path / "index.csv", *OWN))
    alone = split_index(tmp_path / "new" / "index.csv", "x.avi,run,x,test,7", "y.avi,run,y,val,8")
    clips = clips_in_splits(run, alone.parent, None)
    assert (names(clips, "test"), names(clips, "calibration")) == (["x"], ["y"])
    with pytest.raises(DataError, match=r"no clip in split 'train'; there are: calibration 1, "
                                        "test 1"):
        of_split(clips, "train")


def test_a_split_that_shares_a_group_with_training_is_refused(tmp_path: Path) -> None:
    run = run_of(split_index(tmp_path / "index.csv", *OWN[:-1], "f.avi,walk,a,test,6"))
    clips = clips_in_splits(run, None, None)
    assert names(clips, "train") == ["a", "b"]
    with pytest.raises(DataError, match="train and test share the group a"):
        of_split(clips, "test")


def test_clips_that_were_trained_on_are_known_by_their_content(tmp_path: Path) -> None:
    run = run_of(split_index(tmp_path / "index.csv", *OWN))
    other = split_index(tmp_path / "other" / "index.csv", "x.avi,run,x,test,2",
                        "y.avi,run,y,test,5", "z.avi,run,z,test,")
    shared, known, unhashed = clips_in_splits(run, other, None).samples
    refuse_trained_on([known, unhashed], run)
    with pytest.raises(DataError, match=r"1 of these clips were trained on .*x\.avi"):
        refuse_trained_on([unhashed, known, shared], run)
    run.index.unlink()
    refuse_trained_on([shared], run)  # nothing is known of what it was trained on


@pytest.mark.parametrize(("row", "refused"), [
    ("x.avi,walk,x,test,1", "first: .*x.avi"),   # trained on there, held out here
    ("x.avi,walk,x,train,6", "first: .*f.avi"),  # the other way round
    ("x.avi,walk,x,test,4", None), ("x.avi,walk,x,train,2", None), ("x.avi,walk,x,test,", None),
])
def test_a_clip_stays_on_its_side_in_every_index(
    tmp_path: Path, row: str, refused: str | None
) -> None:
    run = run_of(split_index(tmp_path / "index.csv", *OWN))
    rest = ("k.avi,run,k,train,11", "l.avi,walk,k,train,12", "m.avi,run,m,val,13",
            "n.avi,run,n,test,14")
    other = split_index(tmp_path / "other" / "index.csv", *rest, row)
    samples = clips_of_run(run, other, None).samples
    if refused is None:
        refuse_other_sides(samples, run)
        return
    with pytest.raises(DataError, match=f"1 clips are held out in one of two indices .*{refused}"):
        refuse_other_sides(samples, run)


# ---- folds


def fold_rows() -> list[str]:
    """Four training groups, one that calibrates, one that tests; two labels in each."""
    return [f"{group}-{label}.avi,{label},{group},{split},{group}{label}"
            for group, split in (*((f"t{i}", "train") for i in range(4)), ("c", "calibration"),
                                 ("e", "test")) for label in ("run", "walk")]


def test_a_fold_calibrates_on_what_it_holds_out_and_trains_on_the_rest(tmp_path: Path) -> None:
    own = split_index(tmp_path / "index.csv", *fold_rows())
    folds = [replace(run_of(own), fold=FoldOf(i, 2, 5)) for i in range(2)]
    cuts = [clips_in_splits(fold, None, None) for fold in folds]
    for fold, cut, other in zip(folds, cuts, cuts[::-1], strict=True):
        assert len(names(cut, "train")) == len(names(cut, "calibration")) == 4
        assert names(cut, "train") == names(other, "calibration")
        assert names(cut, "test") == ["e-run", "e-walk"]
        assert not any(s.group == "c" for s in cut.samples)
        splits = splits_of_run(fold, clips_of_run(fold, None, None).samples)
        assert [s.path.stem for s in splits.train] == names(cut, "train")
        assert [s.path.stem for s in splits.calibration] == names(cut, "calibration")
        refuse_trained_on(of_split(cut, "calibration"), fold)
        with pytest.raises(DataError, match="4 of these clips were trained on"):
            refuse_trained_on(of_split(cut, "train"), fold)


def test_a_run_that_is_no_fold_is_cut_as_ever(tmp_path: Path) -> None:
    own = split_index(tmp_path / "index.csv", *fold_rows())
    splits = splits_of_run(run_of(own), clips_of_run(run_of(own), None, None).samples)
    assert [len(part) for part in splits.parts().values()] == [8, 2, 2]


def test_other_data_than_a_folds_own_is_not_cut_by_the_fold(tmp_path: Path) -> None:
    own = split_index(tmp_path / "index.csv", *fold_rows())
    other = split_index(tmp_path / "other" / "index.csv", *fold_rows())
    fold = replace(run_of(own), fold=FoldOf(0, 2, 5))
    assert names(clips_in_splits(fold, other, None), "calibration") == ["c-run", "c-walk"]
