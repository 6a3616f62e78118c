"""Jobs in processes: all results, stage after stage; the first error is the caller's."""

from __future__ import annotations

import os

import pytest

from edgepkd.errors import DataError, TrainingError
from edgepkd.pipeline.side_by_side import side_by_side


def square(number: int) -> tuple[int, int]:
    return number**2, os.getpid()


def fail(number: int) -> tuple[int, int]:
    raise DataError(f"job {number} failed.")


def die(number: int) -> tuple[int, int]:
    os._exit(number)


def test_one_process_runs_them_here_in_their_order() -> None:
    done = list(side_by_side([[(square, 3), (square, 1)], [(square, 2)]], processes=1))
    assert done == [(9, os.getpid()), (1, os.getpid()), (4, os.getpid())]


@pytest.mark.slow
def test_several_run_elsewhere_and_a_stage_ends_before_the_next_begins() -> None:
    done = list(side_by_side([[(square, 3), (square, 1)], [(square, 2)]], processes=2))
    assert {number for number, _ in done[:2]} == {9, 1}
    assert done[2][0] == 4
    assert os.getpid() not in {process for _, process in done}


@pytest.mark.slow
def test_an_error_is_that_of_the_job() -> None:
    with pytest.raises(DataError, match="job 7 failed"):
        list(side_by_side([[(fail, 7)], [(square, 1)]], processes=2))


@pytest.mark.slow
def test_a_process_that_dies_is_said() -> None:
    with pytest.raises(TrainingError, match="a process died"):
        list(side_by_side([[(die, 3)]], processes=2))
