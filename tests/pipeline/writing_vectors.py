"""What the tests of `vectors` share: run it, look at its files."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepkd.pipeline.vectors import (
    VectorsConfig,
    VectorsEvent,
    VectorsSummary,
    vectors,
)

ROOT = Path(__file__).resolve().parents[2]
CAMERA = "rtsp://camera/x"
Arrays = dict[str, NDArray[Any]]


def written(source: object, out: Path, **settings: Any) -> VectorsSummary:
    """The summary of a run that ends well."""
    *_, summary = vectors(VectorsConfig(source, out, **settings))  # type: ignore[arg-type]
    assert isinstance(summary, VectorsSummary)
    return summary


def load(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def index(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def drained(events: Iterator[VectorsEvent]) -> tuple[list[VectorsEvent], BaseException | None]:
    """All events, and the error at the end."""
    found = []
    try:
        for event in events:
            found.append(event)
    except BaseException as error:
        return found, error
    return found, None


def stopped_after(
    events: Generator[VectorsEvent, None, None], kind: type, stop: BaseException
) -> VectorsSummary:
    """The summary of a run that `stop` ends when its first event of `kind` was taken."""
    while not isinstance(next(events), kind):
        pass
    summary = events.throw(stop)
    assert isinstance(summary, VectorsSummary)
    with pytest.raises(type(stop)):
        next(events)
    return summary
