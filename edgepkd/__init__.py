"""edgepkd: early-exit action recognition from compressed video on small GPUs.

>>> import edgepkd
>>> with edgepkd.load() as model:
...     for clip in model.run("clip.mp4", clips=1):
...         print(clip.label, f"{clip.confidence:.2f}", clip.exit)
no_fight 0... ...

`load` answers on videos; `edgepkd.video` gives motion vectors, residuals and I-frames as arrays.
Importing this package imports nothing heavy: what a name needs comes with its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepkd._lazy import lazy_names
from edgepkd._version import __version__ as __version__

if TYPE_CHECKING:
    from edgepkd import errors as errors
    from edgepkd import video as video
    from edgepkd.cascade import Position as Position
    from edgepkd.runtime.answers import ClipAnswer as ClipAnswer
    from edgepkd.runtime.model import Model as Model
    from edgepkd.runtime.model import load as load

__all__ = ["ClipAnswer", "Model", "Position", "__version__", "errors", "load", "video"]

if not TYPE_CHECKING:  # else a type checker would find any name here
    __getattr__, __dir__ = lazy_names(__name__, {
        "ClipAnswer": "edgepkd.runtime.answers", "Model": "edgepkd.runtime.model",
        "Position": "edgepkd.cascade", "__version__": "edgepkd._version",
        "errors": "edgepkd.errors", "load": "edgepkd.runtime.model", "video": "edgepkd.video",
    })
