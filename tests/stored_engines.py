"""Engines written into a bundle as `edgepkd export` would have, for this user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgepkd.bundle import trust
from edgepkd.bundle.engine_files import write_engines
from edgepkd.bundle.engines import SIDECAR, EngineSet
from edgepkd.bundle.folder import open_folder


def store(folder: Path, engines: EngineSet) -> EngineSet:
    """Write the sidecar into `folder`, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    opened = open_folder(folder)
    assert opened is not None
    with opened:
        return write_engines(opened, engines)


def edit(folder: Path, change: Callable[[dict[str, Any]], object], *, listed: bool = True) -> None:
    """Change what the sidecar in `folder` says; `listed`: as if it had been made so here."""
    values = json.loads((folder / SIDECAR).read_text())
    change(values)
    content = json.dumps(values).encode()
    (folder / SIDECAR).write_bytes(content)
    if listed:
        trust.add(trust.digest_of(content))
