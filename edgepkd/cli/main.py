"""`edgepkd`: the table of contents, and the one place where errors become messages."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edgepkd._version import __version__
from edgepkd.allocator import keep_freed_memory
from edgepkd.cli import streams
from edgepkd.cli.check import check
from edgepkd.cli.data import data_app
from edgepkd.cli.demo import demo
from edgepkd.cli.doctor import doctor
from edgepkd.cli.evaluate import evaluate
from edgepkd.cli.export import export
from edgepkd.cli.inspect import inspect
from edgepkd.cli.quantize import quantize
from edgepkd.cli.run import run
from edgepkd.cli.train import train
from edgepkd.cli.vectors import vectors
from edgepkd.cli.wise import wise
from edgepkd.errors import EdgepkdError
from edgepkd.text import shown
from edgepkd.video.source_names import shown_argument, shown_source

# Typer brings a Click of its own, or not.
_ClickUsageError: type[Exception] = typer.BadParameter.__bases__[0]


class _Group(TyperGroup):
    """Shows an EdgepkdError as one message and a next step; EDGEPKD_DEBUG=1 adds the traceback."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _shown_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _shown_errors():
            return super().invoke(ctx)


@contextmanager
def _shown_errors() -> Iterator[None]:
    """Errors of edgepkd become messages; those of Click quote what was typed, and go on."""
    try:
        yield
    except EdgepkdError as error:
        if os.environ.get("EDGEPKD_DEBUG", "0") not in ("", "0"):
            _show_traceback(error)
        typer.echo(_safe(f"error: {error.message}"), err=True)
        if error.hint:
            typer.echo(_safe(f"  next: {error.hint}"), err=True)
        raise typer.Exit(error.exit_code) from None
    except _ClickUsageError as error:
        error.message = _safe(str(vars(error)["message"]))  # type: ignore[attr-defined]
        raise


def _show_traceback(error: Exception) -> None:
    """Frames as they are; what the errors say, which others may have written, in a line each."""
    for part in traceback.TracebackException.from_exception(error).format():
        is_frame = part.startswith("  File ")
        for line in part.rstrip("\n").split("\n") if is_frame else [part.strip("\n")]:
            typer.echo(_safe(line), err=True)


def _show_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    """Instead of Python's own way, which shows what others wrote as it is."""
    typer.echo(_safe(f"warning: {category.__name__}: {message}"), err=True)


def _safe(text: str) -> str:
    """`text` for stderr: nothing that a terminal obeys, no password that was typed."""
    for typed in sys.argv[1:]:
        is_file = os.path.exists(typed)
        text = text.replace(typed, shown_source(typed) if is_file else shown_argument(typed))
    return shown(text)


# rich_markup_mode=None: Typer's rich help takes 0.1 s longer to show.
app = typer.Typer(
    cls=_Group, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Recognise actions in compressed video, stopping as early as it can.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (demo, run, vectors, inspect, export, check, doctor):
    app.command()(verb)
app.command("eval")(evaluate)
app.command()(quantize)
app.add_typer(data_app, name="data")
app.add_typer(train, name="train")
app.add_typer(wise, name="wise")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgepkd {__version__}")
        raise typer.Exit()


@app.callback()
def edgepkd(
    version: Annotated[bool, typer.Option(
        "--version", callback=_show_version, is_eager=True, help="Show the version and exit.",
    )] = False,
) -> None:
    """Recognise actions in compressed video, stopping as early as it can."""


def _stop(number: int, frame: FrameType | None) -> None:
    # As an exception, so that half-written files are removed on the way out.
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of the `edgepkd` command."""
    keep_freed_memory()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP; nohup has it ignored
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _stop)
    streams.guard()
    warnings.showwarning = _show_warning
    try:
        with _shown_errors():
            try:
                app()
            finally:
                sys.stdout.flush()
    except typer.Exit as end:  # of a last line that could not be written
        sys.exit(end.exit_code)
    except Exception as error:  # not foreseen
        _show_traceback(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
