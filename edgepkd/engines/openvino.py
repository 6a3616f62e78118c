"""Segments compiled for the CPU by OpenVINO; the plan is OpenVINO's own blob."""

from __future__ import annotations

import io
from statistics import median
from time import perf_counter
from typing import Any

from edgepkd.bundle.engines import Precision
from edgepkd.engines.builder import Plan, Settings, Shapes, typed_form
from edgepkd.errors import ConfigError, ModelError

MEASURED_S = 0.5
MIN_CALLS = 10


class OpenVinoBuilder:
    """Compiles for exactly max_frames: on the CPU a fixed batch is faster than a free one."""

    def __init__(self) -> None:
        import openvino

        self._core: Any = openvino.Core()
        self.version: str = openvino.__version__.split("-")[0]

    def build(self, content: bytes, *, precision: Precision, shapes: Shapes, settings: Settings,
              timing_cache: bytes = b"") -> Plan:
        """As the contract says; a quantised segment is compiled as it is stored."""
        _refuse_gpu_settings(settings)
        form = content if precision == "int8" else typed_form(content, precision)
        blob = io.BytesIO()
        try:
            model = self._core.read_model(form)
            model.reshape({"x": list(shapes.batch(shapes.max_frames))})
            compiled = self._core.compile_model(model, "CPU", {
                "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1,
            })
            compiled.export_model(blob)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO refuses the segment: {_reason(error)}",
                             hint="Build the bundle again, or another target.") from error
        return Plan(blob.getvalue())

    def measure(self, plan: bytes, *, shapes: Shapes) -> float | str:
        """Median over half a second of calls, after three to warm up."""
        import numpy as np

        request = self._core.import_model(plan, "CPU").create_infer_request()
        x = np.random.default_rng(0).standard_normal(shapes.batch(shapes.max_frames))
        request.get_tensor("x").data[:] = x
        for _ in range(3):
            request.infer()
        times: list[float] = []
        while len(times) < MIN_CALLS or sum(times) < MEASURED_S:
            start = perf_counter()
            request.infer()
            times.append(perf_counter() - start)
        return median(times) * 1e3


def _refuse_gpu_settings(settings: Settings) -> None:
    given = [name for name in ("dla", "workspace_mb") if getattr(settings, name) is not None]
    given += [name for name in ("version_compatible", "hardware_compatible",
                                "require_timing_cache") if getattr(settings, name)]
    if given:
        raise ConfigError(f"{', '.join(given)} is set; allowed: only for TensorRT.")


def _reason(error: RuntimeError) -> str:
    """What OpenVINO says, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(
        ("Exception from", "Check '", "To facilitate"))) or "no reason given"
