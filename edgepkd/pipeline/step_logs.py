"""What the steps of a run share: logs, and results that are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from edgepkd.errors import UsageError
from edgepkd.models.checkpoint import read_network_file
from edgepkd.training.execution import rank
from edgepkd.training.loop import Log, Silent
from edgepkd.training.runlog import Logs, ProgressLog, RunLog

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
