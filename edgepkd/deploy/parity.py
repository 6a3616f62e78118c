"""Does what is deployed answer as the network it came from? Differences and agreement per exit.

Logits of labelled clips are compared between forms of one cascade: the FP32 networks, the quantised
ones in torch, the exported segments on a backend. Each exported segment gets the features of the
exported one before it, as on a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgepkd.cascade import Floats
from edgepkd.config import MODALITIES, NUM_EXITS, Modality
from edgepkd.errors import ModelError
from edgepkd.libraries import openvino
from edgepkd.logits.clip_logits import ModalityLogits

Array = npt.NDArray[np.float32]
Segments: TypeAlias = Mapping[tuple[Modality, int], bytes]

ENOUGH_CLIPS = 50
"""Fewer say little about agreement."""


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
    agreement: float
    """Share of clips with the same top label."""
    num_clips: int


def compare(
    answers: Mapping[str, ModalityLogits], pairs: Sequence[tuple[str, str]]
) -> tuple[ExitParity, ...]:
    """Every exit of each pair (form, against) of `answers`."""
    rows = []
    for form, against in pairs:
        for modality in [m for m in MODALITIES if m in answers[form]]:
            a, b = answers[form][modality], answers[against][modality]
            gap, same = np.abs(a - b), a.argmax(axis=-1) == b.argmax(axis=-1)
            rows += [ExitParity(modality, k + 1, form, against, float(gap[:, k].max()),
                                float(gap[:, k].mean()), float(same[:, k].mean()), len(a))
                     for k in range(NUM_EXITS)]
    return tuple(rows)


def check_agreement(
    rows: Sequence[ExitParity], *, form: str, against: str, floor: float
) -> tuple[str, ...]:
    """Exits of which `form` and `against` agree on fewer clips than `floor` says, in words."""
    return tuple(
        f"{row.modality}_{row.exit} of {form} gives the label of {against} for"
        f" {100 * row.agreement:.1f} % of {row.num_clips} clips; allowed: {100 * floor:g} % or more"
        for row in rows if (row.form, row.against) == (form, against) and row.agreement < floor)


def refuse_drift(drifts: Sequence[str]) -> None:
    """Raise unless every exit agrees.

    Raises:
        ModelError: names the exits.
    """
    if drifts:
        raise ModelError(f"{'; '.join(drifts)}.",
                         hint="Look at the parity report; quantise by QAD, keep sensitive layers"
                              " float, or pass --allow-drift, which the manifest then records.")


def parity_facts(rows: Sequence[ExitParity], *, drifts: Sequence[str]) -> dict[str, Any]:
    """A parity report as plain JSON values; `drifts` were allowed."""
    return {"exits": [asdict(row) for row in rows], "allowed_drift": list(drifts)}


def format_parity(rows: Sequence[ExitParity]) -> str:
    """A Markdown table: an exit a row, a pair of forms a column."""
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
