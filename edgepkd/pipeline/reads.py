"""The files and folders that a verb reads, which nothing it writes may replace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgepkd import plain_json
from edgepkd.errors import SourceError

if TYPE_CHECKING:
    from edgepkd.video.source_names import SourceArgument


def sources_read(source: SourceArgument) -> Iterator[Path]:
    """Files of the videos and folders of the bundles that `source` names."""
    from edgepkd.bundle.manifest import MANIFEST, SUFFIX
    from edgepkd.video.source_list import resolve_sources, source_files
    from edgepkd.video.source_names import as_list

    for one in as_list(source):
        if isinstance(one, (str, os.PathLike)) and (
                os.path.lexists(Path(one) / MANIFEST) or Path(one).suffix == SUFFIX):
            yield Path(one)
        else:
            with suppress(SourceError):  # which the verb itself says
                yield from source_files(resolve_sources(one))


def run_read(run: Path, *others: Path | str | None) -> Iterator[Path]:
    """Folder of a training run, the data it was trained with, and what else was named."""
    yield run
    with suppress(OSError, ValueError, KeyError, TypeError):  # no run, or a damaged one
        yield Path(plain_json.loads((run / "run.json").read_bytes())["index"]).parent
    yield from (Path(one) for one in others if one is not None)
