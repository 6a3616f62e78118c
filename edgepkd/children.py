"""Python processes that this one starts: none of them looks for modules in the current folder.

A folder with videos may hold a `json.py`, which is no part of Python. An interpreter that is told
its program on the command line, as multiprocessing does, would import it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path


def module_path() -> list[str]:
    """Where a child looks for modules: as this process does, but not in the current folder."""
    path = [place for place in sys.path if os.path.isabs(place)]
    own = str(Path(__file__).resolve().parents[1])
    if own not in path:  # it was found in the current folder: after Python's own, before others
        packages = (index for index, place in enumerate(path) if place.endswith("-packages"))
        path.insert(next(packages, len(path)), own)
    return path


def start_safely() -> None:
    """Start the processes of multiprocessing without the current folder on their path.

    They are told the path of this process before they import anything of it.
    """
    from multiprocessing import util

    # The one place where flags of the interpreter come from; there is no public one.
    flags: Callable[[], list[str]] = util._args_from_interpreter_flags  # type: ignore[attr-defined]
    flag = "-P" if sys.version_info >= (3, 11) else "-I"
    if flag not in flags():
        util._args_from_interpreter_flags = lambda: [*flags(), flag]  # type: ignore[attr-defined]
