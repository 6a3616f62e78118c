"""What the index of an MP4 or QuickTime file claims, looked at before FFmpeg makes room for it.

A few bytes can claim a thousand million frames: sizes that are all alike take no room in the file,
but each frame takes some fifty bytes in memory. Claims that have bytes behind them are believed.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Final, NamedTuple

from edgepkd.video.limits import Limits

_CONTAINERS: Final = frozenset({
    b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts", b"udta",
    b"dinf", b"wave", b"gmhd", b"tref", b"cmov"})
_MAX_DEPTH, _MAX_BOXES = 12, 5_000_000
_MAX_UNPACKED_BYTES = 64 << 20
_PCM_SAMPLES_AT_ONCE = 160
"""FFmpeg takes sound without compression in pieces of so many samples or more."""
_EDITED = 10
"""So many times a frame may be shown before its edits are taken for an attack."""


class _Box(NamedTuple):
    kind: bytes
    start: int
    """Of its content."""
    size: int
    """Of its content, as far as it is in the file."""


@dataclass
class _Track:
    """What the tables of one track say."""

    is_sound: bool = False
    num_samples: int = 0
    sample_bytes: int = 0
    """Of each sample, where all are alike; 0: a table has them."""
    ticks: set[int] = field(default_factory=set)
    """How long samples are shown; 0 stands for a table of several entries."""
    chunks: list[tuple[int, int]] = field(default_factory=list)
    """From which chunk on there are how many samples in each."""
    num_chunks: int = 0
    num_edits: int = 0

    def num_unbacked(self, file_bytes: int) -> int:
        """Return how many frames in memory have neither a table nor content behind them."""
        if not self.sample_bytes:
            return 0
        # Sound without compression is taken in pieces, as the chunks say.
        in_pieces = self.is_sound and self.ticks == {1}
        count = self._num_in_chunks() if in_pieces else self.num_samples
        if count * self.sample_bytes <= file_bytes:
            return 0
        return count // _PCM_SAMPLES_AT_ONCE if in_pieces else count

    def _num_in_chunks(self) -> int:
        ends = [*(first for first, _ in self.chunks[1:]), self.num_chunks + 1]
        return sum(count * max(0, min(end, self.num_chunks + 1) - first)
                   for (first, count), end in zip(self.chunks, ends, strict=True))


def check_index(file: IO[bytes], *, limits: Limits, name: str) -> None:
    """Refuse a file whose index claims frames that it has no room for; what is no MP4 passes.

    Raises:
        LimitError: it does.
    """
    size = file.seek(0, io.SEEK_END)
    _Index(file, size, limits, name).check()


class _Index:
    def __init__(self, file: IO[bytes], size: int, limits: Limits, name: str) -> None:
        self._file, self._size, self._limits, self._name = file, size, limits, name
        self._tracks: list[_Track] = []
        self._num_in_fragments = 0
        self._num_boxes = 0
        self._is_packed = False

    def check(self) -> None:
        """Read all boxes and add up what they claim."""
        self._read(0, self._size, depth=0)
        claimed = self._num_in_fragments + sum(
            track.num_unbacked(self._size) for track in self._tracks)
        self._limits.check("samples", claimed,
                           what=f"{self._name} claims frames that it has no room for")
        for track in self._tracks:
            shown = track.num_samples * track.num_edits
            if shown > _EDITED * max(self._limits.samples, track.num_samples):
                raise self._limits.refusal("samples", f"{self._name} shows its frames again and "
                                           f"again ({shown})", wanted=shown // _EDITED + 1)

    def _read(self, start: int, end: int, *, depth: int) -> None:
        for box in self._boxes(start, end):
            if box.kind == b"trak":
                self._tracks.append(_Track())
            if box.kind in _CONTAINERS and depth < _MAX_DEPTH:
                self._read(box.start, box.start + box.size, depth=depth + 1)
            elif box.kind == b"cmvd":
                self._read_compressed(box)
            elif box.kind == b"trun":
                self._read_run(box)
            elif self._tracks:
                self._read_table(box, self._tracks[-1])

    def _boxes(self, start: int, end: int) -> Iterator[_Box]:
        while start + 8 <= end:
            self._num_boxes += 1
            if self._num_boxes > max(_MAX_BOXES, self._limits.samples):
                raise self._limits.refusal("samples", f"{self._name} has an index of more than "
                                           f"{_MAX_BOXES} parts", wanted=4 * _MAX_BOXES)
            head = self._bytes(start, 16)
            size, header = int.from_bytes(head[:4], "big"), 8
            if size == 1 and len(head) == 16:
                size, header = int.from_bytes(head[8:], "big"), 16
            size = end - start if size == 0 else size
            if size < header:
                return
            content = start + header
            yield _Box(head[4:8], content, min(start + size, end) - content)
            start += size

    def _bytes(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size)

    def _numbers(self, box: _Box, at: int, count: int) -> list[int]:
        """Up to `count` 32-bit numbers of a box, from byte `at` of its content."""
        data = self._bytes(box.start + at, min(4 * count, max(0, box.size - at)))
        return [number for number, in struct.iter_unpack(">I", data[: len(data) // 4 * 4])]

    def _read_compressed(self, box: _Box) -> None:
        if self._is_packed:
            return  # FFmpeg unpacks once
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(self._bytes(box.start + 4, box.size), _MAX_UNPACKED_BYTES)
        except zlib.error:
            return
        if unpacker.unconsumed_tail:
            raise self._limits.refusal("samples", f"{self._name} has a packed index of more than "
                                                  f"{_MAX_UNPACKED_BYTES} bytes")
        packed = _Index(io.BytesIO(content), len(content), self._limits, self._name)
        packed._is_packed = True
        packed.check()

    def _read_run(self, box: _Box) -> None:
        head = self._numbers(box, 0, 2)
        if len(head) == 2:
            flags, count = head
            fields = (flags >> 8 & 15).bit_count()
            if count * max(4 * fields, 1) > box.size:
                self._num_in_fragments += count

    def _read_table(self, box: _Box, track: _Track) -> None:
        """Note what a table says; of two of a kind the greater counts."""
        if box.kind == b"hdlr":
            track.is_sound = self._bytes(box.start + 8, 4) == b"soun"
        elif box.kind == b"stsz" and len(head := self._numbers(box, 4, 2)) == 2:
            track.sample_bytes = max(track.sample_bytes, head[0])
            track.num_samples = max(track.num_samples, head[1])
        elif box.kind == b"stts" and len(head := self._numbers(box, 4, 3)) == 3:
            track.ticks.add(head[2] if head[0] == 1 else 0)
        elif box.kind in (b"stco", b"co64") and (head := self._numbers(box, 4, 1)):
            track.num_chunks = max(track.num_chunks, min(head[0], box.size // 4))
        elif box.kind == b"stsc" and (head := self._numbers(box, 4, 1)):
            numbers = self._numbers(box, 8, 3 * head[0])
            track.chunks += zip(numbers[::3], numbers[1::3], strict=False)
        elif box.kind == b"elst" and (head := self._numbers(box, 4, 1)):
            track.num_edits += min(head[0], box.size // 12)
