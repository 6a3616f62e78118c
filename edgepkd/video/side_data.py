"""What a decoded frame carries beside its picture, without the leak (decode.md 1.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from av.sidedata.sidedata import SideDataContainer, Type

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

container: Any = SideDataContainer
"""Its stub does not know its constructor."""


def side_data(frame: VideoFrame, kind: Type) -> Any:
    """The item of `kind` as a buffer that pins the frame, None without one.

    `frame.side_data` would tie frame and container in a reference cycle that only the cyclic
    garbage collector ends, so the container is made by hand.

    Raises:
        ValueError: the frame also carries a kind that PyAV does not know (EXIF), which hides all.
    """
    return container(frame).get(kind)
