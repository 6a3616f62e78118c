"""A runner without networks: answers what a test told it to, and counts every call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from edgepkd.cascade import Position
from edgepkd.runtime.runner import Array, Features, closed


class FakeRunner:
    """Gives the logits of `answers` ([classes] per position); zeros where there are none.

    Attributes:
        calls: how often each position ran. prepared: how often each was made ready.
        closed: how often it was closed.
    """

    backend = "fake"

    def __init__(self, answers: Mapping[Position, Array], *, num_classes: int) -> None:
        """Make a runner that knows `answers`."""
        self._answers = answers
        self._zeros = np.zeros(num_classes, np.float32)
        self.calls: Counter[Position] = Counter()
        self.prepared: Counter[Position] = Counter()
        self.closed = 0

    def prepare(self, position: Position) -> None:
        """Count."""
        if self.closed:
            raise closed(self.backend)
        self.prepared[position] += 1

    def run(self, position: Position, x: Array | Features) -> tuple[Features, Array]:
        """Count, check that segments of a network come in sequence, and answer."""
        if self.closed:
            raise closed(self.backend)
        self.calls[position] += 1
        if position.exit == 1:
            assert isinstance(x, np.ndarray)
            frames = len(x)
        else:
            before, frames = x  # type: ignore[misc]
            assert before == Position(position.modality, position.exit - 1)
        logits = self._answers.get(position, self._zeros)
        return (position, frames), np.tile(logits, (frames, 1))

    def close(self) -> None:
        """Count."""
        self.closed += 1
