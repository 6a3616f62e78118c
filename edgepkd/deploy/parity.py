"""Does what is exported compute what the network it came from does? Differences per exit.

Logits of clips are compared between forms of one cascade: the FP32 networks, the quantised ones in
torch, the exported segments on a backend. Each exported segment gets the features of the exported
one before it, as on a device. Exits are held against the size of differences alone: which of two
labels that are nearly equal is on top says nothing. `gate` judges what is answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgepkd.cascade import Floats
from edgepkd.config import MODALITIES, NUM_EXITS, Modality
from edgepkd.libraries import openvino
from edgepkd.logits.clip_logits import ModalityLogits

Array = npt.NDArray[np.float32]
Segments: TypeAlias = Mapping[tuple[Modality, int], bytes]

ENOUGH_CLIPS = 50
"""Fewer say little about agreement."""
MAX_RELATIVE = 0.25
"""Of the logits' spread: how far an exported exit may be from its twin. Rounding of INT8 steps made
0.003 to 0.1 on nine networks; 8-bit sums that overflow, 0.2 to 0.45 of the largest logit."""
HARMLESS = 0.02
"""Differences (root mean square) up to here never count: some exits say nothing."""


class SegmentChain:
    """The exported segments of one network, compiled and run one after the other as a device
    compiles and runs them (`runtime.openvino_runner`)."""

    def __init__(self, exported: Segments, modality: Modality, *, frames: int) -> None:
        """Compile the segments of `modality` for batches of `frames`."""
        self._segments = [
            openvino.ReadySegment(openvino.compile_segment(exported[modality, k], frames=frames))
            for k in range(1, NUM_EXITS + 1)
        ]

    def __call__(self, x: Array) -> list[Array]:
        """Frames [N, C, H, W] -> logits of the four exits, each [N, classes]."""
        answers, features = [], x
        for segment in self._segments:
            features, logits = segment.run(features)
            answers.append(logits)
        return answers

    def clip_logits(self, x: Array) -> Floats:
        """Network input [passes, C, H, W] of a clip -> [4, classes], the mean over passes."""
        return np.stack([logits.mean(axis=0, dtype=np.float64) for logits in self(x)])


@dataclass(frozen=True)
class ExitParity:
    """One exit, one form against another, over `num_clips` clips."""

    modality: Modality
    exit: int
    form: str
    against: str
    max_difference: float
    """Largest difference of a logit."""
    mean_difference: float
    rms_difference: float
    """Root mean square of what differs, a shift common to all classes of a clip left out."""
    relative_difference: float
    """The same as a share of the spread of the logits of `against`."""
    agreement: float
    """Share of clips with the same top label."""
    num_clips: int


def compare(
    answers: Mapping[str, ModalityLogits], pairs: Sequence[tuple[str, str]]
) -> tuple[ExitParity, ...]:
    """Every exit of each pair (form, against) of `answers`."""
    return tuple(
        _compare(answers[form][modality][:, k], answers[against][modality][:, k],
                 modality=modality, exit=k + 1, form=form, against=against)
        for form, against in pairs for modality in MODALITIES if modality in answers[form]
        for k in range(NUM_EXITS))


def _compare(a: Floats, b: Floats, **names: Any) -> ExitParity:
    """Logits [N, classes] of one exit in two forms."""
    gap = np.abs(a - b)
    rms, spread = _spread(a - b), _spread(b)
    return ExitParity(
        **names, max_difference=float(gap.max()), mean_difference=float(gap.mean()),
        rms_difference=rms, relative_difference=rms / spread if spread else float(rms > 0),
        agreement=float((a.argmax(axis=1) == b.argmax(axis=1)).mean()), num_clips=len(a))


def _spread(logits: Floats) -> float:
    """Root mean square over clips and classes, the mean over the classes of a clip left out."""
    return float(np.sqrt(np.mean((logits - logits.mean(axis=1, keepdims=True)) ** 2)))


def export_faults(rows: Sequence[ExitParity], *, form: str, against: str) -> tuple[str, ...]:
    """Exits of `form` whose logits are further from those of `against` than rounding goes.

    Both compute the same steps, so that a difference of `MAX_RELATIVE` of the logits' spread is a
    fault of the export or of the library, on however few clips it is seen.
    """
    return tuple(
        f"logits of {row.modality}_{row.exit} of {form} differ from those of {against} by"
        f" {100 * row.relative_difference:.0f} % of their spread ({row.num_clips} clips);"
        f" allowed: {100 * MAX_RELATIVE:g} %"
        for row in rows if (row.form, row.against) == (form, against)
        and row.relative_difference > MAX_RELATIVE and row.rms_difference > HARMLESS)


def format_parity(rows: Sequence[ExitParity]) -> str:
    """A Markdown table: an exit a row, a pair of forms a column; single exits are not judged."""
    pairs = list(dict.fromkeys((row.form, row.against) for row in rows))
    by_exit = {(r.modality, r.exit, r.form, r.against): r for r in rows}
    lines = ["| exit | " + " | ".join(f"{form} against {against}: same label, largest and mean "
                                      "difference of a logit" for form, against in pairs) + " |",
             "|---|" + "---|" * len(pairs)]
    for modality, k in dict.fromkeys((row.modality, row.exit) for row in rows):
        cells = [by_exit[modality, k, form, against] for form, against in pairs]
        lines.append(f"| {modality}_{k} | " + " | ".join(
            f"{100 * c.agreement:.1f} %, {c.max_difference:.2g}, {c.mean_difference:.1g}"
            for c in cells) + " |")
    return "\n".join(lines)
