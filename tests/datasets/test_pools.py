"""Processes: every job comes back, a crash takes only its own job along, none outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgepkd.datasets.pools import Crash, LocalPool
from edgepkd.errors import ConfigError, DataError
from tests.processes import started

ROOT = Path(__file__).resolve().parents[2]


def double(job: int) -> int:
    """A job; some are deadly."""
    if job == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 17:
        raise RuntimeError("a bug")
    return 2 * job


def die(job: int) -> int:
    os._exit(1)


def test_every_job_comes_back_with_its_result() -> None:
    assert dict(LocalPool(2).run(double, range(10))) == {n: 2 * n for n in range(10)}
    assert list(LocalPool(2).run(double, [])) == []


@pytest.mark.slow
def test_a_crash_takes_only_its_own_job_along() -> None:
    got = list(LocalPool(2).run(double, [1, 2, 13, 3, 4]))
    assert sorted(job for job, _ in got) == [1, 2, 3, 4, 13]
    assert dict(got) == {1: 2, 2: 4, 3: 6, 4: 8, 13: Crash()}


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        list(LocalPool(1).run(double, [17]))


@pytest.mark.slow
def test_processes_that_always_die_end_the_run() -> None:
    with pytest.raises(DataError, match="3 worker processes died"):
        list(LocalPool(1).run(die, range(50)))


def test_at_least_one_process() -> None:
    with pytest.raises(ConfigError, match="jobs is 0"):
        LocalPool(0)


@pytest.mark.smoke
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(f"""
import os, sys, time
from pathlib import Path
from edgepkd.datasets.pools import LocalPool
def work(job):
    Path({str(tmp_path)!r}, f"{{os.getpid()}}.pid").touch()
    time.sleep(0.05)
if __name__ == "__main__":
    for _ in LocalPool(1).run(work, range(10_000)): pass
""")
    with started([sys.executable, str(script)], stderr=subprocess.DEVNULL,
                 env={**os.environ, "PYTHONPATH": str(ROOT)}) as parent:
        while not (found := list(tmp_path.glob("*.pid"))):
            assert parent.poll() is None
            time.sleep(0.02)
    worker = int(found[0].stem)
    for _ in range(500):
        if not is_alive(worker):
            return
        time.sleep(0.02)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker lives on")


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
