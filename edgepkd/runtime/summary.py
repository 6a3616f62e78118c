"""The sums of a run: what was answered, what it cost, what was skipped."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgepkd.runtime.answers import ClipAnswer
    from edgepkd.runtime.session import Session

Ended = Literal["complete", "source failed", "interrupted", "error"]
MAX_WARNINGS = 20
"""So many are kept word for word."""


@dataclass(frozen=True)
class RunSummary:
    """The end of a run: what was answered, what it cost, what was skipped."""

    ended: Ended
    """complete: every source was read as far as asked; source failed: one or more were not;
    interrupted: Ctrl-C or a signal; error: something else went wrong."""
    error: str | None
    """What ended the run, where `ended` is error."""
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
    networks_load_s: float
    """The part of `wall_s` in which networks were loaded, when a clip first needed them."""
    num_warnings: int
    warnings: tuple[str, ...]
    """The first 20 of them."""


class Tally:
    """Running sums of a run; a camera may run for weeks, so no answer is kept."""

    def __init__(self, session: Session, *, loading_since: float) -> None:
        """`loading_since` is of time.perf_counter(); loading lasts until `loaded` is called."""
        self._session = session
        self._loading_since = loading_since
        self._started: float | None = None
        self._taken: Counter[int] = Counter()
        self._sums: Counter[str] = Counter()
        self._gmac = [0.0, 0.0]
        self._networks_load_ms = 0.0
        self._num_failed = self._num_warnings = 0
        self._warnings: list[str] = []

    def loaded(self) -> None:
        """The first source is opened now."""
        self._started = time.perf_counter()

    def add(self, answer: ClipAnswer) -> None:
        """Count one answer."""
        self._taken[answer.exit_number] += 1
        self._sums.update(
            segments_run=len(answer.segments_run), segments_skipped=len(answer.segments_skipped),
            packets_decoded=answer.decode.packets_decoded,
            packets_skipped=answer.decode.packets_skipped)
        self._gmac = [self._gmac[0] + answer.gmac, self._gmac[1] + answer.gmac_static]
        self._networks_load_ms += answer.load_ms

    def fail(self) -> None:
        """Count a source that ended in an error."""
        self._num_failed += 1

    def warn(self, message: str) -> None:
        """Count a warning."""
        self._num_warnings += 1
        if len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(message)

    def summary(
        self, *, model: str, exit_rule: str, num_sources: int, stopped: BaseException | None
    ) -> RunSummary:
        """The sums, named; `stopped` is what ended the run before its last source."""
        session, num_clips = self._session, sum(self._taken.values())
        total = sum(number * count for number, count in self._taken.items())
        now = time.perf_counter()
        started = now if self._started is None else self._started
        ended = how_ended(stopped, num_failed=self._num_failed)
        return RunSummary(
            ended=ended, error=str(stopped) if ended == "error" else None,
            model=model, backend=session.runner.backend, order=session.order,
            exit_rule=exit_rule, num_sources=num_sources, num_failed=self._num_failed,
            num_clips=num_clips,
            exits={str(session.cascade.positions[number - 1]): count
                   for number, count in sorted(self._taken.items())},
            mean_exit=total / num_clips if num_clips else None,
            segments_run=self._sums["segments_run"],
            segments_skipped=self._sums["segments_skipped"],
            gmac=self._gmac[0], gmac_static=self._gmac[1],
            packets_decoded=self._sums["packets_decoded"],
            packets_skipped=self._sums["packets_skipped"],
            load_s=started - self._loading_since, wall_s=now - started,
            networks_load_s=self._networks_load_ms / 1e3,
            num_warnings=self._num_warnings, warnings=tuple(self._warnings),
        )


def how_ended(stopped: BaseException | None, *, num_failed: int) -> Ended:
    """The word for it; `stopped` is what ended the run before its last source."""
    if isinstance(stopped, (KeyboardInterrupt, SystemExit)):
        return "interrupted"
    if stopped is not None:
        return "error"
    return "source failed" if num_failed else "complete"
