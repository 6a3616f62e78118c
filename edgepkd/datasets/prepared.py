"""A data set in training form on disk.

    DST/videos/LABEL/NAME.mp4
    DST/index.csv       one row for each clip (PreparedClip)
    DST/failures.csv    path and reason of each clip that was left out
    DST/traits.csv      size, rate, codec, length and sound of each clip's source (Traits)
    DST/prepare.json    counts, settings, versions
    DST/progress.jsonl  what is done so far; a later run goes on from there
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from edgepkd import plain_json
from edgepkd.closing import Closing
from edgepkd.datasets.index import Sample
from edgepkd.datasets.prepare_clip import ClipResult
from edgepkd.datasets.traits import COLUMNS as TRAIT_COLUMNS
from edgepkd.datasets.traits import Traits, as_row
from edgepkd.errors import DataError, StorageError
from edgepkd.files import csv_bytes, write_atomically
from edgepkd.temporaries import sweep

INDEX, FAILURES, SUMMARY, PROGRESS = "index.csv", "failures.csv", "prepare.json", "progress.jsonl"
TRAITS = "traits.csv"
VIDEOS = "videos"
GO_ON_HINT = ("Free some space, or check the permissions, and run the same command again: it goes "
              "on from there, nothing is lost.")


@dataclass(frozen=True)
class PreparedClip:
    """One row of the index."""

    path: str
    """Relative to the data set."""
    label: str
    group: str
    split: str
    sha256: str
    frames: int
    form: str
    source: str
    """File it was made of, relative to its data set."""
    source_sha256: str
    damaged: int
    """Places of the source that did not decode and were skipped."""

    def sample(self, folder: Path) -> Sample:
        """The clip as training sees it."""
        return Sample(folder / self.path, self.label, self.group, self.split, self.sha256,
                      self.form)


def write_index(folder: Path, clips: Sequence[PreparedClip]) -> Path:
    """Write DST/index.csv; returns its path.

    Raises:
        StorageError: it cannot be written.
    """
    columns = [field.name for field in fields(PreparedClip)]
    return _write_csv(folder / INDEX, columns, (astuple(clip) for clip in clips))


def write_failures(folder: Path, failures: Sequence[tuple[str, str]]) -> Path:
    """Write DST/failures.csv, also when nothing failed; returns its path.

    Raises:
        StorageError: it cannot be written.
    """
    return _write_csv(folder / FAILURES, ("path", "reason"), failures)


def write_traits(folder: Path, traits: Sequence[tuple[str, Traits]]) -> Path:
    """Write DST/traits.csv of (path of the clip, traits of its source); returns its path.

    Raises:
        StorageError: it cannot be written.
    """
    return _write_csv(folder / TRAITS, ("path", *TRAIT_COLUMNS),
                      ((path, *as_row(one)) for path, one in traits))


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    write_atomically(path, csv_bytes(columns, rows))
    return path


class Progress(Closing):
    """What is done in a data set; one process at a time may hold it. A context manager.

    Attributes:
        known: results of earlier runs, by path.
    """

    def __init__(self, folder: Path) -> None:
        """Take possession of `folder`, made if absent.

        Raises:
            DataError: another process is at work in it, or it holds something else.
            StorageError: it cannot be written.
        """
        path = folder / PROGRESS
        if folder.exists() and not path.is_file() and any(folder.iterdir()):
            raise DataError(f"{folder} is not empty and no data set of `edgepkd data`.",
                            hint="Name a new folder; nothing was changed.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("ab+", buffering=0)
        except OSError as error:
            raise _storage_error(path, error) from error
        try:
            # The lock goes with the process, however it ends.
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._stream.close()
            raise DataError(f"another process is preparing {folder}.",
                            hint="Wait for it, or stop it.") from None
        self.known = self._read()
        for place in (folder, *folder.glob(f"{VIDEOS}/*/")):
            sweep(place)

    def add(self, result: ClipResult) -> None:
        """Note that a clip is done.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            self._stream.write((plain_json.dumps(asdict(result)) + "\n").encode())
        except OSError as error:
            raise _storage_error(Path(self._stream.name), error) from error

    def _read(self) -> dict[str, ClipResult]:
        self._stream.seek(0)
        content = self._stream.read()
        if content and not content.endswith(b"\n"):
            self._stream.write(b"\n")  # the last line was cut off by a kill
        known = {}
        for line in content.splitlines():
            try:
                values = plain_json.loads(line)
                if traits := values.get("traits"):
                    values["traits"] = Traits(**traits)
                result = ClipResult(**values)
            except (ValueError, TypeError, AttributeError):
                continue  # cut off: that clip is done again
            known[result.path] = result
        return known

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be written: {error.strerror}.", hint=GO_ON_HINT)
