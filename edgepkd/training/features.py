"""What frozen trunks say about the training views, kept on disk and memory-mapped.

An entry is named by a hash of everything it depends on: the trunk's weights, the clips' contents
and how they were decoded, the views. Other weights, clips or settings are another entry, so nothing
stale can be read. The folder is bounded: the entries used longest ago go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgepkd import plain_json
from edgepkd.config import NUM_EXITS, plain_facts
from edgepkd.errors import DataError, StorageError
from edgepkd.files import new_folder
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.cache import ClipArrays
from edgepkd.training.exits import ViewPlan, Views, iterate_views
from edgepkd.training.loop import hash_of

VERSION = 1
"""Raise it when the same trunk and views would give other features."""
_ENTRY = re.compile("[0-9a-f]{32}")
_NAMES = ("windows_1", "windows_2", "windows_3", "logits")


@dataclass(frozen=True)
class FeatureCache:
    """A folder of features of at most `limit_gb`."""

    folder: Path
    limit_gb: float = 20.0

    def views(
        self, network: SegmentedNetwork, clips: Sequence[ClipArrays], plan: ViewPlan, *,
        clip_keys: Sequence[str],
    ) -> Views:
        """Features of `clips`, whose contents `clip_keys` name; made if they are not there.

        Raises:
            StorageError: the folder cannot be written, or the features need more than `limit_gb`
                or than the disk has.
            DataError: an entry is damaged, or was made with other weights.
        """
        facts = {"version": VERSION, "trunk_sha256": trunk_hash(network), "clips": list(clip_keys),
                 "plan": plain_facts(plan)}
        entry = self.folder / hash_of(facts)[:32]
        if not entry.is_dir():
            _write(entry, network, clips, plan, facts=hash_of(facts), limit_gb=self.limit_gb)
            self._evict(keep=entry)
        views = _read(entry, facts=hash_of(facts))
        with contextlib.suppress(OSError):
            os.utime(entry)  # used just now
        return views

    def _evict(self, *, keep: Path) -> None:
        """Remove the entries used longest ago until the limit holds."""
        found = sorted(_entries(self.folder), key=lambda item: item[1])
        total = sum(size for _, _, size in found)
        for entry, _, size in found:
            if total <= self.limit_gb * 1e9:
                return
            if entry != keep:
                shutil.rmtree(entry, ignore_errors=True)
                total -= size


def _entries(folder: Path) -> Iterator[tuple[Path, float, int]]:
    """Entries, when they were last used, and their bytes; folders of other things are not ours."""
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # another process removes it at this moment
            if _ENTRY.fullmatch(entry.name) and (entry / "facts.json").is_file():
                size = sum(file.stat().st_size for file in entry.iterdir())
                yield entry, entry.stat().st_mtime, size


def trunk_hash(network: SegmentedNetwork) -> str:
    """SHA-256 of all that features and exit-4 logits depend on: the trunk and the last exit."""
    digest = hashlib.sha256()
    last = f"segments.{NUM_EXITS - 1}.head."
    for key, tensor in sorted(network.state_dict().items()):
        if ".trunk." in key or key.startswith(last):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write(
    entry: Path, network: SegmentedNetwork, clips: Sequence[ClipArrays], plan: ViewPlan, *,
    facts: str, limit_gb: float,
) -> None:
    with new_folder(entry, what="features") as folder:
        arrays: list[np.memmap] = []
        for index, views in enumerate(iterate_views(network, clips, plan)):
            columns = [*views.windows, views.logits]
            if not arrays:
                _check_room(columns, len(clips), folder, limit_gb)
                arrays = [_array(folder / f"{name}.npy", len(clips) * plan.num_views, column)
                          for name, column in zip(_NAMES, columns, strict=True)]
            rows = slice(index * plan.num_views, (index + 1) * plan.num_views)
            for array, column in zip(arrays, columns, strict=True):
                array[rows] = column.cpu().numpy()
        for array in arrays:
            array.flush()
        (folder / "facts.json").write_text(plain_json.dumps({"key": facts}), encoding="utf-8")


def _array(path: Path, rows: int, column: Tensor) -> np.memmap:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32,
                                      shape=(rows, *column.shape[1:]))
    if hasattr(os, "posix_fallocate"):  # else a disk that fills up ends the process by a signal
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _check_room(
    columns: Sequence[Tensor], num_clips: int, folder: Path, limit_gb: float
) -> None:
    needed = sum(c.numel() for c in columns) * 4 * num_clips / 1e9
    free = shutil.disk_usage(folder).free / 1e9
    if needed > min(limit_gb, free):
        raise StorageError(
            f"the features need {needed:.2f} GB; allowed: {limit_gb:g} GB, and {free:.2f} GB are "
            "free.", hint="Use fewer views, a higher --cache-limit, another folder, or --online.")


def _read(entry: Path, *, facts: str) -> Views:
    try:
        key = plain_json.loads((entry / "facts.json").read_text(encoding="utf-8"))["key"]
        # copy-on-write: torch has no read-only tensors; nothing is ever written
        arrays = [torch.from_numpy(np.load(entry / f"{name}.npy", mmap_mode="c"))
                  for name in _NAMES]
    except (OSError, EOFError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataError(f"the features in {entry} are damaged: {error}.",
                        hint="Delete the folder; it will be made again.") from error
    if key != facts:
        raise DataError(f"the features in {entry} were made with other weights, clips or settings.",
                        hint="Delete the folder; it will be made again.")
    return Views(tuple(arrays[:-1]), arrays[-1])
