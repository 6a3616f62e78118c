"""Clips that the tests make for themselves: textures that move by known amounts, encoded by PyAV.

No test media is kept in the repository.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Frames = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]


def encode_clip(
    path: Path | str,
    frames: Frames,
    *,
    codec: str = "mpeg4",
    gop: int = 12,
    fps: int | Fraction = 25,
    max_b_frames: int = 0,
    quality: int = 2,
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    container_format: str | None = None,
    pts: Sequence[int] | None = None,
) -> Path:
    """Encode RGB `frames` [n, H, W, 3] to `path` and return it.

    `quality` is the fixed quantiser (mpeg4 and its kin) or the CRF (libx264), low is good.
    `pts` are frame numbers in units of 1/fps, for uneven time steps.
    """
    path = Path(path)
    height, width = frames[0].shape[:2]
    choices = dict(options or {})
    with av.open(str(path), "w", format=container_format) as container:
        if codec == "libx264":
            choices.setdefault("crf", str(quality))
            choices.setdefault("preset", "veryfast")
            choices.setdefault("threads", "1")
            if gop >= 1:
                choices.setdefault("sc_threshold", "0")
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        context.gop_size = gop
        context.max_b_frames = max_b_frames
        context.thread_count = 1
        if codec != "libx264":
            context.flags |= av.codec.context.Flags.qscale
            context.global_quality = quality * 118  # FF_QP2LAMBDA
            choices.setdefault("sc_threshold", "1000000000")
        stream.options = choices
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            frame.pts = number if pts is None else pts[number]
            frame.time_base = 1 / Fraction(fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_display_matrix(path: Path, matrix: Sequence[int], *, name: str = "turned.mp4") -> Path:
    """A copy of an MP4 with the nine numbers of `matrix` in its track header, as they are."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    assert data[at - 40] == 0, "only track headers of version 0"
    data[at : at + 36] = struct.pack(">9i", *matrix)
    out = path.with_name(name)
    out.write_bytes(data)
    return out


def translating_texture(
    num_frames: int,
    size: tuple[int, int],
    step_px: tuple[float, float],
    *,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """RGB frames [n, H, W, 3] of a texture that moves by `step_px` (x, y) pixels a frame.

    `size` is (width, height). The texture is a sum of waves, each shifted in phase, so any
    sub-pixel step is exact; + is right and down.
    """
    width, height = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = []
    for _ in range(40):
        # Wave lengths of 6 to 60 px: detail enough to match, smooth enough to interpolate.
        length = float(np.exp(rng.uniform(np.log(6), np.log(60))))
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        waves.append((np.cos(angle) * 2 * np.pi / length, np.sin(angle) * 2 * np.pi / length,
                      phase, np.sqrt(length)))
    scale = 55.0 / np.sqrt(sum(w[3] ** 2 for w in waves) / 2)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for t in range(num_frames):
        picture = np.full((height, width), 128.0, np.float32)
        for kx, ky, phase, power in waves:
            shift = np.float32(phase - kx * step_px[0] * t - ky * step_px[1] * t)
            picture += np.float32(scale * power) * np.cos(
                np.float32(kx) * x + np.float32(ky) * y + shift)
        frames[t] = np.clip(picture, 0, 255).astype(np.uint8)[..., None]
    return frames


def moving_scene(
    num_frames: int, size: tuple[int, int] = (96, 64), *, seed: int = 0
) -> NDArray[np.uint8]:
    """RGB frames of a coloured square that moves over a still, noisy background.

    A cheap picture with zero, non-zero and intra blocks for the tests that need no exact motion.
    """
    width, height = size
    rng = np.random.default_rng(seed)
    background = rng.integers(60, 120, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    background = background.repeat(4, 0).repeat(4, 1)[:height, :width]
    side = min(width, height) // 3
    square = rng.integers(130, 250, (side // 2 + 1, side // 2 + 1, 3), dtype=np.uint8)
    square = square.repeat(2, 0).repeat(2, 1)[:side, :side]
    frames = np.repeat(background[None], num_frames, 0)
    for t in range(num_frames):
        left, top = (3 * t) % (width - side), (2 * t) % (height - side)
        frames[t, top : top + side, left : left + side] = square
    return frames


def right_and_left(folder: Path, *, num_frames: int = 60) -> Path:
    """`folder` with right.mp4 and left.avi: texture that moves; 60 frames are five GOPs."""
    encode_clip(folder / "right.mp4", translating_texture(num_frames, (160, 96), (2, 0)))
    encode_clip(folder / "left.avi", translating_texture(num_frames, (160, 96), (-2, 0)))
    return folder
