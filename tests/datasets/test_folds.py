"""Folds spread labels as well as whole groups allow, and never leave one without training clips."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from edgepkd.datasets.folds import spread_folds
from edgepkd.datasets.index import Sample
from edgepkd.errors import ConfigError, DataError


def clips(*counts: tuple[str, str, int]) -> list[Sample]:
    """So many clips of each (group, label)."""
    return [Sample(Path(f"{group}-{label}-{i}.avi"), label, group, "train")
            for group, label, number in counts for i in range(number)]


def test_every_clip_is_held_out_once_and_no_group_is_cut() -> None:
    samples = clips(*((f"g{i}", "abc"[i % 3], 2 + i % 2) for i in range(12)))
    folds = spread_folds(samples, num_folds=3, seed=4)
    held_out = [s for fold in folds for s in fold.held_out]
    assert sorted(held_out, key=str) == sorted(samples, key=str)
    for fold in folds:
        assert not {s.group for s in fold.fit} & {s.group for s in fold.held_out}
        assert {*fold.fit, *fold.held_out} == set(samples)
    assert folds == spread_folds(samples, num_folds=3, seed=4)
    assert folds != spread_folds(samples, num_folds=3, seed=5)


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_spread_where_each_group_has_one(seed: int) -> None:
    """As with clips that are groups of their own, which chance would heap up."""
    samples = clips(*((f"{label}{i}", label, 1) for label in "abcdef" for i in range(6)))
    for fold in spread_folds(samples, num_folds=3, seed=seed):
        assert Counter(s.label for s in fold.held_out) == dict.fromkeys("abcdef", 2)


def test_a_label_of_one_group_is_trained_on_everywhere() -> None:
    samples = clips(*((f"g{i}", "ab"[i % 2], 3) for i in range(6)), ("lone", "c", 2),
                    ("lone", "a", 1))
    folds = spread_folds(samples, num_folds=3, seed=0)
    assert {s.group for fold in folds for s in fold.held_out} == {f"g{i}" for i in range(6)}
    assert all({s.label for s in fold.fit} == {"a", "b", "c"} for fold in folds)


def test_a_label_of_two_groups_is_never_held_out_whole() -> None:
    for seed in range(20):
        folds = spread_folds(clips(("x", "a", 1), ("y", "a", 9), ("x", "b", 5), ("y", "b", 1),
                                   ("z", "b", 7), ("w", "b", 2)), num_folds=2, seed=seed)
        assert all("a" in {s.label for s in fold.fit} for fold in folds)


def test_too_few_groups_are_refused_with_what_helps() -> None:
    with pytest.raises(DataError, match=r"1 groups can be held out, for 2 folds \(b: one group"):
        spread_folds(clips(("x", "a", 1), ("y", "a", 1), ("y", "b", 1)), num_folds=2, seed=0)
    with pytest.raises(DataError, match="2 groups can be held out, for 3 folds"):
        spread_folds(clips(("x", "a", 1), ("y", "a", 1)), num_folds=3, seed=0)
    with pytest.raises(ConfigError, match="num_folds is 1; allowed: 2 or more"):
        spread_folds([], num_folds=1, seed=0)
