"""The command line as tests call it: in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from typer.testing import CliRunner, Result

from edgepkd.cli.main import app
from tests.processes import ROOT


def invoke(*arguments: object) -> Result:
    """The command in this process; an error is a message, never a traceback that nobody asked."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output or os.environ.get("EDGEPKD_DEBUG")
    return done


def process(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "edgepkd.cli.main", *map(str, arguments)],
                          capture_output=True, text=True, cwd=ROOT, timeout=120, **settings)


def lines(text: str) -> list[dict[str, Any]]:
    """JSON lines."""
    return [json.loads(line) for line in text.splitlines()]
