"""Bundles that are not as `make_bundle` makes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgepkd.bundle.reading import Bundle
from edgepkd.bundle.writing import write_bundle
from tests.runtime.bundles import make_manifest, make_policy, make_segments, make_wise


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a bundle, and the manifest's entry for it, as its writer would."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    if path.name != "manifest.json":
        content = path.read_bytes()
        edit(path.with_name("manifest.json"), lambda m: m["files"][path.name].update(
            sha256=hashlib.sha256(content).hexdigest(), bytes=len(content)))


def write(path: Path, **changes: Any) -> Bundle:
    parts: dict[str, Any] = {
        "manifest": make_manifest(), "wise": make_wise(), "policy": make_policy(),
        "segments": make_segments(), "model_card": "# tiny", **changes}
    return write_bundle(path, **parts)
