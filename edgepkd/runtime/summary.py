"""The sums of a run: what was answered, what it cost, what was skipped."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgepkd.runtime.answers import ClipAnswer
    from edgepkd.runtime.session import Session


@dataclass(frozen=True)
class RunSummary:
    """The end of a run: what was answered, what it cost, what was skipped."""

    model: str
    backend: str
    order: tuple[str, ...]
    exit_rule: str
    """'policy', 'threshold 0.9', 'static', with 'max exit 4' where asked."""
    num_sources: int
    num_failed: int
    num_clips: int
    exits: dict[str, int]
    """Clips answered at each exit, such as {'mv_2': 5}."""
    mean_exit: float | None
    """Mean cascade position taken, 1-based; None without clips."""
    segments_run: int
    segments_skipped: int
    gmac: float
    gmac_static: float
    packets_decoded: int
    packets_skipped: int
    load_s: float
    """Reading and checking the bundle, starting the backend, loading the decoding kernels."""
    wall_s: float
    """From the first packet read to the last answer."""


class Tally:
    """Running sums of a run; a camera may run for weeks, so no answer is kept."""

    def __init__(self, *, load_s: float) -> None:
        self._load_s = load_s
        self._started = time.perf_counter()
        self._taken: Counter[int] = Counter()
        self._sums: Counter[str] = Counter()
        self._gmac = [0.0, 0.0]

    def add(self, answer: ClipAnswer) -> None:
        """Count one answer."""
        self._taken[answer.exit_number] += 1
        self._sums.update(
            segments_run=len(answer.segments_run), segments_skipped=len(answer.segments_skipped),
            packets_decoded=answer.decode.packets_decoded,
            packets_skipped=answer.decode.packets_skipped)
        self._gmac = [self._gmac[0] + answer.gmac, self._gmac[1] + answer.gmac_static]

    def summary(
        self, session: Session, *, model: str, exit_rule: str, num_sources: int, num_failed: int
    ) -> RunSummary:
        """The sums, named."""
        num_clips = sum(self._taken.values())
        total = sum(number * count for number, count in self._taken.items())
        return RunSummary(
            model=model, backend=session.runner.backend, order=session.order,
            exit_rule=exit_rule, num_sources=num_sources, num_failed=num_failed,
            num_clips=num_clips,
            exits={str(session.cascade.positions[number - 1]): count
                   for number, count in sorted(self._taken.items())},
            mean_exit=total / num_clips if num_clips else None,
            segments_run=self._sums["segments_run"],
            segments_skipped=self._sums["segments_skipped"],
            gmac=self._gmac[0], gmac_static=self._gmac[1],
            packets_decoded=self._sums["packets_decoded"],
            packets_skipped=self._sums["packets_skipped"],
            load_s=self._load_s, wall_s=time.perf_counter() - self._started,
        )
