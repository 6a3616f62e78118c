"""`edgepkd data cache`: what decoded clips and features take on the disk, and clearing them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepkd.cli import options
from edgepkd.text import counted

if TYPE_CHECKING:
    from edgepkd.pipeline.cache import CacheReport


def cache(
    cache: options.Cache = Path("runs/cache"),
    features: Annotated[Path, typer.Option(help="Folder where features are kept.")]
    = Path("runs/features"),
    clear: Annotated[bool, typer.Option(
        "--clear", help="Remove what is listed; it is made again when it is needed.")] = False,
    older_than: Annotated[float | None, typer.Option(
        metavar="DAYS", help="Only what was not used for so many days; default: all.")] = None,
    json: Annotated[str | None, typer.Option(
        metavar="PATH|-", help="Write JSON lines: one for each folder.")] = None,
    force: options.Force = False,
) -> None:
    """List and clear what was kept to be used again.

    Training keeps decoded clips and features. Nothing else in these folders is ever removed.
    """
    from dataclasses import asdict

    from edgepkd.cli import output
    from edgepkd.pipeline.cache import CacheConfig, caches

    config = CacheConfig(folders=(cache, features), clear=clear, older_than_days=older_than)
    place = output.json_target(json, force=force, reads=config.folders)
    with output.JsonLines(place) as lines:
        reports = caches(config)
        for report in reports:
            lines.write("cache", {
                **asdict(report), "folder": str(report.folder),
                "num_entries": report.num_entries, "num_bytes": report.num_bytes})
    for report in reports if json != output.STDOUT else ():
        _show(report, cleared=clear)


def _show(report: CacheReport, *, cleared: bool) -> None:
    from datetime import datetime

    from edgepkd.cli import output

    console = output.stdout()
    entries = counted(report.num_entries, "entry", plural="entries")
    console.print(f"{report.folder}: {entries}, {report.num_bytes / 1e9:.2f} GB")
    if report.groups:
        columns = ("what", "entries", "GB", "last used", "settings")
        console.print(output.table(columns, [
            (group.kind, str(group.num_entries), f"{group.num_bytes / 1e9:.2f}",
             datetime.fromtimestamp(group.used_s).strftime("%Y-%m-%d %H:%M"), group.settings)
            for group in report.groups], right=["entries", "GB"], whole=["last used"]))
    if cleared:
        console.print(f"{report.num_removed} removed, {report.removed_bytes / 1e9:.2f} GB; "
                      f"{report.left_bytes / 1e9:.2f} GB are left")
