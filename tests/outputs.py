"""Places to write to, as a command finds them."""

from __future__ import annotations

from pathlib import Path

from edgepkd.outputs import Output, check_outputs


def place(out: Path) -> Output:
    """`out`, which may be replaced."""
    (found,) = check_outputs([("--save", out)], force=True)
    return found
