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

_MOTION_VECTORS = Type.MOTION_VECTORS
_NO_WORDS: NDArray[np.int32] = np.empty(0, np.int32)


def vector_words(frame: VideoFrame) -> NDArray[np.int32]:
    """The exported vectors (FFmpeg's AVMotionVector) as int32 words, 10 per vector; empty where
    the frame has none.

    The view pins the frame. Some bytes of a vector are padding that nobody wrote.

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
