"""The command, from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

pytestmark = pytest.mark.slow


def _fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tests.fuzz", *arguments], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_a_short_series_finds_nothing(tmp_path: Path) -> None:
    done = _fuzz("--minutes", "4", "--inputs", "800", "--jobs", "2", "--seed", "7",
                 "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    for mode in ("checked", "unchecked"):
        summary = json.loads((tmp_path / f"summary-7-{mode}.json").read_text())
        assert summary["findings"] == {}
        assert summary["inputs"] <= 800
        assert summary["answered"] > summary["inputs"] / 2 > 0


def test_one_input_of_a_series_is_kept(tmp_path: Path) -> None:
    done = _fuzz("--seed", "7", "--number", "12", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("answered", "refused")
    assert (tmp_path / "7-12.bin").stat().st_size > 0
    done = _fuzz("--minimise", str(tmp_path / "7-12.bin"))
    assert done.returncode == 1
    assert "does nothing that must not be" in done.stdout
