"""The entries of a cache folder: what there is, how much it takes, and what goes when it is full.

Decoded clips (`training.cache`) and features (`training.features`) are kept alike: an entry is a
folder that is named by a hash of everything it depends on, so it can always be made again. What was
used longest ago goes first. Nothing else that lies in such a folder is ever touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgepkd import plain_json
from edgepkd.config import check
from edgepkd.errors import StorageError
from edgepkd.temporaries import discard
from edgepkd.text import counted

Kind = Literal["clip", "features"]

DEFAULT_GB = 20.0
FACTS = "facts.json"
EARLIER = "made by an earlier version"
_NAME = re.compile("[0-9a-f]{32}")
_FILE = re.compile(r"facts\.json|(mv|residual|iframe|windows_[123]|logits)\.npy")


@dataclass(frozen=True)
class Entry:
    """A folder that a command has left to be used again."""

    path: Path
    num_bytes: int
    used_s: float
    """When it was used last, in seconds since 1970."""

    def facts(self) -> dict[str, Any]:
        """What it says of itself; empty where that cannot be read."""
        try:
            return dict(plain_json.loads((self.path / FACTS).read_bytes()))
        except (OSError, ValueError, TypeError):
            return {}


def entries(folder: Path) -> tuple[Entry, ...]:
    """Entries in `folder`, what was used longest ago first; other things are passed over."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as inside:
        for item in inside:
            if _NAME.fullmatch(item.name) and (entry := _entry(Path(item.path))):
                found.append(entry)
    return tuple(sorted(found, key=lambda entry: (entry.used_s, entry.path.name)))


def _entry(path: Path) -> Entry | None:
    """What is at `path`, if it is an entry: a real folder of an entry's files, and no others."""
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return None
        total, names = 0, set()
        with os.scandir(path) as inside:
            for item in inside:
                if not (_FILE.fullmatch(item.name) and item.is_file(follow_symlinks=False)):
                    return None
                names.add(item.name)
                total += item.stat(follow_symlinks=False).st_size
        return Entry(path, total, status.st_mtime) if FACTS in names else None
    except OSError:  # another process removes it at this moment
        return None


def kind_of(facts: dict[str, Any]) -> Kind | None:
    """What an entry with these facts holds; None: it is none of ours."""
    if "gop_lengths" in facts and "modalities" in facts:
        return "clip"
    return "features" if isinstance(facts.get("key"), str) else None


def size_of(folder: Path) -> int:
    """Bytes of all entries in `folder`."""
    return sum(entry.num_bytes for entry in entries(folder))


def touch(entry: Path) -> None:
    """Note that an entry is used now."""
    with contextlib.suppress(OSError):
        os.utime(entry)


def remove(entry: Entry) -> bool:
    """Remove an entry, if it still is one; returns whether it is gone."""
    now = _entry(entry.path)
    if now is None or kind_of(now.facts()) is None:
        return False
    try:
        discard(entry.path)
    except OSError:
        return False
    return True


def trim(folder: Path, *, limit_gb: float, keep: Container[str] = ()) -> int:
    """Remove what was used longest ago until at most `limit_gb` are left; returns the bytes left.

    Entries whose names are in `keep` stay, whatever the limit says.
    """
    found = entries(folder)
    total = sum(entry.num_bytes for entry in found)
    for entry in found:
        if total <= limit_gb * 1e9:
            break
        if entry.path.name not in keep and remove(entry):
            total -= entry.num_bytes
    return total


def cache_line(folder: Path, *, limit_gb: float) -> str:
    """How full a cache folder is: 'cache runs/cache: 1.1 GB of 20'."""
    return f"cache {folder}: {size_of(folder) / 1e9:.1f} GB of {limit_gb:g}"


def check_limit(limit_gb: float) -> None:
    """Refuse a limit that nothing fits in.

    Raises:
        ConfigError: it is not above 0.
    """
    check(limit_gb > 0, "cache-gb", got=limit_gb, allowed="above 0, in GB")


class Room:
    """Keeps a folder within its limit while one command adds to it what it needs together.

    `names` are the entries that the command needs, all of them to the end.
    """

    def __init__(self, folder: Path, names: Container[str], *, num: int, limit_gb: float) -> None:
        """Look at what is there, and make room; `num` is the number of `names`.

        Raises:
            ConfigError: the limit is not above 0. StorageError: as `added`.
        """
        check_limit(limit_gb)
        self._folder, self._names, self._num, self._limit = folder, names, num, limit_gb
        found = entries(folder)
        self._total = sum(entry.num_bytes for entry in found)
        own = [entry.num_bytes for entry in found if entry.path.name in names]
        self._own, self._num_own = sum(own), len(own)
        self._settle()

    def added(self, name: str) -> None:
        """Count a new entry, and make room where that is needed.

        Raises:
            StorageError: what the command needs does not fit, or will not.
        """
        entry = _entry(self._folder / name)
        if entry is None:
            return
        self._own, self._num_own = self._own + entry.num_bytes, self._num_own + 1
        self._total += entry.num_bytes
        self._settle()

    def _settle(self) -> None:
        if self._num_own:
            self._refuse_too_much()
        if self._total > self._limit * 1e9:
            self._total = trim(self._folder, limit_gb=self._limit, keep=self._names)

    def _refuse_too_much(self) -> None:
        """Early where a few clips show that it cannot end well, else when it is too late."""
        needed = self._own / self._num_own * self._num
        likely = self._num_own >= 8 and needed > 1.5 * self._limit * 1e9
        if likely or self._own > self._limit * 1e9:
            gb = needed / 1e9
            raise StorageError(
                f"{counted(self._num, 'clip')} need about {gb:.2g} GB in {self._folder}; allowed: "
                f"{self._limit:g} GB.",
                hint=f"Give --cache-gb {max(1, round(1.2 * gb))}, or train on fewer or shorter"
                     " clips.")
