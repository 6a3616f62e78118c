"""The border between the cascade and whatever computes a segment: one small contract."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgepkd.cascade import Position
from edgepkd.errors import ModelError

Array: TypeAlias = NDArray[np.float32]
Features: TypeAlias = object
"""A handle that the runner owns: activations that stay on the device. Valid until the segment
that made it runs again."""


class SegmentRunner(Protocol):
    """Computes single segments of one bundle; knows nothing of order, thresholds or video."""

    @property
    def backend(self) -> str:
        """Name, version and device, for reports: 'openvino 2026.4.1 CPU'."""

    def prepare(self, position: Position) -> None:
        """Make the segment at `position` ready to run; cheap if it is already.

        Raises:
            BundleError: what the bundle holds for it is not what it held when it was read.
            ModelError: the backend cannot load this segment, or the runner is closed.
        """

    def run(self, position: Position, x: Array | Features) -> tuple[Features, Array]:
        """Run one segment: `x` is float32 [S, C, H, W] for exit 1, else the features before it.

        Returns the features for the next segment and logits float32 [S, classes].

        Raises:
            BundleError: as `prepare`, if that was not called.
            ModelError: the backend fails on this segment, or the runner is closed.
        """

    def close(self) -> None:
        """Let go of all that the runner opened: segments, and memory of the device. Harmless if
        done before; `prepare` and `run` then raise `closed`."""


def closed(backend: str) -> ModelError:
    """What a runner raises that is used after `close`."""
    return ModelError(f"the runner on {backend} is closed; allowed: only a runner that is open.",
                      hint="Load the model again: edgepkd.load(...)")
