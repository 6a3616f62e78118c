"""The conditions that a result was made under, as plain JSON values.

Each function gives the keys, in their order, that a kind of file has.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

from edgepkd._optional import installed_version
from edgepkd._version import __version__
from edgepkd.machine import hardware

PACKAGES = ("torch", "av", "numpy", "numba", "onnx", "openvino", "scipy", "nvidia-modelopt")
"""What a bundle's answers may depend on."""


def conditions(
    packages: Sequence[str] = PACKAGES, *, cpu_capability: str | None = None
) -> dict[str, Any]:
    """Versions that a bundle, a fit or an evaluation was made with; None: not installed.

    `cpu_capability` is what torch says of the processor.
    """
    found: dict[str, Any] = {
        "edgepkd": __version__,
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in packages},
    }
    return found if cpu_capability is None else {**found, "cpu_capability": cpu_capability}


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Versions that a training run was made with, in one table."""
    return {"edgepkd": __version__, "python": platform.python_version(),
            **{name: installed_version(name) for name in packages}}


def machine_conditions(packages: Sequence[str]) -> dict[str, Any]:
    """Processor and versions that numbers were measured with, of what is installed."""
    return {
        "cpu": hardware.cpu(), "num_cores": hardware.num_cores(),
        "python": platform.python_version(), "edgepkd": __version__,
        "packages": {name: version for name in packages if (version := installed_version(name))},
    }
