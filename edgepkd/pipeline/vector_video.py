"""The source's pictures with arrows for the motion that was written of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgepkd.pipeline.vector_arrays import Arrays
from edgepkd.runtime.arrows import arrows, draw_arrows
from edgepkd.runtime.caption import Caption, CaptionBar
from edgepkd.runtime.video_writer import Bytes

NAME = "motion.mp4"
_SAME_TIME_S = 1e-6


class MotionOverlay:
    """Draws the motion at a time, out of the files of a folder, one of which is held at a time."""

    def __init__(self, files: Sequence[tuple[float, Path]]) -> None:
        """`files` are (start in seconds, path) in order; frames are drawn on in order, too."""
        self._files, self._next = files, 0
        self._arrays: Arrays = {}

    def draw(self, planes: list[Bytes], time_s: float) -> None:
        """Draw arrows and a caption into Y, U and V of the frame at `time_s`."""
        self._load(time_s)
        arrays = self._arrays
        if not arrays:
            return
        t = int(np.searchsorted(arrays["times_s"], time_s + _SAME_TIME_S, side="right")) - 1
        height, width = planes[0].shape
        draw_arrows(planes, arrows(
            arrays["motion"][t], size_px=(width, height), unit_px=float(arrays["motion_unit_px"]),
            source_size_px=(int(arrays["motion_width_px"]), int(arrays["motion_height_px"])),
            margins=arrays["motion_margins"].tolist()))
        gop = int(arrays["iframe_index"][t])
        since = t - int(np.searchsorted(arrays["iframe_index"], gop))
        CaptionBar(Caption(f"{time_s:.2f} s", f"GOP {int(arrays['gop_index'][gop])}, frame {since}:"
                           " motion since its I-frame"), width=width, height=height).draw(planes)

    def _load(self, time_s: float) -> None:
        before = self._next
        while self._next < len(self._files) and (
                self._files[self._next][0] <= time_s + _SAME_TIME_S):
            self._next += 1
        if self._next > before:
            with np.load(self._files[self._next - 1][1], allow_pickle=False) as file:
                self._arrays = {name: file[name] for name in file.files
                                if name not in ("residual", "iframe")}
