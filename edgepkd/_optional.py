"""The one gate for packages that only some users need; its error names the extra to install."""

from __future__ import annotations

import importlib
import platform
from importlib import metadata
from types import ModuleType

from edgepkd.errors import MissingExtraError

# import name -> (extra that brings it, distribution name)
OPTIONAL = {
    "torch": ("train", "torch"),
    "modelopt": ("train", "nvidia-modelopt"),
    "safetensors": ("train", "safetensors"),
    "scipy": ("train", "scipy"),
    "sklearn": ("train", "scikit-learn"),
    "matplotlib": ("report", "matplotlib"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "ray": ("ray", "ray"),
    "tensorrt": ("tensorrt", "tensorrt"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx"),
    "torch_tensorrt": ("torch-tensorrt", "torch-tensorrt"),
    "cuda.bindings.runtime": ("cuda", "cuda-python"),
}
OFF_AARCH64 = ("tensorrt", "torch_tensorrt")
"""Their extras install nothing there, where they would hide JetPack's TensorRT."""


def require(module: str, *, purpose: str) -> ModuleType:
    """Import and return optional `module`.

    Raises:
        MissingExtraError: it is not installed; the message holds the pip command for its extra.
    """
    extra, distribution = OPTIONAL[module]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        hint = f"Install it with: pip install 'edgepkd[{extra}]'"
        if module in OFF_AARCH64 and platform.machine() == "aarch64":
            hint = f"On a Jetson ask `edgepkd doctor`; elsewhere: pip install {distribution}"
        raise MissingExtraError(
            f"{purpose} needs the package '{distribution}', which is not installed.", hint=hint,
        ) from error


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None; imports nothing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
