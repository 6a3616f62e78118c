"""OpenVINO, once a process: the only Core, and the one way in which segments become runnable.

A Core's CPU plugin gives the thread that first uses it an alternate stack for signal handlers
(sigaltstack), and unmaps it when the Core dies. Two Cores that do not die in reverse order leave
the thread with a stack that is gone, and the next signal that has a handler, be it Ctrl-C or the
end of a child, kills the process silently. So there is one Core, and it never dies.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepkd.errors import ModelError

DEVICE = "CPU"
TELEMETRY = "openvino_telemetry"

# Two threads that ask at once must not make two. Taken before a fork: a child that is forked while
# another thread makes the Core would wait for that thread, which it lacks.
_lock = threading.RLock()
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release,
                    after_in_child=_lock.release)


def module() -> Any:
    """The package itself.

    Raises:
        ImportError: OpenVINO is not installed, or a shared library of it is missing.
    """
    with _lock:
        return _quietly_imported()


@cache
def _quietly_imported() -> Any:
    # Its import would report its use to its makers, write to HOME, and warn on stderr where it may
    # not. It does without the package for that if there is none.
    absent = "openvino" not in sys.modules and TELEMETRY not in sys.modules
    if absent:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        if absent:
            del sys.modules[TELEMETRY]


def core() -> Any:
    """The Core of this process.

    Raises:
        ImportError: as `module`.
        ModelError: it was made before this process was forked from its parent.
    """
    with _lock:
        made, made_by = _immortal_core()
    if made_by != os.getpid():
        # OpenVINO keeps idle threads for the next segment, for the whole process and not the Core.
        # A fork has none of them, and compiling would wait for one for ever.
        raise ModelError("OpenVINO was in use when this process was forked; allowed: processes that"
                         " are started anew.",
                         hint="Start it with multiprocessing.get_context('spawn').")
    return made


@cache
def _immortal_core() -> tuple[Any, int]:
    """The Core, and the process that made it."""
    made = module().Core()
    # One reference too many: the interpreter clears modules at its end while threads and signals
    # may still come, and the stack may be that of a thread other than the one which would free it.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
    return made, os.getpid()


def version() -> str:
    """Such as '2026.4.1'."""
    return str(module().__version__).split("-")[0]


def settings(*, threads: int | None = None) -> dict[str, Any]:
    """How every segment is compiled or imported; `threads` None: OpenVINO's choice."""
    # f32: CPUs with bf16 or fp16 units would otherwise answer differently from all others. A plan
    # does not hold these settings: imported without them it runs in bf16 where the CPU can.
    chosen: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1,
    }
    if threads is not None:
        chosen["INFERENCE_NUM_THREADS"] = threads
    return chosen


def compile_segment(
    content: bytes, *, frames: int, frame_shape: Sequence[int] | None = None,
    threads: int | None = None,
) -> Any:
    """An ONNX segment as a compiled model for `x` [frames, *frame_shape].

    `frame_shape` None: as the graph says.

    Raises:
        RuntimeError: OpenVINO refuses it; `reason_of` says why. ModelError: as `core`.
    """
    model = core().read_model(content)
    shape = model.input("x").get_partial_shape()[1:] if frame_shape is None else frame_shape
    model.reshape({"x": [frames, *shape]})
    return core().compile_model(model, DEVICE, settings(threads=threads))


def import_segment(plan: bytes, *, threads: int | None = None) -> Any:
    """A plan that `compile_segment(...).export_model` gave, as a compiled model.

    Raises:
        RuntimeError: OpenVINO refuses it; `reason_of` says why. ModelError: as `core`.
    """
    return core().import_model(plan, DEVICE, settings(threads=threads))


class ReadySegment:
    """A compiled segment with the one request that it runs by, over and over."""

    def __init__(self, compiled: Any) -> None:
        """`compiled` is of `compile_segment` or `import_segment`."""
        names = {name for output in compiled.outputs for name in output.get_names()}
        self._has_features = "features" in names
        self._request = compiled.create_infer_request()

    def run(self, x: Any) -> tuple[Any, NDArray[np.float32]]:
        """`x`, an array or the features of the segment before -> features (None: the segment makes
        none), logits. Features are OpenVINO's own tensor, valid until this segment runs again.

        Raises:
            RuntimeError: `x` does not fit.
        """
        if isinstance(x, np.ndarray):
            x = module().Tensor(np.ascontiguousarray(x, np.float32), shared_memory=True)
        self._request.set_tensor("x", x)
        self._request.infer()
        features = self._request.get_tensor("features") if self._has_features else None
        return features, np.array(self._request.get_tensor("logits").data, np.float32)


def reason_of(error: RuntimeError) -> str:
    """What OpenVINO says, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(
        ("Exception from", "Check '", "To facilitate"))) or "no reason given"
