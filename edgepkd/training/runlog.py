"""What a training run leaves behind in its folder, and what it shows while it lasts.

log.jsonl     one JSON object a line: what happened, when
results.csv   one row an epoch
loss.png, accuracy.png, learning_rate.png   drawn from results.csv at the end (extra `report`)
tensorboard/  the same numbers as event files, on demand (extra `tensorboard`)

All logs here have the two methods of `loop.Log`. A folder holds one network's training: epochs
count up from 0 in it.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from edgepkd._optional import require
from edgepkd.bars import Steps
from edgepkd.errors import MissingExtraError, StorageError
from edgepkd.files import append_line, write_atomically
from edgepkd.plots import Points, curves

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from edgepkd.training.loop import Log

SCHEMA_VERSION = 1
PLOTTED = ("loss", "accuracy", "learning_rate")
"""Columns whose names begin with one of these go into the plot of that name."""

Value = float | int | str


class RunLog:
    """Writes a run's folder; a context manager that draws the plots when it is left."""

    def __init__(self, folder: Path, *, resume: bool = False, tensorboard: bool = False) -> None:
        """Open `folder`, made where it is missing.

        log.jsonl is added to in any case. results.csv starts anew; with `resume` its rows are
        kept, up to the epoch that is trained first.

        Raises:
            MissingExtraError: `tensorboard` is asked for and not installed.
            StorageError: the folder cannot be written to.
        """
        if tensorboard:
            require("tensorboard", purpose="Writing TensorBoard event files")
        self.folder = folder
        self._tensorboard = tensorboard
        self._writer: SummaryWriter | None = None
        self._rows = _read_rows(folder / "results.csv") if resume else []
        self._written = False  # results.csv holds these rows and nothing else
        if not resume:
            _remove(folder / "results.csv")

    def event(self, kind: str, **values: Any) -> None:
        """Add a line to log.jsonl, at once.

        Raises:
            StorageError: it cannot be written.
        """
        head = {"schema_version": SCHEMA_VERSION, "time": _now(), "kind": kind}
        line = json.dumps({**head, **_plain(values), **head}, default=str)
        append_line(self.folder / "log.jsonl", line)

    def row(self, *, epoch: int, **values: Value) -> None:
        """Add an epoch to results.csv; rows of this and later epochs, left by a kill, go.

        Raises:
            StorageError: it cannot be written.
        """
        kept = [row for row in self._rows if int(row["epoch"]) < epoch]
        new: dict[str, Value] = {"epoch": epoch, **values}
        columns = _columns(kept)
        appends = self._written and len(kept) == len(self._rows) and set(new) <= set(columns)
        self._rows = [*kept, new]
        path = self.folder / "results.csv"
        if appends:
            append_line(path, _csv([new], columns, header=False).rstrip("\n"))
        else:
            columns = _columns(self._rows)
            write_atomically(path, _csv(self._rows, columns, header=True).encode())
        self._written = True
        if self._tensorboard:
            self._add_scalars(epoch, values)

    def close(self) -> None:
        """Draw the plots, or say in log.jsonl why not; closing twice is harmless.

        Raises:
            StorageError: a plot cannot be written.
        """
        if self._writer is not None:
            with self._written_to_disk():
                self._writer.close()
        try:
            for kind in PLOTTED:
                series = _series(self._rows, kind)
                if series:
                    curves(self.folder / f"{kind}.png", series, x_label="epoch",
                           y_label=kind.replace("_", " "), title=self.folder.name)
        except MissingExtraError as error:
            self.event("plots_skipped", reason=error.message, hint=error.hint)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:  # on the way out the first error counts, not one of a disk that is full as well
            self.event("stopped", error=f"{type(error).__name__}: {error}")
            self.close()
        except StorageError:
            pass

    def _add_scalars(self, epoch: int, values: Mapping[str, Value]) -> None:
        with self._written_to_disk():
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                # purge_step: viewers forget what a killed run wrote for this and later epochs
                self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=epoch)
            for name, value in values.items():
                if not isinstance(value, str):
                    self._writer.add_scalar(name, value, epoch)
            self._writer.flush()

    @contextmanager
    def _written_to_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _cannot_write(self.folder / "tensorboard", error) from error


class ProgressLog:
    """Shows epochs on a console: a bar in a terminal, elsewhere a line every few epochs."""

    def __init__(
        self, console: Console, *, title: str, epochs: int, every_epochs: int = 10
    ) -> None:
        self._title = title
        self._epochs = epochs
        self._steps = Steps(console, every=every_epochs, stays=True)
        self._steps.begin(title, epochs)

    def event(self, kind: str, **values: Any) -> None:
        """Move the bar where a resumed run starts; other events are not shown."""
        if kind == "resume":
            self._steps.begin(self._title, self._epochs, done=int(values["epochs_done"]))

    def row(self, *, epoch: int, **values: Value) -> None:
        """Show an epoch's losses and accuracies."""
        numbers = "  ".join(
            f"{name.replace('_', ' ')} {value:.3f}" for name, value in values.items()
            if name.startswith(("loss", "accuracy")) and not isinstance(value, str)
        )
        self._steps.update(self._title, epoch + 1, self._epochs, numbers=numbers)

    def __enter__(self) -> ProgressLog:
        self._steps.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._steps.close()


class Logs:
    """Several logs as one, told in their order."""

    def __init__(self, *logs: Log) -> None:
        self._logs = logs

    def event(self, kind: str, **values: Any) -> None:
        """Something happened."""
        for log in self._logs:
            log.event(kind, **values)

    def row(self, *, epoch: int, **values: Value) -> None:
        """An epoch is over."""
        for log in self._logs:
            log.row(epoch=epoch, **values)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _plain(value: Any) -> Any:
    """`value` as JSON has it: numbers that are not finite, which JSON lacks, become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be written: {error.strerror or error}.",
                        hint="Free some space, or name another folder.")


def _columns(rows: Sequence[Mapping[str, Value]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _csv(rows: Sequence[Mapping[str, Value]], columns: Sequence[str], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read_rows(path: Path) -> list[dict[str, Value]]:
    """Rows of an earlier run, in order; a last line that a kill cut short is left out."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(file)
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} cannot be read: {error}.",
                           hint="Move it away, or train into another folder.") from error
    whole = [line for line in lines if line.endswith("\n")]
    return [
        {name: value for name, value in row.items() if value != ""}
        for row in csv.DictReader(whole) if (row.get("epoch") or "").isdigit()
    ]


def _series(rows: Sequence[Mapping[str, Value]], kind: str) -> dict[str, Points]:
    """Points (epoch, value) of each column that begins with `kind`; 'training' is `kind` alone."""
    series: dict[str, Points] = {}
    for column in _columns(rows):
        name = column[len(kind):].strip("_").replace("_", " ") or "training"
        points = [(float(row["epoch"]), _number(row[column])) for row in rows if column in row]
        if column.startswith(kind) and any(math.isfinite(y) for _, y in points):
            series[name] = points
    return series


def _number(value: Value) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan
