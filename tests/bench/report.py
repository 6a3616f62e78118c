"""What every benchmark shares: the conditions it ran under, and a JSON file written whole."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from edgepkd._optional import installed_version
from edgepkd.machine import hardware

PACKAGES = ("av", "numba", "numpy", "openvino", "torch", "motion-vector-extractor")


def conditions(**more: Any) -> dict[str, Any]:
    """Machine and versions, and whatever else the caller knows about its run."""
    return {
        "cpu": hardware.cpu(),
        "num_cpus": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := installed_version(name))},
        "load_average": [round(value, 2) for value in os.getloadavg()],
        **more,
    }


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write `document` to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
