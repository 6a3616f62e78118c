"""The process that builds one segment: bytes in, bytes out, no file.

A builder may run out of memory or crash; alone in a process it takes nothing else with it. Started
by `edgepkd.engines.process`, which says how the bytes go.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any

from edgepkd.bundle.engines import Precision
from edgepkd.config import from_mapping
from edgepkd.engines.builder import EngineBuilder, Plan, Settings, Shapes, open_builder
from edgepkd.errors import EdgepkdError


@dataclass(frozen=True)
class Job:
    """One segment to build."""

    builder: str
    """`module:callable`."""
    source: bytes
    """The stored segment."""
    timing_cache: bytes
    """What is known so far; may be empty."""
    precisions: tuple[Precision, ...]
    """The first that cannot be measured is kept; else the fastest."""
    shapes: Shapes
    settings: Settings

    def request(self) -> tuple[Mapping[str, Any], tuple[bytes, ...]]:
        """As it goes to the child: what is no JSON by itself."""
        values = asdict(self)
        return values, (values.pop("source"), values.pop("timing_cache"))


@dataclass(frozen=True)
class Candidate:
    """A plan for one precision, and its time in ms or why there is none."""

    precision: Precision
    plan: Plan
    measured: float | str | None


def main() -> None:
    """Do the job on stdin; errors of edgepkd are part of the answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    request = json.loads(sys.stdin.buffer.readline())
    blocks = [sys.stdin.buffer.read(size) for size in request.pop("blocks")]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    made: tuple[bytes, ...] = ()
    try:
        done, made = _work(request, blocks)
        said: Mapping[str, Any] = {"done": done}
    except EdgepkdError as error:
        said = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    answer.write(json.dumps({**said, "blocks": [len(block) for block in made]}).encode() + b"\n")
    for block in made:
        answer.write(block)
    answer.flush()


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _work(
    request: Mapping[str, Any], blocks: Sequence[bytes]
) -> tuple[Mapping[str, Any], tuple[bytes, ...]]:
    if set(request) == {"builder"}:
        return {"version": open_builder(request["builder"]).version}, ()
    source, timing_cache = blocks
    shapes, settings = request["shapes"], request["settings"]
    done, plan = build(from_mapping(Job, {
        **request, "source": source, "timing_cache": timing_cache,
        "shapes": from_mapping(Shapes, shapes, where="shapes"),
        "settings": from_mapping(Settings, settings, where="settings")}, where="job"))
    return done, (plan.content, plan.timing_cache or b"")


def build(job: Job) -> tuple[Mapping[str, Any], Plan]:
    """What a PlanRecord needs, and the plan of the candidate that wins, with all that the builders'
    timing cache knows by then.

    Raises:
        ModelError: the builder refuses the segment. ConfigError: or a setting.
    """
    start, known = perf_counter(), job.timing_cache
    builder = open_builder(job.builder)
    candidates: list[Candidate] = []
    for precision in job.precisions:
        candidates.append(_build_one(builder, precision, job, known,
                                     measured=len(job.precisions) > 1))
        known = candidates[-1].plan.timing_cache or known
        if isinstance(candidates[-1].measured, str):
            break
    winner = choose(candidates)
    times = {c.precision: c.measured for c in candidates if isinstance(c.measured, float)}
    done = {"precision": winner.precision, "measured_ms": times or None,
            "notes": [*winner.plan.notes, *choice_notes(candidates, winner)],
            "build_s": round(perf_counter() - start, 3)}
    return done, replace(winner.plan, timing_cache=known)


def _build_one(builder: EngineBuilder, precision: Precision, job: Job, known: bytes, *,
               measured: bool) -> Candidate:
    plan = builder.build(job.source, precision=precision, shapes=job.shapes,
                         settings=job.settings, timing_cache=known)
    return Candidate(precision, plan,
                     builder.measure(plan.content, shapes=job.shapes) if measured else None)


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The fastest; the first where nothing could be measured."""
    return min(candidates, key=lambda c: c.measured if isinstance(c.measured, float) else 0.0)


def choice_notes(candidates: Sequence[Candidate], winner: Candidate) -> tuple[str, ...]:
    """What the choice was, in words; empty where there was none."""
    if isinstance(winner.measured, str):
        return (f"{winner.precision} kept unmeasured: {winner.measured}",)
    int8 = next((c for c in candidates if c.precision == "int8"), winner)
    if int8 is winner:
        return ()
    return (f"int8 lost: {int8.measured:.3f} ms against {winner.measured:.3f} ms in"
            f" {winner.precision}",)
