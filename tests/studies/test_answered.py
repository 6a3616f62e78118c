"""Held-out answers: what a fold leaves, and all of them together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import MODALITIES
from edgepkd.errors import DataError
from edgepkd.studies.answered import Answered, holds_answers, read_answers, write_answers
from edgepkd.studies.study import SetPlan
from tests.studies.tiny_parts import samples, tiny_part, tiny_recipe

FORMS = ("plain", "other")
PLAN = SetPlan(tiny_recipe(), 0.5)


def write(path: Path, *, fold: int, seed: int = 0, **seconds: float) -> Path:
    """Answers of a fold to two clips; every logit says form, seed and fold."""
    part = replace(tiny_part(path.parent), answer=samples(10 * fold, 2))
    write_answers(path, part, key=f"key {fold}", truth=np.array([fold, 1]), seconds=seconds,
                  logits={(form, m): np.full((2, 4, 2), 100.0 * i + 10 * seed + fold)
                          for i, form in enumerate(FORMS) for m in MODALITIES})
    return path


def read(files: dict[str, list[Path]]) -> Answered:
    return read_answers(PLAN, files, forms=FORMS)


def test_folds_follow_each_other_and_seeds_lie_side_by_side(tmp_path: Path) -> None:
    answered = read({f"1/{seed}": [write(tmp_path / f"{seed}-{fold}.npz", fold=fold, seed=seed)
                                   for fold in (0, 1)] for seed in (3, 4)})
    assert answered.seeds == ("1/3", "1/4")
    assert answered.label_names == ("a", "b")
    assert answered.truth.tolist() == [0, 1, 1, 1]
    assert answered.folds.tolist() == [0, 0, 1, 1]
    assert answered.groups == ("g0", "g1", "g10", "g11")
    values = answered.logits["other", "residual"]
    assert values.shape == (2, 4, 4, 2)
    assert values[:, :, 3, 1].tolist() == [[130, 130, 131, 131], [140, 140, 141, 141]]
    assert answered.logits["plain", "mv"][0, 3, 0, 0] == 31


def test_seconds_of_all_exit_seeds_are_one_step(tmp_path: Path) -> None:
    files = [write(tmp_path / "0.npz", fold=0, trunk_mv=1.26, exits_4711=2.0),
             write(tmp_path / "1.npz", fold=1, trunk_mv=3.0, exits_1=4.0)]
    assert read({"1/3": files}).seconds == {"trunk_mv": (1.3, 3.0), "exits": (2.0, 4.0)}


def test_answers_are_known_by_their_key(tmp_path: Path) -> None:
    path = tmp_path / "answers.npz"
    assert not holds_answers(path, "key 0")
    write(path, fold=0)
    assert holds_answers(path, "key 0")
    assert not holds_answers(path, "key 1")


@pytest.mark.parametrize("damage", [
    lambda content: content[:200], lambda content: b"", lambda content: b"no archive" * 40,
    lambda content: content.replace(b"facts.npy", b"faxts.npy"),
])
def test_damaged_answers_are_made_again_and_never_read(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    path = write(tmp_path / "answers.npz", fold=0)
    path.write_bytes(damage(path.read_bytes()))
    assert not holds_answers(path, "key 0")
    with pytest.raises(DataError, match=r"the answers .*answers\.npz cannot be read"):
        read({"1/3": [path]})


def test_right_answers_are_shares_of_seeds() -> None:
    logits = np.zeros((2, 3, 4, 2))
    logits[0, :, :, 1] = 1  # the first seed answers 1, the second 0
    logits[1, :, :, 0] = 1
    answered = Answered(PLAN, ("a", "b"), ("1/1", "1/2"), np.array([0, 1, 1]), ("g", "h", "i"),
                        np.array([0, 0, 1]), {("plain", "mv"): logits}, {})
    assert answered.right("plain", "mv").tolist() == [[0.5] * 4] * 3
    logits[1, 1:, 2, 1] = 2
    assert answered.right("plain", "mv")[:, 2].tolist() == [0.5, 1.0, 1.0]
    found = answered.interval(answered.right("plain", "mv")[:, 2])
    assert found.value == pytest.approx(2.5 / 3)
    assert (found.num_clips, found.num_groups) == (3, 3)
    held_out = [(seed, mine.tolist()) for seed, mine in answered.held_out()]
    assert held_out == [(seed, mine) for seed in (0, 1)
                        for mine in ([True, True, False], [False, False, True])]
    assert (answered.num_folds, answered.num_groups, answered.dataset) == (
        2, 3, PLAN.recipe.dataset)
