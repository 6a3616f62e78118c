"""`edgepkd`: the table of contents, and the one place where errors become messages."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edgepkd import __version__
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
from edgepkd.cli.wise import wise
from edgepkd.errors import EdgepkdError


class _Group(TyperGroup):
    """Shows an EdgepkdError as one message and a next step; EDGEPKD_DEBUG=1 adds the traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EdgepkdError as error:
            if os.environ.get("EDGEPKD_DEBUG", "0") not in ("", "0"):
                traceback.print_exc()
            typer.echo(f"error: {error.message}", err=True)
            if error.hint:
                typer.echo(f"  next: {error.hint}", err=True)
            raise typer.Exit(error.exit_code) from None


# rich_markup_mode=None: Typer's rich help takes 0.1 s longer to show.
app = typer.Typer(
    cls=_Group, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Early-exit action recognition from compressed video.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (demo, run, inspect, export, check, doctor):
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
    """Early-exit action recognition from compressed video."""


def _stop(number: int, frame: FrameType | None) -> None:
    # As an exception, so that half-written files are removed on the way out.
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of the `edgepkd` command."""
    signal.signal(signal.SIGTERM, _stop)
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold bytes that the terminal's encoding cannot show.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
