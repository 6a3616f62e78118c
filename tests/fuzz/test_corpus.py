"""Every input that once went wrong is answered or refused, however it is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.seeds import CORPUS, is_input
from tests.processes import ROOT

pytestmark = pytest.mark.slow

_CHILD = """
import json, sys
from pathlib import Path
from tests.fuzz.target import use
from tests.fuzz.workers import work_through
place, uses, *paths = sys.argv[1:]
found = []
for path in paths:
    content, number = Path(path).read_bytes(), Path(path).stem.rsplit("-", 1)[-1]
    numbers = [*range(int(uses)), *([int(number)] if number.isdigit() else [])]
    for tally in work_through(iter([range(len(numbers))]),
                              lambda n: use(content, numbers[n], Path(place)), until=float("inf")):
        found += [f"{path}, used as {numbers[f.number]}: {f.kind}: {f.what}"
                  for f in tally.findings]
print(json.dumps(found))
"""


def _findings(paths: list[Path], tmp_path: Path, *, uses: int) -> list[str]:
    """In a child: bounds checks are compiled in, and are not for the other tests."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path / "input"), str(uses), *map(str, paths)],
        capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path / "numba")})
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_corpus_is_answered_or_refused(tmp_path: Path) -> None:
    paths = [path for path in sorted(CORPUS.iterdir()) if path.suffix != ".md"]
    assert paths
    assert all(map(is_input, paths))
    assert not _findings(paths, tmp_path, uses=12)


def test_hostile_cases_are_answered_or_refused(shared_cases: Path, tmp_path: Path) -> None:
    paths = [path for path in sorted((shared_cases / "hostile").iterdir()) if is_input(path)]
    assert paths
    assert not _findings(paths, tmp_path, uses=6)
