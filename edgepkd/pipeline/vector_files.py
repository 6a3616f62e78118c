"""The vector files of one source: GOP after GOP, or clip after clip, decoded, written, let go."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import IO, Literal
from weakref import WeakKeyDictionary

from edgepkd.pipeline.vector_arrays import (
    KINDS,
    SUFFIX,
    Arrays,
    Kind,
    files_of_clip,
    gop_arrays,
    write_npz,
)
from edgepkd.pipeline.vector_folder import IndexRow, VectorFolder, Write
from edgepkd.video.clips import Clip, ClipReader
from edgepkd.video.gop import Gop

Per = Literal["gop", "clip"]
_DIGITS = 6
_TIME_DIGITS = 6


@dataclass(frozen=True)
class VectorsWritten:
    """One file is written; of a camera it has its name, else it gets it with its folder."""

    path: Path
    row: IndexRow
    num_bytes: int


def write_files(
    reader: ClipReader, folder: VectorFolder, *, source: str, kinds: Collection[Kind], per: Per,
    at_most: int | None, compressed: bool, with_figures: bool,
) -> Iterator[VectorsWritten]:
    """Write `kinds` of each clip of `reader`, the first `at_most` of them, to `folder`.

    Pictures of another size, or another route, within a clip begin a file of their own.

    Raises:
        SourceError: the source cannot be read or decoded. StorageError: `folder` not written.
    """
    numbers: WeakKeyDictionary[Gop, int] = WeakKeyDictionary()
    counter = count()
    for clip in islice(reader, at_most):
        for gop in clip.gops:
            if gop not in numbers:  # clips may overlap
                numbers[gop] = next(counter)
        found = list(files_of_clip([
            gop_arrays(gop, kinds=kinds, index=numbers[gop], first_time_s=reader.first_time_s,
                       source=source) for gop in clip.gops]))
        for arrays, end_s in zip(found, _ends_s(found, clip), strict=True):
            stem = f"{per}-{folder.num_files:0{_DIGITS}d}"
            row = _row(arrays, name=stem + SUFFIX, end_s=end_s)
            size = folder.add(
                row, partial(write_npz, arrays=arrays, compressed=compressed),
                *(_figures(arrays, stem) if with_figures else ()))
            yield VectorsWritten(folder.place / row.file, row, size)
        del found, arrays  # not while the next clip is read


def _ends_s(found: list[Arrays], clip: Clip) -> list[float]:
    """Where each of the files of a clip ends: where the next one begins."""
    return [*(float(arrays["times_s"][0]) for arrays in found[1:]), clip.end_s]


def _row(arrays: Arrays, *, name: str, end_s: float) -> IndexRow:
    times_s = arrays["times_s"]
    shapes = {kind: "x".join(map(str, arrays[kind].shape)) if kind in arrays else ""
              for kind in KINDS}
    return IndexRow(
        file=name, start_s=round(float(times_s[0]), _TIME_DIGITS),
        end_s=round(end_s, _TIME_DIGITS), frames=times_s.size, gops=arrays["gop_index"].size,
        route=str(arrays["route"]), source=str(arrays["source"]), **shapes)


def _figures(arrays: Arrays, stem: str) -> Iterator[tuple[str, Write]]:
    from edgepkd.pipeline import vector_figure

    content = vector_figure.vector_figure(arrays, name=stem)

    def write(file: IO[bytes]) -> None:
        file.write(content)

    yield stem + vector_figure.SUFFIX, write
