"""Stages in processes: what they show, and how they stop."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import pytest
from rich.console import Console

from edgepkd.errors import DataError, TrainingError
from edgepkd.studies.demo.stages import _run_stage


def say(text: str) -> str:
    return text


def fail() -> str:
    raise DataError("no clip")


def die() -> str:
    os._exit(9)


@pytest.fixture
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.mark.slow
def test_a_line_for_each_job_that_has_something_to_say(pool: ProcessPoolExecutor) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=100)
    _run_stage(pool, "exits", [partial(say, t) for t in ("fold0: [done]", "", "fold1")], console)
    lines = shown.getvalue().splitlines()
    assert sorted(line.split(" s  ")[1] for line in lines if " s  " in line) == [
        "fold0: [done]", "fold1"]
    assert any(line.startswith("exits") and "3/3" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(("job", "kind", "words"), [
    (fail, DataError, "no clip"),
    (die, TrainingError, r"a process died in the stage 'INT8'.*fewer --jobs"),
])
def test_the_first_error_stops_the_stage(
    pool: ProcessPoolExecutor, job: object, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        _run_stage(pool, "INT8", [job, partial(say, "later")],  # type: ignore[list-item]
                   Console(file=io.StringIO()))
