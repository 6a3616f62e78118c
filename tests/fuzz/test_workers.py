"""Whatever an input may do is found, and laid at the door of that input alone."""

from __future__ import annotations

import math
import mmap
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.fuzz import workers
from tests.fuzz.minimise import without_parts
from tests.fuzz.target import Wrong
from tests.fuzz.workers import Tally, work_through


def _tally(bad: Callable[[], Any], *, numbers: range = range(10, 20)) -> Tally:
    """What is counted where input 13 does something bad and the others are answered."""
    def work(number: int) -> bool:
        if number == 13:
            bad()
        return True

    tally = Tally()
    for part in work_through(iter([numbers]), work, until=math.inf):
        tally.add(part)
    return tally


def _out_of_bounds() -> None:
    raise IndexError("index is out of bounds")


def _foreign() -> None:
    raise KeyError("a")


def _wrong() -> None:
    raise Wrong("not finite")


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _spin() -> None:
    while True:
        pass


def _sleep() -> None:
    time.sleep(60)


def _fill() -> None:
    # Not from the heap: after a long suite it may have as much to spare, resident already.
    with mmap.mmap(-1, 256 << 20) as memory:
        memory.write(bytes(256 << 20))


def _too_much_space() -> None:
    raise MemoryError


def _in_a_destructor() -> None:
    class Lost:
        def __del__(self) -> None:
            raise ValueError("lost")

    Lost()


@pytest.mark.slow
@pytest.mark.parametrize(("bad", "kind", "said"), [
    (_out_of_bounds, "bounds", "out of bounds"), (_foreign, "foreign", "KeyError"),
    (_wrong, "wrong", "not finite"), (_crash, "crash", "SIGSEGV"), (_spin, "hang", "of CPU"),
    (_sleep, "hang", "no progress"), (_fill, "memory", "MiB at once"),
    (_too_much_space, "memory", "MemoryError"), (_in_a_destructor, "foreign", "lost"),
], ids=lambda value: getattr(value, "__name__", None))
def test_it_is_found(
    monkeypatch: pytest.MonkeyPatch, bad: Callable[[], None], kind: str, said: str
) -> None:
    monkeypatch.setattr(workers, "CPU_LIMIT_S", 0.5)
    monkeypatch.setattr(workers, "WALL_LIMIT_S", 4.0)
    monkeypatch.setattr(workers, "MEMORY_LIMIT", 32 << 20)
    tally = _tally(bad)
    assert [(finding.kind, finding.number) for finding in tally.findings] == [(kind, 13)]
    assert said in tally.findings[0].what
    assert tally.inputs == 10
    assert tally.answered >= 9


def test_a_crash_is_shown_with_its_line() -> None:
    finding = _tally(_crash).findings[0]
    assert "in _crash | SIGSEGV" in finding.place


def test_places_do_not_depend_on_values() -> None:
    places = {workers.Finding("wrong", 1, f'  File "a.py", line 3, in b\nWrong: {value} s').place
              for value in ("1.5", "-2e-07", "300")}
    assert places == {'File "a.py", line 3, in b | Wrong: # s'}


def test_time_that_is_over_ends_the_work() -> None:
    parts = list(work_through(iter([range(1000)]), lambda number: time.sleep(0.01) is None,
                              until=time.monotonic() + 0.2))
    assert 0 < sum(part.inputs for part in parts) < 100


def test_what_is_not_needed_is_left_out() -> None:
    content = bytes(range(200))
    smaller = without_parts(content, lambda data: b"\x07" in data and b"\x99" in data,
                            until=math.inf)
    assert smaller == b"\x07\x99"
    assert without_parts(content, lambda data: True, until=0.0) == content
