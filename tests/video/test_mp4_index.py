"""An MP4 says how many frames it has; what it has no room for is not believed."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path

import av
import numpy as np
import pytest

from edgepkd.errors import LimitError
from edgepkd.video.limits import Limits
from edgepkd.video.mp4_index import check_index
from edgepkd.video.source import open_video
from tests.clips import encode_clip, moving_scene

COUNT = 80_000_000


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def movie(*tables: bytes, handler: bytes = b"vide", extra: bytes = b"") -> bytes:
    """A file with one track of these tables."""
    return box(b"ftyp", b"isom", bytes(4)) + box(b"moov", box(b"trak", box(
        b"mdia", box(b"hdlr", bytes(8), handler, bytes(12)),
        box(b"minf", box(b"stbl", *tables))), extra))


def alike(count: int, *, each: int = 1) -> bytes:
    return box(b"stsz", numbers(0, each, count))


def check(data: bytes, **limits: int) -> None:
    check_index(io.BytesIO(data), limits=Limits(**limits), name="a.mp4")


def test_frames_without_room_are_refused_and_allowed() -> None:
    data = movie(alike(COUNT))
    with pytest.raises(LimitError, match=rf"no room for \({COUNT}\).*--limit samples={COUNT}\."):
        check(data)
    check(data, samples=COUNT)


def test_the_claims_of_all_tracks_are_added_up() -> None:
    one = movie(alike(900_000))[16:]
    tracks = one[8:] * 3
    with pytest.raises(LimitError, match=r"\(2700000\)"):
        check(box(b"ftyp", b"isom", bytes(4)) + box(b"moov", tracks))
    check(one)


@pytest.mark.parametrize(("flags", "fields"), [(0, 0), (0x200, 1), (0xF00, 4)])
def test_runs_of_fragments_have_room_for_what_they_claim(flags: int, fields: int) -> None:
    def fragment(count: int) -> bytes:
        return box(b"moof", box(b"traf", box(b"trun", numbers(flags, count),
                                             bytes(4 * fields * min(count, 100)))))
    check(fragment(100))
    with pytest.raises(LimitError, match=rf"\({COUNT}\)"):
        check(fragment(COUNT))
    with pytest.raises(LimitError):
        check(fragment(3000) * 1000)


def test_sound_without_compression_is_counted_in_pieces() -> None:
    """An hour of it has 170 million samples, which FFmpeg takes by the thousand."""
    times, chunks = box(b"stts", numbers(0, 1, COUNT, 1)), box(b"stco", numbers(0, 2, 0, 0))
    sizes, in_chunks = alike(COUNT, each=4), box(b"stsc", numbers(0, 1, 1, COUNT // 2, 1))
    check(movie(sizes, times, chunks, in_chunks, handler=b"soun"))
    with pytest.raises(LimitError):
        check(movie(sizes, times, chunks, in_chunks))
    many = box(b"stsc", numbers(0, 1, 1, 0x7FFFFFFF, 1))
    with pytest.raises(LimitError):
        check(movie(sizes, times, chunks, many, handler=b"soun"))


def test_edits_that_show_all_frames_again_and_again_are_refused() -> None:
    sizes = box(b"stsz", numbers(0, 0, 60_000), bytes(240_000))
    edits = box(b"edts", box(b"elst", numbers(0, 40_000), bytes(480_000)))
    with pytest.raises(LimitError, match="again and again"):
        check(movie(sizes, extra=edits))
    check(movie(sizes, extra=box(b"edts", box(b"elst", numbers(0, 3), bytes(36)))))


@pytest.mark.slow
def test_a_packed_index_is_looked_into() -> None:
    inner = movie(alike(COUNT))[16:]
    packed = box(b"moov", box(b"cmov", box(b"dcom", b"zlib"),
                              box(b"cmvd", numbers(len(inner)), zlib.compress(inner))))
    with pytest.raises(LimitError, match=rf"\({COUNT}\)"):
        check(packed)
    bomb = box(b"moov", box(b"cmov", box(b"cmvd", numbers(1), zlib.compress(bytes(80 << 20)))))
    with pytest.raises(LimitError, match="packed index"):
        check(bomb)


@pytest.mark.parametrize("data", [
    b"", b"\0\0\0\x01ftyp", b"\0\0\0\0moov", b"\0\0\0\x07moov" * 9, bytes(4000),
    b"RIFF\x10\0\0\0AVI ", box(b"moov") * 50, movie(box(b"stsz", b"\0\0\0")),
    movie(box(b"stsc", numbers(0, 0xFFFFFFFF)), box(b"stco", numbers(0, 0xFFFFFFFF)), alike(9)),
    box(b"moov", box(b"moov", box(b"moov"))) * 9])
def test_what_is_no_index_or_a_damaged_one_passes(data: bytes) -> None:
    check(data)
    with pytest.raises(LimitError, match=rf"\({COUNT}\)"):
        check(movie(alike(COUNT)) + data)  # and hides none that stands before it


def test_noise_never_escapes_nor_takes_long() -> None:
    rng, good = np.random.default_rng(0), movie(alike(9), box(b"stts", numbers(0, 1, 9, 1)))
    refused, started = 0, time.perf_counter()
    for _ in range(300):
        noisy = bytearray(good)
        for at in rng.integers(0, len(good), 4):
            noisy[at] = int(rng.integers(256))
        try:
            check(bytes(noisy))
        except LimitError:
            refused += 1
    assert 0 < refused < 300
    assert time.perf_counter() - started < 20


def test_real_files_pass_and_a_bomb_made_of_one_does_not(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "a.mp4", moving_scene(24))
    with open_video(path) as video:
        assert len(list(video.packets())) == 24
    data = bytearray(path.read_bytes())
    for name, at, values in ((b"stsz", 8, (1, COUNT)), (b"stsc", 8, (1, 1, COUNT, 1)),
                             (b"stco", 8, (1,))):
        start = data.index(name) + at
        data[start : start + 4 * len(values)] = numbers(*values)
    bomb = tmp_path / "bomb.mp4"
    bomb.write_bytes(data)
    began = time.monotonic()
    for source in (bomb, io.BytesIO(bytes(data))):
        with pytest.raises(LimitError, match="the limit samples"):
            open_video(source)
    assert time.monotonic() - began < 2  # FFmpeg needs ten seconds and four gigabytes


def test_sound_in_a_real_quicktime_file_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 480_000), np.int16), "s16", "mono")
        frame.rate, frame.pts = 48_000, 0
        container.mux(sound.encode(frame))
        for number in range(25):
            picture = av.VideoFrame(64, 48, "yuv420p")
            picture.pts = number
            container.mux(video.encode(picture))
        container.mux([*video.encode(None), *sound.encode(None)])
    with open_video(path, limits=Limits(samples=1)) as opened:
        assert len(list(opened.packets())) == 25
    cut = path.read_bytes()
    check(cut[cut.index(b"moov") - 4 :])  # an index whose sound is not there
