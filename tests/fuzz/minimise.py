"""Makes an input smaller that still goes wrong in the same place."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.target import use
from tests.fuzz.workers import Finding, work_through

_LONGEST_S = 300.0


def minimised(content: bytes, number: int, place: Path) -> bytes | None:
    """The smallest found, used as `number` says; None if nothing goes wrong with `content`."""
    first = _finding(content, number, place)
    if first is None:
        return None

    def is_same(smaller: bytes) -> bool:
        found = _finding(smaller, number, place)
        return found is not None and (found.kind, _line_of(found)) == (first.kind, _line_of(first))

    return without_parts(content, is_same, until=time.monotonic() + _LONGEST_S)


def without_parts(content: bytes, is_same: Callable[[bytes], bool], *, until: float) -> bytes:
    """`content` without all that can be left out, tried in ever smaller parts."""
    size = max(len(content) // 2, 1)
    while size:
        at = 0
        while at < len(content):
            if time.monotonic() > until:
                return content
            smaller = content[:at] + content[at + size :]
            if smaller and is_same(smaller):
                content = smaller
            else:
                at += size
        size //= 2
    return content


def _finding(content: bytes, number: int, place: Path) -> Finding | None:
    """What goes wrong with `content`, in a child of its own."""
    tallies = work_through(iter([range(number, number + 1)]),
                           lambda _: use(content, number, place), until=math.inf)
    return next((finding for tally in tallies for finding in tally.findings), None)


def _line_of(finding: Finding) -> str:
    """File and line, without the values that a message shows."""
    return finding.place.split(" | ")[0]
