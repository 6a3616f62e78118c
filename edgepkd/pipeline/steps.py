"""What the steps of a run share: its clips, decoded; logs; results that are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import distributed as dist

from edgepkd.datasets.index import Sample
from edgepkd.datasets.splits import check_splits, split_three
from edgepkd.errors import DataError, UsageError
from edgepkd.models.checkpoint import read_network_file
from edgepkd.training.cache import CacheSpec, cached_clip, decode_all
from edgepkd.training.execution import rank, world_size
from edgepkd.training.jobs import cache_spec
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import Log, Silent
from edgepkd.training.runlog import Logs, ProgressLog, RunLog
from edgepkd.training.runs import Run, write_skipped

QUANTIZE_FILE = "quantize.json"
"""In the folder of a quantised run."""


def refuse_quantized(folder: Path) -> None:
    """Refuse a folder whose networks are quantised where float ones are needed.

    Raises:
        UsageError: it is one that `edgepkd quantize` wrote.
    """
    if os.path.exists(folder / QUANTIZE_FILE):
        raise UsageError(f"{folder} holds quantised networks, and float ones are needed.",
                         hint=f"Name the run that it was made from: {folder.parent}.")


# ---- clips


@dataclass(frozen=True)
class Clips:
    """Samples of a run that can be read, in splits."""

    train: tuple[Sample, ...]
    calibration: tuple[Sample, ...]
    run: Run
    cache: Path

    @property
    def spec(self) -> CacheSpec:
        """What is kept of a clip."""
        return cache_spec(self.run.recipe)

    def load(self, samples: Sequence[Sample]) -> LabelledClips:
        """Arrays and label indices of `samples`."""
        return LabelledClips(
            [cached_clip(s, spec=self.spec, folder=self.cache) for s in samples],
            [self.run.labels.index(s.label) for s in samples])

    def keys(self, samples: Sequence[Sample]) -> list[str]:
        """Names of `samples` by content and decoding."""
        return [self.spec.key(s.sha256 or str(s.path), s.form) for s in samples]


def decoded_clips(
    run: Run, samples: tuple[Sample, ...], *, folder: Path, jobs: int, console: Console | None
) -> Clips:
    """Clips that can be read, in splits, kept in `folder`; RUN/skipped.csv lists the others.

    Raises:
        DataError: none can be read, or a split is empty or leaks.
    """
    named = split_three(samples)
    used = (*named.train, *named.calibration)
    clips = Clips(named.train, named.calibration, run, folder)
    if rank() == 0:
        with _counter(console, "decode", len(used)) as count:
            _, reasons = decode_all(used, spec=clips.spec, folder=folder, jobs=jobs, on_clip=count)
        write_skipped(run, reasons)
    if world_size() > 1:
        dist.barrier()
        _, reasons = decode_all(used, spec=clips.spec, folder=folder, jobs=1)
    if len(reasons) == len(used):
        raise DataError(f"none of {len(used)} clips can be read; the first: "
                        f"{next(iter(reasons.values()))}")
    if reasons and console and rank() == 0:
        console.print(f"{len(reasons)} of {len(used)} clips cannot be read and are left "
                      f"out; {run.folder / 'skipped.csv'} says why.")
    kept = replace(clips, train=tuple(s for s in clips.train if s not in reasons),
                   calibration=tuple(s for s in clips.calibration if s not in reasons))
    check_splits((*kept.train, *kept.calibration, *named.test))
    return kept


@contextmanager
def _counter(
    console: Console | None, title: str, total: int
) -> Iterator[Callable[[int], None] | None]:
    if console is None:
        yield None
        return
    with ProgressLog(console, title=title, epochs=total, every_epochs=100) as log:
        yield lambda done: log.row(epoch=done - 1)


# ---- logs and results


class _Numbers(Silent):
    """Keeps the last row, also that of a run that was killed after its last epoch."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def event(self, kind: str, **values: Any) -> None:
        if kind == "resume":
            self.values = {"epoch": values["epochs_done"] - 1, **values["values"]}

    def row(self, *, epoch: int, **values: float | int | str) -> None:
        self.values = {"epoch": epoch, **values}


class StepLog(Logs):
    """All logs of a step, and its last numbers."""

    def __init__(self, *logs: Log) -> None:
        self.numbers = _Numbers()
        super().__init__(*logs, self.numbers)


@contextmanager
def step_logs(
    folder: Path, *, title: str, epochs: int, resume: bool, tensorboard: bool,
    console: Console | None,
) -> Iterator[StepLog]:
    """Logs of one step in `folder` (rank 0) and on `console`."""
    with ExitStack() as stack:
        logs: list[Log] = []
        if rank() == 0:
            logs.append(stack.enter_context(
                RunLog(folder, resume=resume, tensorboard=tensorboard)))
            if console:
                logs.append(stack.enter_context(ProgressLog(console, title=title, epochs=epochs)))
        yield StepLog(*logs)


def kept_extra(path: Path, key: str, *, resume: bool) -> dict[str, Any]:
    """`extra` of a network that an earlier run left at `path` and that is to be kept.

    Raises:
        UsageError: it would be overwritten unasked, or was made with other settings than those
            that `key` is the hash of. ModelError: it is damaged.
    """
    json_path = path.with_name(path.name + ".json")
    if not resume:
        raise UsageError(f"{json_path} exists.",
                         hint="Give --resume to keep it, --force to replace it, or another folder.")
    extra: dict[str, Any] = read_network_file(path)[0].get("extra", {})
    if extra.get("key") != key:
        raise UsageError(f"{json_path} was made with other settings, weights or clips.",
                         hint="Give --force to replace it, or another folder.")
    return extra
