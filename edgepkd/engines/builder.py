"""The border between a build and what compiles a segment: one small contract, plain values."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgepkd.bundle.engines import Precision
from edgepkd.engines import graph
from edgepkd.errors import ModelError
from edgepkd.libraries.versions import Library

BUILDERS: dict[Library, str] = {
    "tensorrt": "edgepkd.engines.tensorrt:open_tensorrt",
    "tensorrt_rtx": "edgepkd.engines.tensorrt:open_tensorrt_rtx",
    "openvino": "edgepkd.engines.openvino:OpenVinoBuilder",
}
"""Library -> `module:callable` that a child process makes its builder with."""


@dataclass(frozen=True)
class Settings:
    """How plans are built, the same for all segments of a target."""

    workspace_mb: int | None = None
    """Scratch memory of the builder; None: its own default."""
    version_compatible: bool = False
    hardware_compatible: bool = False
    compute_capabilities: tuple[str, ...] = ()
    dla: int | None = None
    """DLA core; None: the GPU."""
    optimization_level: int = 3
    require_timing_cache: bool = False
    """Fail where a tactic is not in the timing cache."""


@dataclass(frozen=True)
class Shapes:
    """What a plan takes: `x` is float32 [n, *frame], n from min_frames to max_frames."""

    frame: tuple[int, ...]
    """(C, H, W)."""
    min_frames: int
    opt_frames: int
    max_frames: int

    def batch(self, frames: int) -> tuple[int, ...]:
        """Shape of `x` for so many frames."""
        return (frames, *self.frame)


@dataclass(frozen=True)
class Plan:
    """A compiled segment."""

    content: bytes
    timing_cache: bytes | None = None
    """All that is known so far; None where the builder keeps none."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as layers that run elsewhere than asked for."""


class EngineBuilder(Protocol):
    """Compiles segments; knows nothing of bundles, files and processes."""

    @property
    def version(self) -> str:
        """Of the library, '10.3.0.30'."""

    def build(self, content: bytes, *, precision: Precision, shapes: Shapes, settings: Settings,
              timing_cache: bytes = b"") -> Plan:
        """Compile one stored segment for `precision`.

        Raises:
            ModelError: the builder refuses it; says what the builder said, with the node.
            ConfigError: a setting that this library cannot do.
        """

    def measure(self, plan: bytes, *, shapes: Shapes) -> float | str:
        """Median of one call at opt_frames in ms, or why it cannot be measured here."""


def open_builder(spec: str) -> EngineBuilder:
    """The builder that `spec`, `module:callable`, makes.

    Raises:
        MissingExtraError: its library is not installed.
    """
    module, _, name = spec.partition(":")
    factory: Callable[[], EngineBuilder] = getattr(importlib.import_module(module), name)
    return factory()


def typed_form(content: bytes, precision: Precision) -> bytes:
    """`graph.with_precision`; a graph that contradicts itself is a ModelError too.

    Raises:
        ModelError: names the node.
    """
    from onnx.shape_inference import InferenceError

    try:
        return graph.with_precision(content, precision)
    except InferenceError as error:
        raise ModelError(f"the segment contradicts itself: {error}",
                         hint="Export the run again with this version of edgepkd.") from error
