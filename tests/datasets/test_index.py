"""Index files, splits by whole groups, and the leak check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.datasets.index import (
    Sample,
    check_no_leak,
    group_folds,
    labels_of,
    read_index,
    split_samples,
)
from edgepkd.errors import DataError


def sample(number: int, *, label: str = "a", group: str = "g", split: str = "train") -> Sample:
    return Sample(Path(f"{number}.avi"), label, group, split, sha256=f"hash{number}")


def write_index(folder: Path, rows: list[str], *, header: str = "path,label,group,split") -> Path:
    index = folder / "index.csv"
    index.write_text("\n".join([header, *rows]) + "\n")
    return index


def test_an_index_gives_samples_with_paths_beside_it(tmp_path: Path) -> None:
    (tmp_path / "x.avi").touch()
    index = write_index(tmp_path, ["x.avi,run,anna,train,S,ff", "x.avi,run,anna,train,T,ff"],
                        header="path,label,group,split,dataset,sha256")
    assert read_index(index, dataset="S") == (
        Sample(tmp_path / "x.avi", "run", "anna", "train", "ff"),
    )
    assert len(read_index(index)) == 2


def test_an_index_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    index = write_index(tmp_path, ["x.avi,run,train"], header="path,kind,split")
    with pytest.raises(DataError, match="no column label; needed: path, label; its head is"):
        read_index(index)
    with pytest.raises(DataError, match="no column label, dataset"):
        read_index(index, dataset="S")


def test_absent_videos_absent_index_and_unknown_dataset_are_named(tmp_path: Path) -> None:
    index = write_index(tmp_path, ["gone.avi,run,anna,train"])
    with pytest.raises(DataError, match=r"1 of 1 clips .* absent.*gone\.avi"):
        read_index(index)
    with pytest.raises(DataError, match="cannot be read"):
        read_index(tmp_path / "none.csv")
    empty = write_index(tmp_path, ["x.avi,run,anna,train,S"],
                        header="path,label,group,split,dataset")
    with pytest.raises(DataError, match="lists no clip for dataset 'T'"):
        read_index(empty, dataset="T")


@pytest.mark.parametrize("other", [
    sample(2, group="shared"), Sample(Path("1.avi"), "a", "h", "test", "other"),
    Sample(Path("2.avi"), "a", "h", "test", "hash1"),
])
def test_a_shared_group_file_or_content_is_a_leak(other: Sample) -> None:
    one = sample(1, group="shared")
    with pytest.raises(DataError, match="train and test share"):
        check_no_leak({"train": [one], "test": [other]})


def test_parts_without_hashes_do_not_count_as_equal_content() -> None:
    a, b = Sample(Path("1"), "a", "g", "train"), Sample(Path("2"), "a", "h", "test")
    check_no_leak({"train": [a], "test": [b]})
    with pytest.raises(DataError, match=r"share the content \(SHA-256\) same \(1 in all\)"):
        check_no_leak({"train": [replace(a, sha256="same")], "test": [replace(b, sha256="same")]})


def test_the_split_keeps_test_apart_and_refuses_a_leaking_group() -> None:
    train, test = split_samples([sample(1), sample(2, split="val"),
                                 sample(3, group="h", split="test")])
    assert [s.path.stem for s in train] == ["1", "2"]
    assert [s.path.stem for s in test] == ["3"]
    with pytest.raises(DataError, match="share the group g"):
        split_samples([sample(1), sample(2, split="test")])
    with pytest.raises(DataError, match="without a training clip: b"):
        split_samples([sample(1), sample(2, label="b", group="h", split="test")])


def test_folds_hold_out_every_sample_once_and_never_cut_a_group() -> None:
    samples = [sample(i, group=f"g{i % 7}", label="ab"[i % 2]) for i in range(40)]
    folds = group_folds(samples, num_folds=3, seed=5)
    held_out = [s for fold in folds for s in fold.held_out]
    assert sorted(held_out, key=str) == sorted(samples, key=str)
    for fold in folds:
        assert not {s.group for s in fold.fit} & {s.group for s in fold.held_out}
        assert len(fold.fit) + len(fold.held_out) == 40
        assert 9 <= len(fold.held_out) <= 18
    assert folds == group_folds(samples, num_folds=3, seed=5)
    assert folds != group_folds(samples, num_folds=3, seed=6)


def test_folds_need_groups_and_every_label_on_the_fitted_side() -> None:
    with pytest.raises(DataError, match="1 groups for 2 folds"):
        group_folds([sample(1), sample(2)], num_folds=2, seed=0)
    with pytest.raises(DataError, match=r"no clip of [ab] is left"):
        group_folds([sample(1, group="g"), sample(2, group="h", label="b")], num_folds=2, seed=0)


def test_the_shipped_sets_do_not_leak(shared_data: Path) -> None:
    for index, dataset, num_test, num_labels in (
        ("actions/index.csv", "Weizmann", 30, 10), ("actions/index.csv", "UT-Interaction", 36, 6),
        ("fights/index.csv", "surv-fight", 60, 2),
    ):
        train, test = split_samples(read_index(shared_data / index, dataset=dataset))
        assert (len(test), len(labels_of(train))) == (num_test, num_labels)
