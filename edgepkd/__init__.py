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

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgepkd._version import __version__ as __version__

if TYPE_CHECKING:
    from edgepkd.cascade import Position as Position
    from edgepkd.runtime.answers import ClipAnswer as ClipAnswer
    from edgepkd.runtime.model import Model as Model
    from edgepkd.runtime.model import load as load

__all__ = ["ClipAnswer", "Model", "Position", "__version__", "errors", "load", "video"]

_HOMES = {
    "ClipAnswer": "edgepkd.runtime.answers", "Model": "edgepkd.runtime.model",
    "Position": "edgepkd.cascade", "load": "edgepkd.runtime.model",
}


def __getattr__(name: str) -> Any:
    if name in ("errors", "video"):
        return import_module(f"edgepkd.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'edgepkd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
