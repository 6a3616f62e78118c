"""What a report of a study that is not done is of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgepkd.studies.exits import command
from edgepkd.studies.study import load_study
from edgepkd.studies.units import Unit
from tests.studies.tiny_parts import tiny_unit


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
    left, units = command._done_part(study, by_set)
    assert left.trunk_seeds == (2,)
    assert units == [by_set[0][1:], by_set[1][1:]]
