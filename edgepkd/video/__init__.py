"""Source → packets → GOP (lazy) → fields → clips; numpy in and out.

`source` opens, `probe` looks, `routes` chooses, `stream` reads part by part, `normalize`
re-encodes what has no usable vectors, `gop` cuts and decodes on demand, `clips` makes what a
network reads. What is named here is for users of the package, and is imported when it is first
used; inside of it, import from the modules.

>>> import edgepkd.video
>>> with edgepkd.video.open("clip.mp4") as clips:
...     gop = next(clips.gops())
...     print(gop.iframe().shape, gop.motion(5).shape, gop.residual(5).shape)
(256, 455, 3) (256, 455, 2) (256, 455, 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepkd._lazy import lazy_names

if TYPE_CHECKING:
    from edgepkd.config import DecodeSpec as DecodeSpec
    from edgepkd.video.clips import Clip as Clip
    from edgepkd.video.clips import ClipReader as ClipReader
    from edgepkd.video.gop import Gop as Gop
    from edgepkd.video.limits import Limits as Limits
    from edgepkd.video.opening import open as open
    from edgepkd.video.probe import StreamInfo as StreamInfo
    from edgepkd.video.routes import RouteChoice as RouteChoice

__all__ = [
    "Clip", "ClipReader", "DecodeSpec", "Gop", "Limits", "RouteChoice", "StreamInfo", "open",
]

if not TYPE_CHECKING:  # else a type checker would find any name here
    __getattr__, __dir__ = lazy_names(__name__, {
        "Clip": "edgepkd.video.clips", "ClipReader": "edgepkd.video.clips",
        "DecodeSpec": "edgepkd.config", "Gop": "edgepkd.video.gop",
        "Limits": "edgepkd.video.limits", "RouteChoice": "edgepkd.video.routes",
        "StreamInfo": "edgepkd.video.probe", "open": "edgepkd.video.opening",
    })
