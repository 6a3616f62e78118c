"""Small data sets that the tests make, and a pool that works in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from edgepkd.datasets.pools import Crash, J, R
from edgepkd.pipeline.verify import VerifyConfig, VerifyReport, verify
from tests.clips import encode_clip, moving_scene


class FakePool:
    """Runs jobs at once, one after the other, the last one first."""

    def __init__(self, *, until: int | None = None, crash_on: str = "") -> None:
        """`until`: stop the run after so many jobs; `crash_on`: part of a path that crashes."""
        self._until, self._crash_on = until, crash_on
        self.jobs: list[Any] = []

    def run(self, function: Callable[[J], R], jobs: Iterable[J]) -> Iterator[tuple[J, R | Crash]]:
        for number, job in enumerate(reversed(list(jobs))):
            if number == self._until:
                raise KeyboardInterrupt
            self.jobs.append(job)
            crashes = self._crash_on and self._crash_on in str(job)
            yield job, Crash() if crashes else function(job)


def make_folder_set(
    folder: Path, *, labels: tuple[str, ...] = ("run", "walk"), groups: int = 4
) -> Path:
    """CLASS/gN.avi of tiny clips, no two alike."""
    for row, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for group in range(groups):
            encode_clip(folder / label / f"g{group}.avi",
                        moving_scene(6, seed=100 * row + group))
    return folder


def problems(folder: Path, **settings: Any) -> list[tuple[str, str]]:
    """What `data verify` finds wrong with a set."""
    *_, last = verify(VerifyConfig(folder, **settings), pool=FakePool())
    assert isinstance(last, VerifyReport)
    return list(last.problems)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}
