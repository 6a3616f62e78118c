"""The conditions that a result was made under."""

from __future__ import annotations

import platform
from typing import Any

from edgepkd._optional import installed_version
from edgepkd._version import __version__

PACKAGES = ("torch", "av", "numpy", "numba", "onnx", "openvino", "scipy", "nvidia-modelopt")


def conditions(*, cpu_capability: str) -> dict[str, Any]:
    """Versions and processor that a bundle was made with; plain JSON values.

    `cpu_capability` is what torch says of the processor.
    """
    return {
        "edgepkd": __version__,
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "cpu_capability": cpu_capability,
    }
