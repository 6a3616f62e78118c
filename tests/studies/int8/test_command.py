"""What a report of a study that is not done is of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgepkd.studies.int8 import command
from edgepkd.studies.study import load_study
from tests.studies.tiny_parts import tiny_unit


def test_a_report_is_of_the_sets_that_are_done(tmp_path: Path) -> None:
    study = load_study("defaults")
    by_set = [[tiny_unit(tmp_path / str(number))] for number in range(3)]
    done = by_set[1][0].part.path("int8-answers.npz")
    done.parent.mkdir(parents=True)
    done.touch()
    left, units = command._done_sets(study, by_set)
    assert left == replace(study, sets=study.sets[1:2])
    assert units == by_set[1:2]
