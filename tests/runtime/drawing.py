"""What the tests of annotated video share: pictures, an answer, the bar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from edgepkd.cascade import Position, positions
from edgepkd.runtime.annotate import save_annotated
from edgepkd.runtime.answers import ClipAnswer, DecodeCounts, ScoredLabel
from tests.outputs import place

FPS = 25


def answer(start_s: float, end_s: float, *, label: str = "wave", index: int = 0) -> ClipAnswer:
    places = positions(("mv",))
    return ClipAnswer(
        index=index, start_s=start_s, end_s=end_s, label=label, confidence=0.9,
        top_k=(ScoredLabel(label, 0.9),), exit=Position("mv", 1), exit_number=1,
        segments_run=places[:1], segments_skipped=places[1:], read_ms=0, decode_ms=0, load_ms=0,
        nets_ms=0, decision_ms=0, gmac=0, gmac_static=0, decode=DecodeCounts(), probabilities=())


def grey(count: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    return np.full((count, size[1], size[0], 3), 120, np.uint8)


def save(source: Path, out: Path, answers: Sequence[ClipAnswer], **settings: Any) -> None:
    for _ in save_annotated(str(source), answers, place(out), fps=FPS, **settings):
        pass


def frames(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def has_bar(frame: av.VideoFrame) -> bool:
    """A bar darkens the bottom rows and leaves the top alone."""
    luma = frame.to_ndarray(format="gray").astype(int)
    top = abs(int(luma[4, 4]) - 120) < 12
    assert top, "the picture above the bar must stay as it was"
    return bool(np.median(luma[-3:]) < 80)
