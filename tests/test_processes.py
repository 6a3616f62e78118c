"""Children of the tests obey Ctrl-C whatever the suite itself was started with."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.processes import ROOT, started

SLEEP = [sys.executable, "-uc", "import time; print('up'); time.sleep(60)"]


@pytest.mark.smoke
def test_a_child_obeys_ctrl_c_in_a_process_that_ignores_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with started(SLEEP, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "up\n"
            child.send_signal(signal.SIGINT)
            assert child.wait(timeout=20) == -signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_child_ends_with_its_test() -> None:
    with pytest.raises(RuntimeError, match="failed"), started(SLEEP) as child:
        raise RuntimeError("failed")
    assert child.returncode == -signal.SIGKILL


def test_no_test_starts_a_process_that_it_may_leave_behind() -> None:
    starters = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")
                if "subprocess.Popen(" in path.read_text()}
    assert starters == {"tests/processes.py", "tests/test_processes.py"}
