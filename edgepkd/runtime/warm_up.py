"""Loads the decoding kernels before the first clip, so that its time is its own.

On a new machine they are compiled once (seconds) and cached; later they are only loaded. Without
this the first clip of every run would be charged for it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame

from edgepkd.config import ClipSpec, DecodeSpec, InputSpec, Modality
from edgepkd.video.clips import ClipReader
from edgepkd.video.video_input import VideoInput

WIDTH_PX, HEIGHT_PX, NUM_FRAMES = 64, 48, 6


def warm_up_decoding(
    *, inputs: Mapping[Modality, InputSpec], clip: ClipSpec, decode: DecodeSpec
) -> None:
    """Decode a tiny moving picture into a tensor of each modality of `inputs`, as a small source
    and as one that is too large to be worked on at its own size."""
    for side_px in (decode.max_short_side_px, HEIGHT_PX - 1):
        _decode(inputs=inputs, clip=clip, decode=replace(decode, max_short_side_px=side_px))


def _decode(
    *, inputs: Mapping[Modality, InputSpec], clip: ClipSpec, decode: DecodeSpec
) -> None:
    container = av.open(_moving_picture(), mode="r")
    video = VideoInput("warm-up", container, container.streams.video[0])
    with ClipReader(video, clip=clip, inputs=inputs, decode=decode) as reader:
        for window in reader:
            for modality in inputs:
                window.tensor(modality)


def _moving_picture() -> io.BytesIO:
    """An MPEG-4 file in memory: one GOP of noise that moves to the right."""
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for t in range(NUM_FRAMES):
            frame = VideoFrame.from_ndarray(np.roll(noise, 2 * t, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    return file
