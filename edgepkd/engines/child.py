"""The process that builds one segment: one JSON line in, one JSON line out, the plan to a file.

A builder may run out of memory or crash; alone in a process it takes nothing else with it. Started
by `edgepkd.engines.process`. What it reads and writes lies in a private folder, not in the bundle.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from edgepkd.bundle.engines import Precision
from edgepkd.config import from_mapping
from edgepkd.engines.builder import EngineBuilder, Plan, Settings, Shapes, open_builder
from edgepkd.errors import EdgepkdError
from edgepkd.files import write_atomically


@dataclass(frozen=True)
class Job:
    """One segment to build."""

    builder: str
    """`module:callable`."""
    source: str
    """Path of the stored segment."""
    plan: str
    """Path of the plan to write."""
    timing_cache: str
    """Path that the timing cache is read from and written to."""
    precisions: tuple[Precision, ...]
    """The first that cannot be measured is kept; else the fastest."""
    shapes: Shapes
    settings: Settings


@dataclass(frozen=True)
class Candidate:
    """A plan for one precision, and its time in ms or why there is none."""

    precision: Precision
    plan: Plan
    measured: float | str | None


def main() -> None:
    """Do the job on stdin; errors of edgepkd are part of the answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        said: Mapping[str, Any] = {"done": _work(request)}
    except EdgepkdError as error:
        said = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    answer.write(json.dumps(said) + "\n")
    answer.flush()


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _work(request: Mapping[str, Any]) -> Mapping[str, Any]:
    if set(request) == {"builder"}:
        return {"version": open_builder(request["builder"]).version}
    return build(_job(request))


def _job(request: Mapping[str, Any]) -> Job:
    shapes, settings = request["shapes"], request["settings"]
    return from_mapping(Job, {
        **request, "shapes": from_mapping(Shapes, shapes, where="shapes"),
        "settings": from_mapping(Settings, settings, where="settings")}, where="job")


def build(job: Job) -> Mapping[str, Any]:
    """Build all candidates, write the winner's plan, and say what a PlanRecord needs.

    Raises:
        ModelError: the builder refuses the segment. ConfigError: or a setting.
        StorageError: the plan cannot be written.
    """
    start = perf_counter()
    builder, content = open_builder(job.builder), Path(job.source).read_bytes()
    candidates: list[Candidate] = []
    for precision in job.precisions:
        candidates.append(_build_one(builder, content, precision, job,
                                     measured=len(job.precisions) > 1))
        if isinstance(candidates[-1].measured, str):
            break
    winner = choose(candidates)
    write_atomically(Path(job.plan), winner.plan.content)
    times = {c.precision: c.measured for c in candidates if isinstance(c.measured, float)}
    return {"precision": winner.precision, "measured_ms": times or None,
            "notes": [*winner.plan.notes, *verdict(candidates, winner)],
            "build_s": round(perf_counter() - start, 3)}


def _build_one(builder: EngineBuilder, content: bytes, precision: Precision, job: Job, *,
               measured: bool) -> Candidate:
    cache = Path(job.timing_cache)
    plan = builder.build(content, precision=precision, shapes=job.shapes, settings=job.settings,
                         timing_cache=cache.read_bytes() if cache.is_file() else b"")
    if plan.timing_cache is not None:
        write_atomically(cache, plan.timing_cache)
    return Candidate(precision, plan,
                     builder.measure(plan.content, shapes=job.shapes) if measured else None)


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The fastest; the first where nothing could be measured."""
    return min(candidates, key=lambda c: c.measured if isinstance(c.measured, float) else 0.0)


def verdict(candidates: Sequence[Candidate], winner: Candidate) -> tuple[str, ...]:
    """What the choice was, in words; empty where there was none."""
    if isinstance(winner.measured, str):
        return (f"{winner.precision} kept unmeasured: {winner.measured}",)
    int8 = next((c for c in candidates if c.precision == "int8"), winner)
    if int8 is winner:
        return ()
    return (f"int8 lost: {int8.measured:.3f} ms against {winner.measured:.3f} ms in"
            f" {winner.precision}",)
