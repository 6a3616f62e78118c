"""Three parts by whole groups: by name, by shares, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from edgepkd.datasets.index import Sample
from edgepkd.datasets.splits import Shares, assign_splits, draw_groups, split_three
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
    samples = [*make(10, split="train"), *make(3, split="test")]
    splits = split_three(samples, shares=Shares(calibration=0.3))
    assert {s.group for s in splits.test} == {f"testg{n}" for n in range(3)}
    assert [len(part) for part in splits.parts().values()] == [14, 6, 6]


def test_shares_are_met_by_whole_groups_and_the_seed_decides() -> None:
    samples = make(20, labels="abc", each=2)
    splits = split_three(samples, shares=Shares(test=0.2, calibration=0.25))
    assert [len(part) for part in splits.parts().values()] == [72, 24, 24]
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
    (make(2), "1 group to draw calibration from"),
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


def test_shares_are_checked() -> None:
    for values in ({"test": 0.0}, {"calibration": 1.0}, {"seed": -1}):
        with pytest.raises(ConfigError, match=next(iter(values))):
            Shares(**values)  # type: ignore[arg-type]
