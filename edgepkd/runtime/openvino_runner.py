"""Segments on the CPU through OpenVINO, straight from the bundle's ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgepkd.bundle import Bundle
from edgepkd.bundle.engines import SEVEN_BITS, overflow_reason
from edgepkd.cascade import Position
from edgepkd.errors import ModelError
from edgepkd.runtime.runner import Array, Features


class OpenVinoRunner:
    """Compiles a segment when it is first asked for; one infer request per segment.

    Features are OpenVINO tensors handed to the next segment without a copy.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, cache_dir: Path | None = None
    ) -> None:
        """Make a runner for `bundle`; `cache_dir` keeps compiled segments between processes."""
        import openvino

        self._bundle = bundle
        self._core = openvino.Core()
        self._requests: dict[Position, Any] = {}
        # f32: otherwise CPUs with bf16 or fp16 units answer differently from all others.
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1,
        }
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        if cache_dir is not None:
            self._settings["CACHE_DIR"] = str(cache_dir)
        self.backend = f"openvino {openvino.__version__.split('-')[0]} CPU"

    def prepare(self, position: Position) -> None:
        """Compile the segment at `position` for its number of temporal segments, once.

        Raises:
            ModelError: OpenVINO refuses the file, its shapes or names are not the manifest's, or
                this CPU would overflow on its weights.
        """
        if position in self._requests:
            return
        path = self._bundle.segment_path(position.modality, position.exit)
        entry = self._bundle.manifest.segment(position.modality, position.exit)
        if reason := overflow_reason(entry):
            raise ModelError(f"segment {position}: {reason}.", hint=SEVEN_BITS)
        frames = self._bundle.manifest.inputs[position.modality].num_segments
        try:
            model = self._core.read_model(path)
            model.reshape({"x": [frames, *entry.input_shape]})
            compiled = self._core.compile_model(model, "CPU", self._settings)
            names = {name for output in compiled.outputs for name in output.get_names()}
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ModelError(f"{path} cannot be compiled by OpenVINO: {reason}",
                             hint="Run `edgepkd doctor`, and build the bundle again.") from error
        wanted = {"logits"} | ({"features"} if entry.features_shape else set())
        if not wanted <= names:
            raise ModelError(f"{path} has the outputs {', '.join(sorted(names))};"
                             f" allowed: {', '.join(sorted(wanted))}.")
        self._requests[position] = compiled.create_infer_request()

    def run(self, position: Position, x: Array | Features) -> tuple[Features, Array]:
        """Run one segment, compiling it first if `prepare` was not called.

        Raises:
            ModelError: `x` does not fit, or OpenVINO fails.
        """
        import openvino

        self.prepare(position)
        request = self._requests[position]
        if isinstance(x, np.ndarray):
            x = openvino.Tensor(np.ascontiguousarray(x, np.float32), shared_memory=True)
        try:
            request.set_tensor("x", x)
            request.infer()
        except RuntimeError as error:
            raise ModelError(f"segment {position} failed in OpenVINO: {error}") from error
        has_features = self._bundle.manifest.segment(position.modality, position.exit)
        features = request.get_tensor("features") if has_features.features_shape else None
        return features, np.array(request.get_tensor("logits").data, np.float32)
