"""The builder that child processes make in the tests: a plan is what was asked for, as text.

What goes wrong, and how long a plan takes, is said by `script.json` in the folder that the
environment names: a builder knows nothing of tests.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import onnx

from edgepkd.bundle.engines import Precision
from edgepkd.engines.builder import Plan, Settings, Shapes
from edgepkd.errors import MissingExtraError, ModelError

SPEC = f"{__name__}:FakeBuilder"
FOLDER = "EDGEPKD_TEST_FOLDER"


class FakeBuilder:
    """Does what `script.json` says for a segment; logs what it built in `built.txt`."""

    version = "10.3.0"

    def __init__(self) -> None:
        """Read the script."""
        self._folder = Path(os.environ[FOLDER])
        script = self._folder / "script.json"
        self._script = json.loads(script.read_text()) if script.is_file() else {}

    def build(self, content: bytes, *, precision: Precision, shapes: Shapes, settings: Settings,
              timing_cache: bytes = b"") -> Plan:
        """A plan that says what it is."""
        segment = onnx.load_from_string(content).graph.name
        self._act(self._script.get(segment, ""))
        with (self._folder / "built.txt").open("a") as log:
            log.write(f"{segment} {precision} {settings.workspace_mb}\n")
        return Plan(f"{segment} {precision} {shapes.batch(shapes.max_frames)}".encode(),
                    timing_cache + segment.encode())

    def _act(self, what: str) -> None:
        if what.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[what])
        elif what == "sleep":
            (self._folder / "child.pid").write_text(str(os.getpid()))
            time.sleep(600)
        elif what == "bug":
            raise ZeroDivisionError("a bug in the builder")
        elif what:
            raise ModelError(what)

    def measure(self, plan: bytes, *, shapes: Shapes) -> float | str:
        """As the script says of the precision, such as {"int8": 0.5}."""
        return self._script.get(plan.split()[1].decode(), "no clock here")


def without_library() -> FakeBuilder:
    """What happens where a library is not installed."""
    raise MissingExtraError("tensorrt is not installed.",
                            hint="Install it with: pip install 'edgepkd[tensorrt]'")
