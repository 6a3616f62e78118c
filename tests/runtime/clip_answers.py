"""Answers to clips, made by hand."""

from __future__ import annotations

from typing import Any

from edgepkd.cascade import Position
from edgepkd.runtime.answers import ClipAnswer, DecodeCounts, ScoredLabel

ALL = tuple(Position(m, k) for m in ("mv", "residual", "iframe") for k in (1, 2, 3, 4))


def answer_at(exit_number: int, **changes: Any) -> ClipAnswer:
    """The answer to a clip that left the cascade mv, residual, iframe at position `exit_number`."""
    values: dict[str, Any] = {
        "index": 0, "start_s": 0.5, "end_s": 2.0, "label": "right", "confidence": 0.75,
        "top_k": (ScoredLabel("right", 0.75), ScoredLabel("left", 0.25)),
        "exit": ALL[exit_number - 1], "exit_number": exit_number,
        "segments_run": ALL[:exit_number], "segments_skipped": ALL[exit_number:],
        "read_ms": 1.0, "decode_ms": 2.0, "load_ms": 3.0, "nets_ms": 4.0, "decision_ms": 0.5,
        "gmac": 0.25 * exit_number, "gmac_static": 3.0,
        "decode": DecodeCounts(packets_decoded=5, packets_skipped=7),
        "probabilities": (0.25, 0.75), **changes}
    return ClipAnswer(**values)
