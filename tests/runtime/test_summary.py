"""The sums of a run: what was answered, what it cost, how it ended."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgepkd.errors import StorageError
from edgepkd.runtime.session import Session
from edgepkd.runtime.summary import MAX_WARNINGS, RunSummary, Tally
from tests.runtime.bundles import make_bundle
from tests.runtime.clip_answers import answer_at
from tests.runtime.fake_runner import FakeRunner


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    session = Session(make_bundle(tmp_path), FakeRunner({}, num_classes=2))
    return Tally(session, loading_since=time.perf_counter() - 2.0)


def ended(tally: Tally, *, stopped: BaseException | None = None) -> RunSummary:
    return tally.summary(model="tiny", exit_rule="policy", num_sources=3, stopped=stopped)


def test_answers_are_counted_by_exit_and_their_costs_are_summed(tally: Tally) -> None:
    tally.loaded()
    for number in (1, 5, 5, 12):
        tally.add(answer_at(number))
    found = ended(tally)
    assert (found.model, found.backend, found.exit_rule) == ("tiny", "fake", "policy")
    assert (found.num_clips, found.num_sources, found.num_failed) == (4, 3, 0)
    assert found.exits == {"mv_1": 1, "residual_1": 2, "iframe_4": 1}
    assert found.mean_exit == (1 + 5 + 5 + 12) / 4
    assert (found.segments_run, found.segments_skipped) == (23, 4 * 12 - 23)
    assert (found.gmac, found.gmac_static) == (0.25 * 23, 12.0)
    assert (found.packets_decoded, found.packets_skipped) == (20, 28)
    assert found.networks_load_s == pytest.approx(4 * 0.003)


def test_loading_and_running_are_timed_apart(tally: Tally) -> None:
    tally.loaded()
    time.sleep(0.05)
    found = ended(tally)
    assert 2.0 <= found.load_s < 3.0
    assert 0.05 <= found.wall_s < 1.0


def test_a_run_that_never_began_has_sums_too(tally: Tally) -> None:
    found = ended(tally, stopped=KeyboardInterrupt())
    assert (found.num_clips, found.mean_exit, found.exits, found.wall_s) == (0, None, {}, 0.0)
    assert found.load_s >= 2.0


@pytest.mark.parametrize(("failed", "stopped", "how"), [
    (0, None, "complete"), (1, None, "source failed"), (1, KeyboardInterrupt(), "interrupted"),
    (0, SystemExit(143), "interrupted"), (1, StorageError("disk full."), "error")])
def test_how_it_ended(
    tally: Tally, failed: int, stopped: BaseException | None, how: str
) -> None:
    for _ in range(failed):
        tally.fail()
    found = ended(tally, stopped=stopped)
    assert (found.ended, found.num_failed) == (how, failed)
    assert found.error == ("disk full." if how == "error" else None)


def test_all_warnings_are_counted_and_the_first_are_kept(tally: Tally) -> None:
    for number in range(MAX_WARNINGS + 5):
        tally.warn(f"warning {number}")
    found = ended(tally)
    assert found.num_warnings == MAX_WARNINGS + 5
    assert found.warnings == tuple(f"warning {number}" for number in range(MAX_WARNINGS))
