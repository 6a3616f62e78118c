"""What the study of exits measures flatness on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgepkd.studies.exits import command
from edgepkd.studies.units import Unit
from tests.studies.tiny_parts import tiny_unit


def test_flatness_is_of_the_first_fold_of_each_trunk_seed(tmp_path: Path) -> None:
    plain = tiny_unit(tmp_path)

    def unit(name: str) -> Unit:
        return replace(plain, part=replace(plain.part, name=name))

    units = [unit(f"trunk{seed}-fold{fold}") for seed in (1, 2) for fold in (0, 1, 10)]
    assert command._first_folds(units) == [units[0], units[3]]
