"""What the programs of this room share: their options, errors as one line, packages they need."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from edgepkd._optional import require
from edgepkd.errors import EdgepkdError
from edgepkd.text import shown

TRAINING = ("torch", "scipy", "safetensors", "modelopt")
PLOTS = ("matplotlib",)
STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""


def start(command: str, *, needs: Sequence[str] = TRAINING) -> int:
    """Run `main` of the module `command` if the packages it needs are there; the exit code."""
    def work() -> int:
        for module in needs:
            require(module, purpose="Training")
        return int(import_module(command).main())

    return reported(work)


def reported(work: Callable[[], int]) -> int:
    """The exit code of `work`; an error that a user can act on, or Ctrl-C, is a line on stderr."""
    try:
        return work()
    except KeyboardInterrupt:
        print("stopped: started again, it goes on from here", file=sys.stderr)
        return STOPPED
    except EdgepkdError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return error.exit_code


def command_parser(program: str, description: str | None, *, out: str) -> argparse.ArgumentParser:
    """A parser with the options that say where a program works, and in how many processes."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, default=Path("../shared/data"), help="folder with labelled clips")
    add("--out", type=Path, default=Path(out), help="where networks and answers go")
    add("--cache", type=Path, default=Path("runs/cache"), help="where decoded clips are kept")
    add("--jobs", type=_processes, default=2, help="processes, one thread each")
    return parser


def study_parser(
    program: str, description: str | None, *, out: str = "runs/reproduce"
) -> argparse.ArgumentParser:
    """As `command_parser`, with what all studies have besides."""
    parser = command_parser(program, description, out=out)
    add = parser.add_argument
    add("--quick", action="store_true",
        help="a few minutes: shows that the study runs, not what it finds")
    add("--results", type=Path, default=Path("docs/results"), help="where the tables go")
    add("--report-only", action="store_true", help="tables of what is done, nothing is trained")
    return parser


def _processes(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few; allowed: 1 or more")
    return number
