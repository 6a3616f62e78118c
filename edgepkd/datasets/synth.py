"""A small action set made by a program: a textured shape on a textured ground, moving.

The motion is the label and nothing else is: all classes are shown in every scene (the group), with
the same shape, texture, ground, size and place. A network that looks at one picture learns nothing.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
import numpy as np
from numpy.typing import NDArray

from edgepkd.datasets.training_form import Encoded, encode
from edgepkd.video.transforms import TRAINING_HEIGHT_PX, TRAINING_WIDTH_PX
from edgepkd.video.video_input import VideoInput, default_stream

Uint8 = NDArray[np.uint8]

MOTIONS = ("right", "left", "rotate", "expand", "up", "down", "shrink", "shake")
FPS = 25
_FINER = 3
"""Texels for each pixel, so that a shape can move by less than a pixel."""
_REACH_PX = 60.0
"""No shape reaches further from its middle, at scale 1."""
_DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Pose:
    """Where the shape is in one frame."""

    x_px: float
    y_px: float
    angle_rad: float
    scale: float


@dataclass(frozen=True, eq=False)
class Scene:
    """What stays the same in all clips of a group."""

    ground: Uint8
    """[rows, columns, 3] RGB."""
    texture: Uint8
    """[rows, columns, 3] RGB, _FINER texels for each pixel."""
    mask: NDArray[np.bool_]
    """Which texels are the shape, [rows, columns]."""
    centre_px: tuple[float, float]
    speed_px: float
    """Per frame."""
    turn_rad: float
    """Per frame; the sign differs between scenes."""


def make_scene(number: int, *, seed: int) -> Scene:
    """Scene `number` of the set with this seed."""
    rng = np.random.default_rng([seed, number])
    # A turned square of this size holds all that a pose can ask for.
    side = int(2 * 1.45 * _REACH_PX * _FINER)
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) / _FINER
    shapes = (np.hypot(x, y), np.maximum(abs(x), abs(y)) * 1.15, (abs(x) + abs(y)) * 0.8)
    return Scene(
        ground=_blocks(rng, TRAINING_HEIGHT_PX, TRAINING_WIDTH_PX, low=60, high=160,
                       block_px=int(rng.integers(8, 17))),
        texture=_blocks(rng, side, side, block_px=6 * _FINER, low=20, high=240),
        mask=shapes[rng.integers(3)] < rng.uniform(34, 46),
        centre_px=(TRAINING_WIDTH_PX / 2 + rng.uniform(-25, 25),
                   TRAINING_HEIGHT_PX / 2 + rng.uniform(-15, 15)),
        speed_px=rng.uniform(2.0, 3.2), turn_rad=rng.choice([-1, 1]) * rng.uniform(0.07, 0.12),
    )


def make_clip(motion: str, scene: Scene, *, num_frames: int) -> Encoded:
    """One clip in training form."""
    return encode(_as_video(motion, [
        render(scene, pose(motion, scene, t=t, num_frames=num_frames)) for t in range(num_frames)
    ]))


def pose(motion: str, scene: Scene, *, t: int, num_frames: int) -> Pose:
    """The shape's pose in frame `t`; every path has its middle at the scene's centre."""
    x, y = scene.centre_px
    angle, scale, since_middle = 0.0, 1.0, t - (num_frames - 1) / 2
    if motion in _DIRECTIONS:
        across, down = _DIRECTIONS[motion]
        # Twice the way up and down would leave the picture.
        x += across * scene.speed_px * since_middle
        y += down * scene.speed_px * since_middle * 0.7
    elif motion == "rotate":
        angle = scene.turn_rad * since_middle
    elif motion == "shake":
        x += 4 * scene.speed_px * np.sin(2 * np.pi * t / 9)
    else:
        way = since_middle / max(1, num_frames - 1)  # -0.5..0.5
        scale = float(1.6 ** (2 * way if motion == "expand" else -2 * way))
    return Pose(float(x), float(y), angle, scale)


def render(scene: Scene, where: Pose) -> Uint8:
    """A frame, uint8 [rows, columns, 3] RGB; the shape is placed to a third of a pixel."""
    picture = scene.ground.copy()
    rows, columns = picture.shape[:2]
    reach = _REACH_PX * where.scale
    top, bottom = max(0, int(where.y_px - reach)), min(rows, int(where.y_px + reach) + 1)
    left, right = max(0, int(where.x_px - reach)), min(columns, int(where.x_px + reach) + 1)
    y = (np.arange(top, bottom, dtype=np.float32)[:, None] - where.y_px) / where.scale
    x = (np.arange(left, right, dtype=np.float32)[None] - where.x_px) / where.scale
    cos, sin = np.cos(where.angle_rad), np.sin(where.angle_rad)
    column = ((x * cos + y * sin) * _FINER + scene.texture.shape[1] / 2).astype(np.intp)
    row = ((y * cos - x * sin) * _FINER + scene.texture.shape[0] / 2).astype(np.intp)
    is_shape = scene.mask[row, column]
    picture[top:bottom, left:right][is_shape] = scene.texture[row[is_shape], column[is_shape]]
    return picture


def _blocks(
    rng: np.random.Generator, rows: int, columns: int, *, block_px: int, low: int, high: int
) -> Uint8:
    """Random colours in blocks, [rows, columns, 3]."""
    shape = rows // block_px + 1, columns // block_px + 1, 3
    coarse = rng.integers(low, high, shape, dtype=np.uint8)
    return coarse.repeat(block_px, 0).repeat(block_px, 1)[:rows, :columns]


def _as_video(name: str, frames: list[Uint8]) -> VideoInput:
    """Frames as an uncompressed source in memory, so that `encode` treats them as any other."""
    content = io.BytesIO()
    with av.open(content, "w", format="nut") as container:
        stream = container.add_stream("rawvideo", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = (
            TRAINING_WIDTH_PX, TRAINING_HEIGHT_PX, "rgb24")
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    content.seek(0)
    opened = av.open(content, "r", format="nut")
    return VideoInput(name, opened, default_stream(opened, name))
