"""The verb `data cache`: what the caches hold, and clearing them.

    >>> for report in caches(CacheConfig(folders=(Path("runs/cache"),))):
    ...     print(report.folder, report.num_entries)
    runs/cache ...
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepkd.config import check
from edgepkd.training.entries import EARLIER, Entry, Kind, entries, kind_of, remove

DAY_S = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Which caches, and what is to be done with them."""

    folders: tuple[Path, ...]
    clear: bool = False
    """Remove the entries that would else be listed."""
    older_than_days: float | None = None
    """Only entries that were not used for so long; None: all."""

    def __post_init__(self) -> None:
        days = self.older_than_days
        check(days is None or days >= 0, "older-than", got=days, allowed="0 or more days")


@dataclass(frozen=True)
class CacheGroup:
    """Entries that were made alike."""

    kind: Kind
    settings: str
    num_entries: int
    num_bytes: int
    used_s: float
    """When one of them was used last, in seconds since 1970."""


@dataclass(frozen=True)
class CacheReport:
    """One cache folder."""

    folder: Path
    groups: tuple[CacheGroup, ...]
    """What was asked for and is there, or was until it was cleared; the largest first."""
    num_removed: int
    removed_bytes: int
    left_bytes: int
    """Of all entries that are there now, asked for or not."""

    @property
    def num_entries(self) -> int:
        """Entries in all groups."""
        return sum(group.num_entries for group in self.groups)

    @property
    def num_bytes(self) -> int:
        """Bytes of all groups."""
        return sum(group.num_bytes for group in self.groups)


def caches(config: CacheConfig) -> tuple[CacheReport, ...]:
    """Look at cache folders, and clear them where that is asked for.

    Nothing is removed that is not an entry; a folder that is not there has none.
    """
    return tuple(_report(folder, config) for folder in dict.fromkeys(config.folders))


def _report(folder: Path, config: CacheConfig) -> CacheReport:
    found = entries(folder)
    until_s = time.time() - (config.older_than_days or 0) * DAY_S
    asked = [one for one in found if config.older_than_days is None or one.used_s <= until_s]
    groups = _groups(asked)
    known = {one for part in groups.values() for one in part}
    gone = [one for one in asked if one in known and remove(one)] if config.clear else []
    removed_bytes = sum(one.num_bytes for one in gone)
    return CacheReport(
        folder, tuple(sorted((_group(*key, part) for key, part in groups.items()),
                             key=lambda group: -group.num_bytes)),
        len(gone), removed_bytes, sum(one.num_bytes for one in found) - removed_bytes)


def _groups(found: Sequence[Entry]) -> dict[tuple[Kind, str], list[Entry]]:
    """Entries by what they say they are; those that say nothing of the kind are none of ours."""
    groups: dict[tuple[Kind, str], list[Entry]] = {}
    for entry in found:
        facts = entry.facts()
        if kind := kind_of(facts):
            groups.setdefault((kind, str(facts.get("settings", EARLIER))), []).append(entry)
    return groups


def _group(kind: Kind, settings: str, part: Sequence[Entry]) -> CacheGroup:
    return CacheGroup(kind, settings, len(part), sum(one.num_bytes for one in part),
                      max(one.used_s for one in part))
