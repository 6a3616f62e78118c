"""Pipes: read again until they are known, and given up where no picture comes."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path

import av
import pytest

from edgepkd.config import MODALITIES, ClipSpec, InputSpec, Route
from edgepkd.errors import LimitError, SourceError
from edgepkd.video.clips import ClipReader
from edgepkd.video.limits import Limits
from edgepkd.video.pipes import Pipe
from edgepkd.video.source import open_video
from tests.clips import encode_clip, moving_scene

INPUTS = {m: InputSpec(m, num_segments=2, resize_px=64, crop_px=64) for m in MODALITIES}

pytestmark = pytest.mark.timeout(60)


class Endless(io.RawIOBase):
    """A beginning, then one piece again and again."""

    def __init__(self, begin: bytes, piece: bytes) -> None:
        self._pieces = chain([begin], repeat(piece))
        self._left = b""
        self.num_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        self._left = self._left or next(self._pieces)
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        self.num_bytes += count
        return count


def test_a_pipe_is_read_again_until_it_settles() -> None:
    pipe = Pipe(b"head", io.BytesIO(b"0123456789"), name="it", limits=Limits())
    assert pipe.read(3) + pipe.read(9) + pipe.read(5) == b"head01234"
    pipe.rewind()
    assert pipe.read(2) == b"he"
    pipe.settle()
    got = b""
    while data := pipe.read(4):
        got += data
    assert got == b"ad0123456789"
    assert not pipe.seekable()


def test_idle_bytes_are_counted_between_packets() -> None:
    pipe = Pipe(b"", io.BytesIO(bytes(100)), name="It", limits=Limits(idle_bytes=30))
    for _ in range(3):
        assert len(pipe.read(20)) == 20
        pipe.found_packet()
    pipe.read(20)
    with pytest.raises(LimitError, match=r"It gave 40 bytes with no picture in them; allowed: 30"):
        pipe.read(20)


NULL_PACKET = b"\x47\x1f\xff\x10" + b"\xff" * 184


@pytest.mark.parametrize("suffix", ["ts", "avi", "mkv", "264"])
def test_a_pipe_that_gives_no_picture_for_ever_ends(tmp_path: Path, suffix: str) -> None:
    codec = {"ts": "mpeg2video", "264": "libx264"}.get(suffix, "mpeg4")
    begin = encode_clip(tmp_path / f"a.{suffix}", moving_scene(24), codec=codec).read_bytes()
    source = Endless(begin, NULL_PACKET * 500 if suffix == "ts" else bytes(65_536))
    with suppress(LimitError), open_video(  # a container may end though its pipe does not
            io.BufferedReader(source), limits=Limits(idle_bytes=8 << 20)) as video:
        assert len(list(video.packets())) == 24
    assert source.num_bytes < 40 << 20


@pytest.mark.parametrize("begin", [b"", b"\x00\x00\x00\x18ftypmp42", b"G", b"\x1aE\xdf\xa3"])
def test_a_pipe_that_is_nothing_is_given_up(begin: bytes) -> None:
    source = Endless(begin, os.urandom(4096))
    with pytest.raises(SourceError):
        open_video(io.BufferedReader(source), limits=Limits(idle_bytes=8 << 20,
                                                            copied_bytes=8 << 20))
    assert source.num_bytes < 40 << 20


def test_an_mp4_without_end_does_not_fill_the_disk() -> None:
    source = Endless(b"\x00\x00\x00\x18ftypmp42" + bytes(60), bytes(1 << 20))
    with pytest.raises(LimitError, match=r"are copied to the disk.*the limit copied_bytes"):
        open_video(io.BufferedReader(source), limits=Limits(copied_bytes=4 << 20))


def test_a_named_pipe_is_read_as_a_pipe(tmp_path: Path) -> None:
    data = encode_clip(tmp_path / "a.ts", moving_scene(24), codec="mpeg2video").read_bytes()
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(data))
    writer.start()
    with open_video(path) as video:
        assert len(list(video.packets())) == 24
    writer.join()


def mux(path: Path, make: Callable[[int, bytes], bytes], *, count: int, codec: str) -> Path:
    """A clip of `count` packets: the first is whole, the others are what `make` says."""
    source = encode_clip(path.with_name(f"source{path.suffix}"), moving_scene(2), codec=codec)
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        first = next(bytes(packet) for packet in given.demux(video=0) if packet.size)
        for number in range(count):
            packet = av.Packet(first if number == 0 else make(number, first))
            packet.pts = packet.dts = number
            packet.time_base = stream.time_base
            packet.stream, packet.is_keyframe = stream, number == 0
            container.mux(packet)
    return path


B_PICTURE = b"\x00\x00\x01\xb6\x90" + bytes(60)
SKIPPED = {
    "filler": ("avi", "mpeg4", lambda number, first: b"\x7f"),
    "B-frames": ("avi", "mpeg4", lambda number, first: B_PICTURE),
    "no slices": ("mkv", "libx264", lambda number, first: b"\x00\x00\x00\x02\x09\xf0"),
}


def read_all(reader: ClipReader) -> None:
    for clip in reader:
        clip.tensor("iframe")


@pytest.mark.parametrize("route", ["native", "normalize"])
@pytest.mark.parametrize("name", SKIPPED)
def test_packets_without_a_picture_are_limited(tmp_path: Path, name: str, route: Route) -> None:
    suffix, codec, make = SKIPPED[name]
    path = mux(tmp_path / f"clip.{suffix}", make, count=3000, codec=codec)
    with ClipReader(path, clip=ClipSpec(), inputs=INPUTS, route=route,
                    limits=Limits(packets=80)) as reader, pytest.raises(
                        LimitError, match=r"packets in a row give no picture; allowed: 80"):
        read_all(reader)
