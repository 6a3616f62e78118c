"""One Core a process: signals are survived, whoever used OpenVINO and in what order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgepkd.libraries import openvino
from tests.runtime.bundles import make_bundle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OWNER = "edgepkd/libraries/openvino.py"
MAKERS = re.compile(r"\bCore\s*\(|\.(compile|import)_model\s*\(|^\s*(import|from) openvino\b")


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle")).path


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True,
                          timeout=120, env={**os.environ, **environment})


@pytest.mark.parametrize(("order", "users"), [
    ("first", ("session", "session")),
    ("last", ("session", "session")),
    ("kept", ("session", "session")),
    ("thread", ("session", "session")),
    pytest.param("first", ("session", "builder", "parity", "doctor"), marks=pytest.mark.smoke),
    ("first", ("parity", "doctor", "session")),
    ("first", ("builder", "session")),
    ("last", ("session", "builder", "parity", "doctor")),
])
def test_signals_are_survived_whatever_was_dropped(
    bundle_path: Path, order: str, users: tuple[str, ...]
) -> None:
    done = python("-m", "tests.libraries.dropping", str(bundle_path), order, *users)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"alive {len(users) if order == 'kept' else 0}\n"


def test_threads_that_ask_at_once_and_a_fork_meanwhile_get_one_core() -> None:
    done = python("-c", """
import os, threading, time
import openvino
from edgepkd.errors import ModelError
from edgepkd.libraries.openvino import core

made = []
class Slow:
    def __init__(self):
        made.append(self)
        time.sleep(0.3)
openvino.Core = Slow
got = []
threads = [threading.Thread(target=lambda: got.append(core())) for _ in range(8)]
for thread in threads:
    thread.start()
child = os.fork()  # while one of them makes it
if child == 0:
    threading.Timer(20, os._exit, [1]).start()  # it would wait for a thread that it lacks
    try:
        core()
    except ModelError:
        os._exit(0 if len(made) == 1 else 2)
    os._exit(3)
for thread in threads:
    thread.join()
assert len(made) == 1 and set(map(id, got)) == {id(made[0])}, made
assert os.waitpid(child, 0)[1] == 0
""")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_child_computes_on_and_compiling_in_it_is_refused_not_endless(
    bundle_path: Path
) -> None:
    done = python("-c", f"""
import os, threading
from pathlib import Path
from edgepkd.errors import ModelError
from tests.libraries.dropping import Position, X, session
path = Path({str(bundle_path)!r})
session(path)  # dropped: its threads lie idle
inherited = session(path)
child = os.fork()
if child == 0:
    threading.Timer(20, os._exit, [1]).start()
    inherited.runner.run(Position("mv", 1), X)
    try:
        session(path)
    except ModelError as error:
        os._exit(0 if "spawn" in error.hint else 2)
    os._exit(3)
assert os.waitpid(child, 0)[1] == 0
""")
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_it_tells_nobody_and_writes_nowhere() -> None:
    done = python("-c", """
import sys
from edgepkd.libraries import openvino
openvino.core()
assert "openvino" in sys.modules
assert "openvino_telemetry" not in sys.modules
""", HOME="/proc")  # a folder that even root cannot write to
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_else_makes_a_core_or_imports_it() -> None:
    sources = [path for room in ("edgepkd", "tests") for path in (ROOT / room).rglob("*.py")]
    assert len(sources) > 200
    found = {f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
             for path in sources for number, line in enumerate(path.read_text().splitlines(), 1)
             if MAKERS.search(line) and path != Path(__file__)
             and str(path.relative_to(ROOT)) != OWNER}
    assert found == set()


def test_all_segments_are_compiled_in_one_way() -> None:
    assert openvino.settings() == {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    assert openvino.settings(threads=3)["INFERENCE_NUM_THREADS"] == 3
