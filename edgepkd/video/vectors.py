"""Motion vectors of a decoded frame, without the leak and without a copy (decode.md 1.2, 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from av.sidedata.sidedata import Type

from edgepkd.errors import DecodeError
from edgepkd.video.side_data import container

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

MV_DTYPE = np.dtype({
    "names": ["source", "w", "h", "src_x", "src_y", "dst_x", "dst_y", "flags",
              "motion_x", "motion_y", "motion_scale"],
    "formats": ["<i4", "u1", "u1", "<i2", "<i2", "<i2", "<i2", "<u8", "<i4", "<i4", "<u2"],
    "offsets": [0, 4, 5, 6, 8, 10, 12, 16, 24, 28, 32],
    "itemsize": 40,
})
"""AVMotionVector. Bytes 14, 15 and 34 to 39 are padding that nobody wrote: compare fields, never
raw bytes."""
_MOTION_VECTORS = Type.MOTION_VECTORS
_NO_WORDS: NDArray[np.int32] = np.empty(0, np.int32)


def vector_words(frame: VideoFrame) -> NDArray[np.int32]:
    """The exported vectors as int32 words, 10 per vector; empty where the frame has none.

    The view pins the frame.

    Raises:
        DecodeError: the frame carries something that PyAV does not know, which hides its vectors.
    """
    try:
        exported = container(frame).get(_MOTION_VECTORS)  # `side_data`, for every frame
    except ValueError as error:
        raise DecodeError(f"The motion vectors of a frame cannot be read: {error}.",
                          hint="Use --route normalize, which re-encodes the stream.") from error
    if exported is None:
        return _NO_WORDS
    return np.frombuffer(exported, np.int32)


def motion_vectors(frame: VideoFrame) -> NDArray[np.void]:
    """The exported vectors as a structured array of `MV_DTYPE` [n]; the view pins the frame.

    `dst` is the block's centre in this frame; the block comes from `dst + motion/motion_scale` in
    the reference.
    """
    return vector_words(frame).view(MV_DTYPE)
