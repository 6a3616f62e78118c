"""What containers say of rates and times: nonsense is neither believed nor shown."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest

from edgepkd.config import MODALITIES, ClipSpec, InputSpec
from edgepkd.datasets.training_form import encode
from edgepkd.errors import DecodeError, EdgepkdError
from edgepkd.runtime.annotate import save_annotated
from edgepkd.video.clips import Clip, ClipReader
from edgepkd.video.probe import has_display_times, probe
from edgepkd.video.source import open_video
from tests.clips import encode_clip, moving_scene
from tests.outputs import place

INPUTS = {m: InputSpec(m, num_segments=2, resize_px=64, crop_px=64) for m in MODALITIES}
NUM_FRAMES = 15
MOST = 2**63 - 1

pytestmark = pytest.mark.timeout(60)


def read(path: Path, *, fps: float | None = None) -> tuple[ClipReader, list[Clip]]:
    clips = []
    with ClipReader(path, clip=ClipSpec(), inputs=INPUTS, fps=fps) as reader:
        for clip in reader:
            clip.tensor("residual")
            clips.append(clip)
    assert sum(clip.num_frames for clip in clips) == NUM_FRAMES
    times = [time for clip in clips for time in (clip.start_s, clip.end_s)]
    assert all(math.isfinite(time) and time >= 0 for time in times)
    assert all(earlier <= later + 1e-6 for earlier, later in pairwise(times))
    json.dumps(asdict(reader.info), allow_nan=False, default=str)
    return reader, clips


def saved(path: Path, suffix: str) -> Path | None:
    """The annotated video; None where the container cannot hold such times, which is said."""
    with open_video(path) as video:
        info = probe(video)
    out = path.with_name(f"saved{suffix}")
    with suppress(EdgepkdError):  # nothing else may come out
        list(save_annotated(str(path), [], place(out), fps=info.fps, timed=has_display_times(info)))
        return out
    return None


def prepared(path: Path) -> int:
    with open_video(path) as video:
        return encode(video).num_frames


def avi(folder: Path, scale: int, rate: int, *, codec: str = "mjpeg") -> Path:
    """An AVI whose stream header says `rate` / `scale` frames a second."""
    path = encode_clip(folder / "clip.avi", moving_scene(NUM_FRAMES, (64, 48)), codec=codec,
                       pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")
    data = bytearray(path.read_bytes())
    at = data.index(b"strh") + 28
    data[at : at + 8] = struct.pack("<II", scale, rate)
    path.write_bytes(data)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4"])
@pytest.mark.parametrize(("scale", "rate"), [
    (0, 0), (1, 0), (0, 1), (10**9, 1), (1, 10**9), (335_544, 1), (2**32 - 1, 1), (1, 2**32 - 1),
    (2**31, 1), (1, 2**31), (2**31 - 1, 1), (1, 2**31 - 1)])
def test_a_rate_that_no_video_has_is_taken_as_25(
    tmp_path: Path, scale: int, rate: int, codec: str
) -> None:
    path = avi(tmp_path, scale, rate, codec=codec)
    reader, clips = read(path)
    assert clips[-1].end_s == pytest.approx(NUM_FRAMES / 25)
    if scale and rate:
        assert "names a frame rate of" in reader.notes[0]
        assert "taken as 25 a second" in reader.notes[0]
        assert reader.info.duration_s is None
    assert reader.warnings == []
    for suffix in (".mp4", ".avi"):
        out = saved(path, suffix)
        assert out is not None
        with av.open(str(out)) as container:
            assert container.duration / av.time_base == pytest.approx(NUM_FRAMES / 25, abs=0.05)
    assert prepared(path) == NUM_FRAMES


def test_the_caller_may_give_the_rate_instead(tmp_path: Path) -> None:
    reader, clips = read(avi(tmp_path, 335_544, 1), fps=10)
    assert clips[-1].end_s == pytest.approx(NUM_FRAMES / 10)
    assert "taken as 10 a second" in reader.notes[0]


@pytest.mark.parametrize("scale", [3, 600])
def test_a_slow_rate_is_believed(tmp_path: Path, scale: int) -> None:
    reader, clips = read(avi(tmp_path, scale, 1))
    assert clips[-1].end_s == pytest.approx(NUM_FRAMES * scale)
    assert reader.notes == ()


STAMPS: dict[str, Sequence[int]] = {
    "the greatest": range(MOST - 100, MOST - 100 + NUM_FRAMES),
    "the least": range(-MOST, -MOST + NUM_FRAMES),
    "a jump": [*range(5), *range(10**15, 10**15 + NUM_FRAMES - 5)],
    "centuries": range(0, 10**13 * NUM_FRAMES, 10**13),
    "all of the range": range(-MOST, MOST, 2 * (MOST // NUM_FRAMES) + 1),
    "since 1970": range(1_764_300_000_000, 1_764_300_000_000 + 40 * NUM_FRAMES, 40),
}


def stamped(folder: Path, stamps: Sequence[int], time_base: Fraction, suffix: str) -> Path:
    source = encode_clip(folder / "source.avi", moving_scene(NUM_FRAMES, (64, 48)))
    path = folder / f"clip.{suffix}"
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        stream.time_base = time_base
        for packet, stamp in zip((p for p in given.demux(video=0) if p.size), stamps, strict=True):
            packet.stream, packet.time_base = stream, time_base
            packet.pts = packet.dts = stamp
            container.mux(packet)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["nut", "mkv", "mp4"])
@pytest.mark.parametrize("time_base", [
    Fraction(1, 1000), Fraction(1, 2**31 - 1), Fraction(1), Fraction(1000)])
@pytest.mark.parametrize("name", STAMPS)
def test_timestamps_of_any_size_are_read_saved_and_prepared(
    tmp_path: Path, name: str, time_base: Fraction, suffix: str
) -> None:
    try:
        path = stamped(tmp_path, STAMPS[name], time_base, suffix)
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"FFmpeg does not write it: {error}")
    with av.open(str(path)) as container:
        if not any(packet.size for packet in container.demux(video=0)):
            with pytest.raises(DecodeError, match="none of its 0 packets"):
                read(path)
            return
    _, clips = read(path)
    assert clips[-1].end_s < 86_400 * NUM_FRAMES
    for out in (".mp4", ".avi"):
        saved(path, out)
    assert prepared(path) == NUM_FRAMES


def test_a_clock_of_day_keeps_its_start(tmp_path: Path) -> None:
    path = stamped(tmp_path, STAMPS["since 1970"], Fraction(1, 1000), "nut")
    reader, clips = read(path)
    assert reader.info.start_s == 1_764_300_000
    assert clips[-1].end_s == pytest.approx(0.6)


def test_the_shared_cases_go_on(shared_cases: Path, tmp_path: Path) -> None:
    hostile = shared_cases / "hostile"
    _, clips = read(hostile / "exc_21649.avi")
    assert clips[-1].end_s == pytest.approx(0.6)
    copy = tmp_path / "copy.avi"
    copy.write_bytes((hostile / "exc_21649.avi").read_bytes())
    assert saved(copy, ".mp4") is not None
    with ClipReader(hostile / "exc_17009.ts", clip=ClipSpec(), inputs=INPUTS) as reader:
        assert sum(clip.num_frames for clip in reader) == 42
