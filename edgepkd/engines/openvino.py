"""Segments compiled for the CPU by OpenVINO; the plan is OpenVINO's own blob."""

from __future__ import annotations

import io
from statistics import median
from time import perf_counter

from edgepkd.bundle.engines import Precision
from edgepkd.engines.builder import Plan, Settings, Shapes, typed_form
from edgepkd.errors import ConfigError, ModelError
from edgepkd.libraries import openvino

MEASURED_S = 0.5
MIN_CALLS = 10


class OpenVinoBuilder:
    """Compiles for exactly max_frames: on the CPU a fixed batch is faster than a free one."""

    def __init__(self) -> None:
        self.version = openvino.version()

    def build(self, content: bytes, *, precision: Precision, shapes: Shapes, settings: Settings,
              timing_cache: bytes = b"") -> Plan:
        """As the contract says; a quantised segment is compiled as it is stored."""
        _refuse_gpu_settings(settings)
        form = content if precision == "int8" else typed_form(content, precision)
        blob = io.BytesIO()
        try:
            openvino.compile_segment(form, frames=shapes.max_frames,
                                     frame_shape=shapes.frame).export_model(blob)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO refuses the segment: {openvino.reason_of(error)}",
                             hint="Build the bundle again, or another target.") from error
        return Plan(blob.getvalue())

    def measure(self, plan: bytes, *, shapes: Shapes) -> float | str:
        """Median over half a second of calls, after three to warm up."""
        import numpy as np

        request = openvino.import_segment(plan).create_infer_request()
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
