"""How this process keeps memory that it freed."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_BYTES, _TRIM_BYTES = 32 << 20, 64 << 20


def keep_freed_memory() -> None:
    """Keep up to 64 MB of freed memory, for processes that are edgepkd's own.

    Pictures and fields come and go with every GOP. Whether glibc gives their pages back to the
    system each time, to ask for them again at once, hangs on where small blocks happen to lie; it
    cost 20 % of decoding. Does nothing without glibc, or where its own variables are set.
    """
    if any(f"MALLOC_{name}_THRESHOLD_" in os.environ for name in ("TRIM", "MMAP")):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
