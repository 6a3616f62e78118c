"""The verb `data verify`: whether a set on disk is what its index says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgepkd.datasets.pools import Crash, LocalPool, Pool
from edgepkd.datasets.prepared import INDEX
from edgepkd.datasets.table import read_table
from edgepkd.datasets.verify import CheckJob, check_clip, index_problems
from edgepkd.machine.hardware import num_cores
from edgepkd.video.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class VerifyConfig:
    """Settings of `verify`."""

    folder: Path
    """A data set with an index.csv, of `prepare`, of `synth`, or by hand."""
    decode: bool = False
    """Also decode every frame, and compare counts and form."""
    jobs: int = field(default_factory=num_cores)
    limits: Limits = DEFAULT_LIMITS
    """How much a clip may ask for when it is decoded."""


@dataclass(frozen=True)
class VerifyStarted:
    """The index is read."""

    num_clips: int


@dataclass(frozen=True)
class ClipVerified:
    """One clip was looked at."""

    path: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class VerifyReport:
    """What is wrong with a data set."""

    folder: Path
    num_clips: int
    counts: Mapping[str, int]
    """Split -> clips."""
    problems: tuple[tuple[str, str], ...]
    """(path, what is wrong with it); a path may come twice."""
    decoded: bool


def verify(
    config: VerifyConfig, *, pool: Pool | None = None
) -> Generator[VerifyStarted | ClipVerified | VerifyReport, None, None]:
    """Compare a data set with its index; the last event is a VerifyReport.

    Raises:
        DataError: there is no index, or it lacks columns.
    """
    rows = read_table(config.folder / INDEX).rows
    yield VerifyStarted(len(rows))
    problems = [(INDEX, text) for text in index_problems(config.folder, rows)]
    jobs = [CheckJob(config.folder, row["path"], row.get("sha256") or "", _frames(row),
                     row.get("form") or "", config.decode, config.limits) for row in rows]
    for job, found in (pool or LocalPool(config.jobs)).run(check_clip, jobs):
        texts = (found.reason,) if isinstance(found, Crash) else found
        problems += [(job.path, text) for text in texts]
        yield ClipVerified(job.path, texts)
    yield VerifyReport(config.folder, len(rows), dict(Counter(row["split"] for row in rows)),
                       tuple(sorted(problems)), config.decode)


def _frames(row: Mapping[str, str]) -> int | None:
    text = row.get("frames") or ""
    return int(text) if text.isdecimal() else None
