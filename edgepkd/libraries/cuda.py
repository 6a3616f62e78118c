"""CUDA's runtime through cuda-python: found under either of its names, called in one way."""

from __future__ import annotations

import importlib
from contextlib import suppress
from types import ModuleType
from typing import Any

from edgepkd import _optional
from edgepkd.errors import ModelError

MODULES = ("cuda.bindings.runtime", "cuda.cudart")
"""Its name since cuda-python 12.6, and the one before."""


def open_runtime(*, purpose: str) -> ModuleType:
    """The module whose functions `call` takes; `purpose` is what a message says it is needed for.

    Raises:
        MissingExtraError: cuda-python is not installed.
    """
    for name in MODULES:
        with suppress(ImportError):
            return importlib.import_module(name)
    return _optional.require(MODULES[0], purpose=purpose)


def call(runtime: Any, name: str, *arguments: Any) -> Any:
    """The value of CUDA call `name`, which answers (error, value); None where it gives none.

    Raises:
        ModelError: CUDA says that it failed, or a library of it is missing; names the call and why.
    """
    try:
        error, *value = getattr(runtime, name)(*arguments)
    except RuntimeError as missing:  # cuda-python loads CUDA's libraries at the first call
        raise _failed(name, str(missing)) from missing
    if int(error) != 0:
        reason = runtime.cudaGetErrorString(error)[1]
        reason = reason.decode() if isinstance(reason, bytes) else str(reason)
        raise _failed(name, f"{reason} (CUDA error {int(error)})")
    return value[0] if value else None


def _failed(name: str, reason: str) -> ModelError:
    return ModelError(f"{name} failed: {reason}.",
                      hint="Run `edgepkd doctor`; if memory is short, close other programs on the"
                           " GPU.")
