"""What the runtime says about one clip, and how that is written as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from edgepkd.cascade import Position


@dataclass(frozen=True)
class ScoredLabel:
    """A label and its probability at the exit taken."""

    label: str
    confidence: float


@dataclass(frozen=True)
class DecodeCounts:
    """What was decoded for one clip; the proof that what is not needed is not made."""

    packets_read: int = 0
    packets_decoded: int = 0
    packets_skipped: int = 0
    frames_rgb: int = 0
    motion_fields: int = 0
    residuals: int = 0
    errors: int = 0

    @classmethod
    def of(cls, counters: Counters) -> DecodeCounts:
        """A frozen copy of a clip's running counters."""
        return cls(**{field.name: getattr(counters, field.name) for field in fields(cls)})


class Counters(Protocol):
    """The running counters of a clip (video.decoder.DecodeCounters)."""

    packets_read: int
    packets_decoded: int
    packets_skipped: int
    frames_rgb: int
    motion_fields: int
    residuals: int
    errors: int


@dataclass(frozen=True)
class ClipAnswer:
    """One clip's answer, where it was found, and what it cost."""

    index: int
    """Number of the clip within its source, from 0."""
    start_s: float
    end_s: float
    label: str
    confidence: float
    """Probability of `label` at the exit taken."""
    top_k: tuple[ScoredLabel, ...]
    exit: Position
    """Network and exit (1..4) that answered."""
    exit_number: int
    """The same as a position in the cascade, 1-based."""
    segments_run: tuple[Position, ...]
    segments_skipped: tuple[Position, ...]
    read_ms: float
    """Reading packets, and re-encoding on the route 'normalize'."""
    decode_ms: float
    """Decoding, accumulating and transforming what the networks asked for."""
    load_ms: float
    """Compiling segments that were needed for the first time; 0 later on."""
    nets_ms: float
    decision_ms: float
    gmac: float
    """Multiply-accumulates of the segments that ran, all temporal segments, in 1e9."""
    gmac_static: float
    """The same if every segment had run."""
    decode: DecodeCounts
    probabilities: tuple[float, ...]
    """Of every label, at the exit taken, in the order of the bundle's labels."""
    source: str = ""
    """Where the clip is from, as people may see it; '' where a session was handed clips."""

    def as_json(self) -> dict[str, Any]:
        """Plain values for one JSON line; times rounded to microseconds."""
        return {
            "clip": self.index,
            "start_s": round(self.start_s, 6),
            "end_s": round(self.end_s, 6),
            "label": self.label,
            "confidence": self.confidence,
            "top_k": [asdict(scored) for scored in self.top_k],
            "exit": {"network": self.exit.modality, "exit": self.exit.exit,
                     "position": self.exit_number,
                     "of": len(self.segments_run) + len(self.segments_skipped)},
            "ms": {name: round(getattr(self, f"{name}_ms"), 3)
                   for name in ("read", "decode", "load", "nets", "decision")},
            "segments_run": [str(position) for position in self.segments_run],
            "segments_skipped": [str(position) for position in self.segments_skipped],
            "gmac": round(self.gmac, 6),
            "gmac_static": round(self.gmac_static, 6),
            "decode": asdict(self.decode),
        }

    @property
    def modalities_skipped(self) -> tuple[str, ...]:
        """Modalities none of whose segments ran: nothing of them was decoded for this clip."""
        run = {position.modality for position in self.segments_run}
        skipped = dict.fromkeys(position.modality for position in self.segments_skipped)
        return tuple(modality for modality in skipped if modality not in run)
