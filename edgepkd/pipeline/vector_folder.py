"""Folders of vector files: where they may be, and how one is written whole or not at all.

A folder gets its name when all of it is written. That of a camera, which has no end to wait for,
gets it with its first files, then each file whole, and each line of the index after its files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from edgepkd.datasets.labels import file_stems
from edgepkd.errors import StorageError, UsageError
from edgepkd.files import FREE_SPACE, append_line, csv_bytes
from edgepkd.outputs import check_folder
from edgepkd.temporaries import Temporary, TemporaryFile
from edgepkd.video.source_list import source_files
from edgepkd.video.source_names import HIDDEN, STDIN, Source, is_live_source, shown_source

INDEX = "index.csv"
Write = Callable[[BinaryIO], None]


@dataclass(frozen=True)
class IndexRow:
    """One file, as the index lists it."""

    file: str
    start_s: float
    """Seconds since the first frame of the source."""
    end_s: float
    frames: int
    gops: int
    route: str
    motion: str
    """Shape, such as 12x30x40x2; empty where it was not asked for."""
    residual: str
    iframe: str
    source: str


COLUMNS = tuple(field.name for field in fields(IndexRow))


def folders_for(
    sources: Sequence[Source], out: Path, *, force: bool
) -> list[Path]:
    """The folder of each source: `out` for one, `out`/NAME for several.

    Raises:
        UsageError: one is there already and is not empty (with `force`: and holds other things than
            an earlier run wrote), holds a source, lies in a bundle, or cannot be made.
    """
    check_folder("--out", out)
    place = Path(os.path.realpath(out))
    names = [""] if len(sources) == 1 else _names(sources)
    reads = [Path(os.path.realpath(path)) for path in source_files(sources)]
    folders = [place / name for name in names]
    _check_parent(place)
    for folder in folders:
        _check_free(folder, force=force)
        for read in reads:
            if read.is_relative_to(folder):
                raise UsageError(f"--out {folder} holds {read}, which is read.",
                                 hint="Name another folder.")
    return folders


def _names(sources: Sequence[Source]) -> list[str]:
    shown = [shown_source(source) for source in sources]
    seen: Counter[str] = Counter()
    told_apart = []
    for name in shown:
        seen[name] += 1
        told_apart.append(f"{name}#{seen[name]}")
    stems = [_stem(source, name) for source, name in zip(sources, shown, strict=True)]
    return file_stems([""] * len(stems), stems, told_apart)


def _stem(source: Source, name: str) -> str:
    if source == STDIN:
        return "stdin"
    if is_live_source(source):
        return name.rpartition("://")[2].removeprefix(f"{HIDDEN}@").removeprefix("/dev/")
    return Path(name).stem


def _check_parent(place: Path) -> None:
    """Refuse what can be known not to work when hours of work are done."""
    above = place.parent
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"--out {place} cannot be made: {above} is no folder that can be written"
                         " to.", hint="Name a folder elsewhere.")


def _check_free(folder: Path, *, force: bool) -> None:
    if not os.path.lexists(folder):
        return
    hint = f"Name a new folder, such as {folder / 'vectors'}."
    if not folder.is_dir():
        raise UsageError(f"--out {folder} cannot be made: a file has this name.", hint=hint)
    if os.path.ismount(folder) or os.path.samefile(folder, os.curdir):
        raise UsageError(f"--out {folder} cannot be replaced as a whole: it is a mount point or"
                         " the folder you are in.", hint=hint)
    with _storing(folder):
        is_empty = not os.listdir(folder)
    if is_empty or (force and _is_ours(folder)):
        return
    if _is_ours(folder):
        raise UsageError(f"--out {folder} is there already; it is not overwritten.",
                         hint="Choose another name, or replace it: --force")
    raise UsageError(f"--out {folder} is there already and holds other things.", hint=hint)


def _is_ours(folder: Path) -> bool:
    """Whether an earlier run wrote it, whole or as far as a camera went."""
    try:
        with (folder / INDEX).open("rb") as file:
            return file.readline(999) == csv_bytes(COLUMNS, ())
    except OSError:
        return False


class VectorFolder:
    """The folder of one source while it is written; a context manager.

    Attributes:
        place: its final name. is_there: whether it has it.
        num_files, num_frames, num_bytes: of the arrays' files in it.
    """

    def __init__(self, place: Path, *, endless: bool) -> None:
        """Nothing is made before the first file; `endless`: it gets its name then."""
        self.place, self.is_there = place, False
        self.num_files = self.num_frames = self.num_bytes = 0
        self._endless = endless
        self._replaces = _is_ours(place)
        self._made: list[Path] = []
        self._temporary: Temporary | None = None

    @property
    def path(self) -> Path:
        """Where its files are now."""
        return self.place if self._temporary is None else self._temporary.path

    def add(self, row: IndexRow, write: Write, *others: tuple[str, Write]) -> int:
        """Write `row.file` and `others` (name, how), then the row; returns the bytes of the first.

        Raises:
            StorageError: the disk is full, or the folder cannot be written to.
        """
        with _storing(self.place):
            if self._temporary is None and not self.is_there:
                self._make()
            is_first = not self.num_files
            size = self._write(row.file, write)
            for name, write_other in others:
                self._write(name, write_other)
        for cells in ([COLUMNS] if is_first else []) + [astuple(row)]:
            append_line(self.path / INDEX, csv_bytes(cells, ()).decode().rstrip("\n"))
        self.num_files += 1
        self.num_frames += row.frames
        self.num_bytes += size
        if self._endless and not self.is_there:
            self._commit()
        return size

    def __enter__(self) -> VectorFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._temporary is not None:
                self._commit()
        finally:
            if self._temporary is not None:
                self._temporary.close()
            for folder in reversed(self._made):
                with suppress(OSError):  # another source has its folder there
                    folder.rmdir()

    def _make(self) -> None:
        above = self.place.parent
        while not above.is_dir():
            self._made.insert(0, above)
            above = above.parent
        self.place.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = Temporary.new_folder(self.place)

    def _write(self, name: str, write: Write) -> int:
        if self.is_there:
            with TemporaryFile(self.place / name) as temporary:
                write(temporary.file)
                temporary.commit(before=None)
        else:
            with (self.path / name).open("xb") as file:
                write(file)
        return (self.path / name).stat().st_size

    def _commit(self) -> None:
        assert self._temporary is not None
        with _storing(self.place):
            if self._replaces:
                self._temporary.replace()
            else:
                self._temporary.commit()
            self._temporary.close()
        self._temporary, self.is_there = None, True


@contextmanager
def _storing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{place} cannot be written: {error.strerror or error}.",
                           hint=FREE_SPACE) from error
