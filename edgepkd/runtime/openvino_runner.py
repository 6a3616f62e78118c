"""Segments on the CPU through OpenVINO, straight from the bundle's ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgepkd.bundle import Bundle
from edgepkd.bundle.engines import SEVEN_BITS, overflow_reason
from edgepkd.cascade import Position
from edgepkd.errors import ModelError
from edgepkd.libraries import openvino
from edgepkd.runtime.runner import Array, Features, closed


class OpenVinoRunner:
    """Compiles a segment when it is first asked for; one infer request per segment.

    Features are OpenVINO tensors handed to the next segment without a copy.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, cache_dir: Path | None = None
    ) -> None:
        """Make a runner for `bundle`; `cache_dir` keeps compiled segments between processes."""
        self._bundle, self._threads, self._cache_dir = bundle, threads, cache_dir
        self._requests: dict[Position, Any] | None = {}
        """None once it is closed."""
        self.backend = f"openvino {openvino.version()} CPU"

    def prepare(self, position: Position) -> None:
        """Compile the segment at `position` for its number of temporal segments, once.

        Raises:
            ModelError: OpenVINO refuses the file, its shapes or names are not the manifest's,
                this CPU would overflow on its weights, or the runner is closed.
        """
        self._request(position)

    def run(self, position: Position, x: Array | Features) -> tuple[Features, Array]:
        """Run one segment, compiling it first if `prepare` was not called.

        Raises:
            ModelError: `x` does not fit, OpenVINO fails, or the runner is closed.
        """
        request = self._request(position)
        if isinstance(x, np.ndarray):
            x = openvino.module().Tensor(np.ascontiguousarray(x, np.float32), shared_memory=True)
        try:
            request.set_tensor("x", x)
            request.infer()
        except RuntimeError as error:
            raise ModelError(f"segment {position} failed in OpenVINO: {error}") from error
        has_features = self._bundle.manifest.segment(position.modality, position.exit)
        features = request.get_tensor("features") if has_features.features_shape else None
        return features, np.array(request.get_tensor("logits").data, np.float32)

    def close(self) -> None:
        """Drop all compiled segments; OpenVINO itself stays for the next runner."""
        self._requests = None

    def _request(self, position: Position) -> Any:
        if self._requests is None:
            raise closed(self.backend)
        if position not in self._requests:
            self._requests[position] = self._compiled(position).create_infer_request()
        return self._requests[position]

    def _compiled(self, position: Position) -> Any:
        path = self._bundle.segment_path(position.modality, position.exit)
        entry = self._bundle.manifest.segment(position.modality, position.exit)
        if reason := overflow_reason(entry):
            raise ModelError(f"segment {position}: {reason}.", hint=SEVEN_BITS)
        frames = self._bundle.manifest.inputs[position.modality].num_segments
        try:
            compiled = openvino.compile_segment(
                path, frames=frames, frame_shape=entry.input_shape, threads=self._threads,
                cache_dir=self._cache_dir)
            names = {name for output in compiled.outputs for name in output.get_names()}
        except RuntimeError as error:
            raise ModelError(f"{path} cannot be compiled by OpenVINO: {openvino.reason_of(error)}",
                             hint="Run `edgepkd doctor`, and build the bundle again.") from error
        wanted = {"logits"} | ({"features"} if entry.features_shape else set())
        if not wanted <= names:
            raise ModelError(f"{path} has the outputs {', '.join(sorted(names))};"
                             f" allowed: {', '.join(sorted(wanted))}.")
        return compiled
