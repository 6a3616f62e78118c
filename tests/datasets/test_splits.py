"""Three parts by whole groups: by name, by shares, and what is refused."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from edgepkd.datasets.index import Sample
from edgepkd.datasets.splits import (
    MIN_CLIPS,
    Shares,
    absent_classes,
    assign_splits,
    draw_groups,
    draw_splits,
    split_three,
    splits_in_words,
)
from edgepkd.errors import ConfigError, DataError


def make(groups: int, *, labels: str = "ab", split: str = "", each: int = 1) -> list[Sample]:
    """`each` clips of every label in each of `groups` groups."""
    return [Sample(Path(f"{split}{label}{group}-{n}.avi"), label, f"{split}g{group}", split)
            for group in range(groups) for label in labels for n in range(each)]


def test_names_are_kept_and_val_is_calibration() -> None:
    splits = split_three([*make(3, split="train"), *make(2, split="val"), *make(1, split="test")])
    assert [len(part) for part in splits.parts().values()] == [6, 4, 2]
    assert {s.split for s in splits.calibration} == {"calibration"}


def test_calibration_comes_out_of_train_and_test_stays() -> None:
    samples = [*make(20, split="train", each=5), *make(3, split="test")]
    splits = split_three(samples, shares=Shares(calibration=0.3))
    assert {s.group for s in splits.test} == {f"testg{n}" for n in range(3)}
    assert [len(part) for part in splits.parts().values()] == [140, 60, 6]


def test_shares_are_met_by_whole_groups_and_the_seed_decides() -> None:
    samples = make(20, labels="abc", each=5)
    splits = split_three(samples, shares=Shares(test=0.2, calibration=0.25))
    assert [len(part) for part in splits.parts().values()] == [180, 60, 60]
    for part in splits.parts().values():
        assert len(set(Counter(s.label for s in part).values())) == 1
    groups = [{s.group for s in part} for part in splits.parts().values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20
    assert splits == split_three(samples, shares=Shares(test=0.2, calibration=0.25))
    assert splits != split_three(samples, shares=Shares(test=0.2, calibration=0.25, seed=1))


def test_each_label_gets_its_share_where_a_group_is_one_clip() -> None:
    samples = [Sample(Path(f"{i}"), "rare" if i < 10 else "common", f"{i}", "") for i in range(100)]
    drawn = draw_groups(samples, share=0.2, seed=3)
    assert Counter(s.label for s in samples if s.group in drawn) == {"rare": 2, "common": 18}


def test_a_small_share_still_draws_one_group_and_a_large_one_leaves_one() -> None:
    assert len(draw_groups(make(3), share=0.01, seed=0)) == 1
    assert len(draw_groups(make(3), share=0.99, seed=0)) == 2


def test_the_order_of_samples_stays() -> None:
    samples = make(9)
    assert [s.path for s in assign_splits(samples)] == [s.path for s in samples]


@pytest.mark.parametrize(("samples", "message"), [
    ([*make(3, split="train"), *make(2, split="dev")], "split 'dev' is unknown"),
    ([*make(3, split="train"), *make(2)], "4 of 10 clips have no split"),
    (make(1), "1 group to draw test from"),
    (make(9, labels="a"), r"have 1 label \(a\)"),
    ([*make(3, split="train"), *make(2, split="val")], "split test is empty"),
    ([*make(3, split="train", labels="ab"), *make(2, split="test", labels="abz")],
     "test labels without a training clip: z"),
    ([*make(3, split="train"), *make(2, split="val"),
      Sample(Path("x"), "a", "traing1", "test")], "train and test share the group traing1"),
])
def test_what_cannot_be_trained_honestly_is_refused(samples: list[Sample], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_three(samples)


def test_names_of_splits_count_in_any_case() -> None:
    samples = [*make(3, split="Training"), *make(2, split="VAL"), *make(1, split="Test")]
    assert [len(part) for part in split_three(samples).parts().values()] == [6, 4, 2]
    with pytest.raises(DataError, match="split 'Dev' is unknown"):
        split_three([*make(3, split="train"), *make(2, split="Dev")])


def uneven() -> list[Sample]:
    """Twelve groups of two labels each, six labels: few choices hold every label."""
    return [Sample(Path(f"{group}-{n}.avi"), "abcdef"[(group + n % 2) % 6], f"g{group:02d}", "")
            for group in range(12) for n in range(20)]


@pytest.mark.parametrize("seed", range(8))
def test_no_class_is_missing_where_groups_allow(seed: int) -> None:
    samples = uneven()
    for share, most in ((0.2, 0.26), (0.3, 0.34)):
        drawn = draw_groups(samples, share=share, seed=seed)
        assert {s.label for s in samples if s.group in drawn} == set("abcdef")
        assert len(drawn) / 12 < most


def test_groups_are_swapped_not_only_added() -> None:
    # Greedy along most orders takes g0, with half of all, and then misses the label c.
    sizes = {"g0": "a" * 8 + "b" * 8, "g1": "ab" * 2 + "c", "g2": "ab" * 2 + "c", "g3": "a" * 6,
             "g4": "b" * 6}
    samples = [Sample(Path(f"{g}-{n}"), label, g, "") for g, text in sizes.items()
               for n, label in enumerate(text)]
    for seed in range(8):
        assert draw_groups(samples, share=0.2, seed=seed) in ({"g1"}, {"g2"})


def test_no_class_loses_all_its_clips() -> None:
    samples = [*make(6, labels="ab"), Sample(Path("c"), "c", "g0", "")]
    for seed in range(8):
        assert "g0" not in draw_groups(samples, share=0.3, seed=seed, min_groups=2)


def test_a_test_part_has_two_groups_from_six_on() -> None:
    for groups, drawn in ((5, 1), (6, 2)):
        assert len({s.group for s in split_three(make(groups)).test}) == drawn


@pytest.mark.parametrize(("samples", "why"), [
    (make(10, split="train", each=9),
     f"there are 180 training clips, and of fewer than {MIN_CLIPS}"),
    (make(4, split="train", each=30), "the training clips are of 4 groups, fewer than 5"),
    (make(6, split="train", each=30),
     "4 groups would be 240 of 360 training clips, more than 30%"),
    ([*make(20, split="train", each=5), Sample(Path("z"), "z", "z", "train")],
     r"every class to both train and calibration \(z\)"),
])
def test_no_calibration_part_is_drawn_that_would_say_little(
    samples: list[Sample], why: str
) -> None:
    drawn = draw_splits([*samples, *make(2, split="test")])
    assert {s.split for s in drawn.samples} == {"train", "test"}
    (note,) = drawn.notes
    assert note.startswith("no calibration part is drawn: ")
    assert re.search(why, note)
    assert "`edgepkd train folds RUN`" in note
    assert split_three([*samples, *make(2, split="test")]).calibration == ()


def test_a_set_to_try_things_on_gets_its_calibration_part_all_the_same() -> None:
    shares = Shares(test=0.25, calibration=0.34, always=True)
    assert [len(part) for part in split_three(make(4), shares=shares).parts().values()] == [4, 2, 2]
    assert split_three(make(2), shares=shares).calibration == ()


def test_what_was_drawn_is_said_and_names_that_were_kept_are_not() -> None:
    assert draw_splits(make(25, each=5)).notes == (
        "test is drawn by whole groups (seed 0): 50 clips of 2 classes in 5 groups",
        "calibration is drawn by whole groups of train (seed 0): 40 clips of 2 classes in 4 groups")
    named = [*make(3, split="train"), *make(2, split="val"), *make(1, split="test")]
    assert draw_splits(named).notes == ()
    assert splits_in_words(assign_splits(named)) == (
        "train 6 clips of 2 classes in 3 groups; calibration 4 clips of 2 classes in 2 groups; "
        "test 2 clips of 2 classes in 1 group")
    assert splits_in_words(make(3, split="train")).endswith("calibration none; test none")


def test_classes_that_a_part_has_no_clip_of_are_named() -> None:
    train = make(3, labels="abc", split="train")
    lines = absent_classes([*train, *make(1, labels="ab", split="calibration"),
                            *make(1, labels="b", split="test")])
    assert [line.partition(":")[0] for line in lines] == [
        "no calibration clip of c", "no test clip of a, c"]
    assert absent_classes([*train, *make(1, labels="abc", split="test")]) == ()


def test_shares_are_checked() -> None:
    for values in ({"test": 0.0}, {"calibration": 1.0}, {"seed": -1}):
        with pytest.raises(ConfigError, match=next(iter(values))):
            Shares(**values)  # type: ignore[arg-type]
