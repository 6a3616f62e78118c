"""What `data prepare` and `data synth` share: their events, and how a set is finished."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av

from edgepkd import plain_json
from edgepkd._version import __version__
from edgepkd.datasets.hashes import sha256_of
from edgepkd.datasets.no_look import NoLook
from edgepkd.datasets.prepare_clip import Status
from edgepkd.datasets.prepared import (
    FAILURES,
    INDEX,
    PROGRESS,
    SUMMARY,
    TRAITS,
    VIDEOS,
    PreparedClip,
    Progress,
    write_index,
)
from edgepkd.datasets.splits import SPLITS
from edgepkd.datasets.training_form import training_form
from edgepkd.files import write_atomically

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class DataStarted:
    """The clips are listed and their splits drawn."""

    layout: str
    num_clips: int
    num_labels: int
    notes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    """(path, reason) of what lies in a folder of classes and is no clip."""


@dataclass(frozen=True)
class ClipPrepared:
    """One clip is done, was done before, or failed."""

    path: str
    source: str
    status: Status
    reason: str
    number: int
    """1-based, in the order they get done."""


@dataclass(frozen=True)
class DataSummary:
    """A data set that is whole."""

    folder: Path
    layout: str
    num_clips: int
    """In the index."""
    num_done: int
    num_kept: int
    """Done by an earlier run."""
    failures: tuple[tuple[str, str], ...]
    """(source, reason)."""
    num_damaged: int
    """Clips in the index some part of whose source did not decode."""
    counts: Mapping[str, Mapping[str, int]]
    """Split -> label -> clips."""
    num_groups: Mapping[str, int]
    """Split -> groups."""
    notes: tuple[str, ...]
    wall_s: float
    skipped: tuple[tuple[str, str], ...] = ()
    """(path, reason) of what lies in a folder of classes and is no clip."""
    no_look: NoLook | None = None
    """How well labels are guessed without a look; None: not measured."""


DataEvent = DataStarted | ClipPrepared | DataSummary


def files_of(folder: Path) -> tuple[Path, ...]:
    """What a set in `folder` has besides its clips."""
    return tuple(folder / name for name in (INDEX, FAILURES, TRAITS, SUMMARY, PROGRESS))


def finish(
    folder: Path, clips: Sequence[PreparedClip], progress: Progress, *,
    settings: Mapping[str, Any], layout: str, failures: tuple[tuple[str, str], ...],
    notes: tuple[str, ...], num_kept: int, wall_s: float,
    skipped: tuple[tuple[str, str], ...] = (), no_look: NoLook | None = None,
) -> DataSummary:
    """Write the index and prepare.json, remove what earlier runs left.

    Raises:
        StorageError: the folder cannot be written.
    """
    for stale in set(progress.known) - {clip.path for clip in clips}:
        if stale.startswith(f"{VIDEOS}/") and ".." not in Path(stale).parts:
            (folder / stale).unlink(missing_ok=True)
    parts = {name: [clip for clip in clips if clip.split == name] for name in SPLITS}
    made = DataSummary(
        folder=folder, layout=layout, num_clips=len(clips), num_done=len(clips) - num_kept,
        num_kept=num_kept, failures=failures, notes=notes, wall_s=wall_s, skipped=skipped,
        no_look=no_look,
        num_damaged=sum(clip.damaged > 0 for clip in clips),
        counts={name: dict(sorted(Counter(c.label for c in part).items()))
                for name, part in parts.items()},
        num_groups={name: len({c.group for c in part}) for name, part in parts.items()})
    write_index(folder, clips)
    document = {
        "schema_version": SCHEMA_VERSION, "form": training_form(), **asdict(made),
        "folder": str(folder), "settings": dict(settings),
        "versions": {"edgepkd": __version__, "av": av.__version__,
                     "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
                     "python": platform.python_version()},
        "index_sha256": sha256_of(folder / INDEX),
    }
    text = plain_json.dumps(document, indent=2) + "\n"
    write_atomically(folder / SUMMARY, text.encode("utf-8", "backslashreplace"))
    return made


def settings_of(config: object) -> dict[str, Any]:
    """A settings dataclass as plain JSON values."""
    values = asdict(config)  # type: ignore[call-overload]
    return dict(plain_json.loads(plain_json.dumps(values, default=str)))
