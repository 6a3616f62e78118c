"""How pictures are turned to be looked at: the eight orientations of a square.

A display matrix (MP4, MOV, Matroska, H.264 SEI) is read as the ffmpeg tool reads it. One that says
nothing, such as all zeros, leaves pictures as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from av.sidedata.sidedata import Type

from edgepkd.video.side_data import side_data

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray


class Margins(NamedTuple):
    """Widths along the four sides of a picture, in whatever unit the picture has."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Orientation:
    """What is done to a decoded picture: mirrored left to right or not, then turned."""

    quarter_turns: int = 0
    """Counter-clockwise, 0..3."""
    mirrored: bool = False

    def turned(self, array: NDArray[Any]) -> NDArray[Any]:
        """`array` [H, W, ...] as it is looked at, contiguous; the array itself if upright."""
        if self == UPRIGHT:
            return array
        mirrored = array[:, ::-1] if self.mirrored else array
        return np.ascontiguousarray(np.rot90(mirrored, self.quarter_turns))

    def turned_field(self, field: NDArray[np.int16]) -> NDArray[np.int16]:
        """A motion field [rows, columns, 2] (x, y): the points move, and so do the vectors."""
        if self == UPRIGHT:
            return field
        x, y = field[..., 0], field[..., 1]
        x = -x if self.mirrored else x
        components = ((x, y), (y, -x), (-x, -y), (-y, x))[self.quarter_turns]
        return self.turned(np.stack(components, axis=-1))

    def turned_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height as they are looked at, from those of the decoded picture or back."""
        return (height, width) if self.quarter_turns % 2 else (width, height)

    def turned_margins(self, margins: Margins) -> Margins:
        """What lies along the sides of the decoded picture, along those of the one looked at."""
        left, top, right, bottom = margins
        if self.mirrored:
            left, right = right, left
        for _ in range(self.quarter_turns):
            left, top, right, bottom = top, right, bottom, left
        return Margins(left, top, right, bottom)


UPRIGHT = Orientation()


class Display(NamedTuple):
    """What a display matrix asks for."""

    rotation_deg: int = 0
    """Counter-clockwise, -179..180, after mirroring."""
    mirrored: bool = False
    """Mirrored left to right, before turning."""

    @classmethod
    def of(cls, orientation: Orientation) -> Display:
        """What asks for exactly this."""
        return cls(90 * orientation.quarter_turns, orientation.mirrored)

    @property
    def orientation(self) -> Orientation:
        """The nearest of the eight."""
        return Orientation(round(self.rotation_deg / 90) % 4, self.mirrored)


NO_DISPLAY = Display()


def display_of(frame: VideoFrame, *, before: Display = NO_DISPLAY) -> Display:
    """What the display matrix of `frame` asks for; without one, what was asked for `before` holds.

    A container's matrix is on every frame, that of H.264 SEI on the key frames only.
    """
    try:
        data = side_data(frame, Type.DISPLAYMATRIX)
    except ValueError:
        # PyAV's own reading knows no mirror images, and gives nonsense where there is no angle.
        return Display(frame.rotation) if abs(frame.rotation) <= 180 else NO_DISPLAY
    if data is None:
        return before
    matrix = np.frombuffer(data, np.int32).tolist()
    return display_of_matrix(matrix) if len(matrix) == 9 else NO_DISPLAY


def display_of_matrix(matrix: Sequence[int]) -> Display:
    """What the nine numbers of a display matrix (ISO/IEC 14496-12, 6.2.2) ask for.

    Scale, shear and shift are left out. A matrix without an inverse shows no picture at all; no
    player takes it at its word.
    """
    a, b, _, c, d = matrix[:5]
    determinant = a * d - b * c
    if not determinant:
        return NO_DISPLAY
    clockwise = math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c)))
    # The angle is that of the x axis, which mirroring left to right turns half round.
    degrees = -round(clockwise) + (180 if determinant < 0 else 0)
    return Display(180 - (180 - degrees) % 360, determinant < 0)
