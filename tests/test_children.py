"""Nothing that lies in the current folder is imported by a process that is started there."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgepkd import children

ROOT = Path(__file__).resolve().parents[1]
# Modules of Python's own that its start, multiprocessing or the children of edgepkd import.
NAMES = ("json", "signal", "struct", "pickle", "tempfile", "selectors", "socket", "threading",
         "multiprocessing", "numpy", "sitecustomize", "edgepkd", "traceback", "fcntl")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder with modules that tell when they are run."""
    here = tmp_path / "videos"
    here.mkdir()
    for name in NAMES:
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'a').write({name!r})\n")
    return here


def run(trap: Path, code: str) -> str:
    """What a program that is no part of the trap prints; it is started in it."""
    program = trap.parent / "program.py"
    program.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(program)], cwd=trap, env=environment, text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (trap.parent / "RAN").exists(), (trap.parent / "RAN").read_text()
    return done.stdout


POOL = """
from edgepkd.datasets.pools import LocalPool
if __name__ == "__main__":
    print(sorted(LocalPool(2).run(abs, [-1, -2, -3])))
"""

PLAIN = """
import sys
from multiprocessing import get_context
from concurrent.futures import ProcessPoolExecutor
from edgepkd.children import start_safely
if __name__ == "__main__":
    if sys.argv[1:] != ["plain"]:
        start_safely()
        start_safely()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        print(pool.submit(abs, -1).result())
"""


def test_a_pool(trap: Path) -> None:
    assert run(trap, POOL) == "[(-3, 3), (-2, 2), (-1, 1)]\n"


def test_a_pool_on_python_3_10(trap: Path) -> None:
    """Which has no -P."""
    assert run(trap, "import sys; sys.version_info = (3, 10, 12, 'final', 0)\n" + POOL) \
        == "[(-3, 3), (-2, 2), (-1, 1)]\n"


def test_the_trap_would_work(trap: Path) -> None:
    """What is tested here is not what Python does by itself."""
    with pytest.raises(AssertionError):
        run(trap, PLAIN.replace("sys.argv[1:] != [\"plain\"]", "False"))
    assert run_again(trap, PLAIN) == "1\n"


def run_again(trap: Path, code: str) -> str:
    (trap.parent / "RAN").unlink(missing_ok=True)
    return run(trap, code)


@pytest.mark.slow
def test_a_builder(trap: Path) -> None:
    assert run(trap, """
import sys
from edgepkd.engines.process import ask
sys.path[:0] = ["", ".", "relative"]
print(ask({"builder": "edgepkd.engines.openvino:OpenVinoBuilder"}, "openvino")[0].keys())
""") == "dict_keys(['version'])\n"


def test_the_path_of_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", ".", "lib", "/usr/lib/python3", "/x/site-packages"])
    assert children.module_path() == ["/usr/lib/python3", str(ROOT), "/x/site-packages"]
    monkeypatch.setattr(sys, "path", ["/usr/lib/python3", str(ROOT)])
    assert children.module_path() == ["/usr/lib/python3", str(ROOT)]


def test_it_is_set_once() -> None:
    children.start_safely()
    children.start_safely()
    flags = multiprocessing.util._args_from_interpreter_flags()  # type: ignore[attr-defined]
    assert flags.count("-P" if sys.version_info >= (3, 11) else "-I") == 1
