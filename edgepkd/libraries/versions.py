"""Versions of the libraries that run engines."""

from __future__ import annotations

import importlib
from typing import Literal

from edgepkd.libraries import openvino

Library = Literal["tensorrt", "tensorrt_rtx", "openvino"]


def library_version(library: Library) -> str | None:
    """Version of `library` as it is imported here; None if it cannot be imported."""
    try:
        module = (openvino.module() if library == "openvino"
                  else importlib.import_module(library))
    except (ImportError, OSError):  # OSError: a shared library of it is missing
        return None
    return str(module.__version__).split("-")[0]
