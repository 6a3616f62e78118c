"""Pictures too large are refused before they are allocated, in every codec and container, at the
beginning and later."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import pytest

from edgepkd.config import MODALITIES, ClipSpec, InputSpec, Route
from edgepkd.errors import LimitError
from edgepkd.video.clips import ClipReader
from edgepkd.video.limits import Limits, limits_of
from edgepkd.video.probe import probe
from edgepkd.video.source import open_video
from tests.clips import encode_clip, moving_scene
from tests.processes import started
from tests.video.sps import with_size

INPUTS = {m: InputSpec(m, num_segments=2, resize_px=64, crop_px=64) for m in MODALITIES}
CONTAINERS = ("264", "mp4", "mkv", "flv", "ts", "mpg")
SMALL = Limits(pixels=1000, side_px=320)
"""FFmpeg itself refuses 320x240 under these."""

pytestmark = pytest.mark.timeout(60)


def h264(folder: Path, *sizes: tuple[int, int]) -> Path:
    """One raw stream after the other, of 24 pictures each: all are 64x48, whatever they say."""
    data = encode_clip(folder / "small.264", moving_scene(24, (64, 48)), codec="libx264",
                       options={"x264-params": "bframes=0:ref=1:keyint=12"}).read_bytes()
    path = folder / "clip.264"
    path.write_bytes(b"".join(with_size(data, *size) for size in sizes))
    return path


def put_into(raw: Path, suffix: str) -> Path:
    if suffix == "264":
        return raw
    path = raw.with_suffix(f".{suffix}")
    # Not even FFmpeg's own look at the stream is to make pictures of such a size.
    with av.open(str(raw), options={"max_pixels": "10000"}) as source, \
            av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.pts = packet.dts = round(number / (25 * packet.time_base))
            packet.stream = stream
            container.mux(packet)
    return path


def read_all(reader: ClipReader, given: list[int]) -> None:
    for clip in reader:
        clip.tensor("residual")
        given.append(clip.num_frames)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_huge_picture_takes_no_memory(tmp_path: Path, suffix: str) -> None:
    path = put_into(h264(tmp_path, (16_000, 16_000)), suffix)
    program = (
        "import resource, sys\n"
        "from edgepkd.errors import LimitError\n"
        "from edgepkd.video.source import open_video\n"
        "def most(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = most()\n"
        "try:\n    open_video(sys.argv[1])\nexcept LimitError as error:\n    print(error)\n"
        "print(most() - before)\n")
    with started([sys.executable, "-c", program, str(path)], stdout=-1) as child:
        out = child.communicate(timeout=50)[0].splitlines()
    assert len(out) == 2
    assert "has pictures of 16000x16000, too many pixels (256000000)" in out[0]
    assert out[0].endswith("--limit pixels=256000000.")
    per_mb = 1 << 20 if sys.platform == "darwin" else 1 << 10
    assert int(out[1]) / per_mb < 150  # a picture alone has 384 MB


@pytest.mark.slow
@pytest.mark.parametrize("route", ["native", "normalize"])
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_picture_that_grows_later_ends_the_clips(
    tmp_path: Path, suffix: str, route: Route
) -> None:
    path = put_into(h264(tmp_path, *[(64, 48)] * 4, (16_000, 16_000)), suffix)
    given: list[int] = []
    with ClipReader(str(path), clip=ClipSpec(clip_frames=12, stride_frames=12), inputs=INPUTS,
                    route=route) as reader, \
            pytest.raises(LimitError, match=r"has pictures of 16000x16000.*the limit pixels"):
        read_all(reader, given)
    assert sum(given) >= 24


CODECS = [
    ("mpeg4", "avi"), ("mpeg4", "mp4"), ("mpeg4", "m4v"), ("mpeg1video", "mpg"),
    ("mpeg2video", "mpg"), ("mpeg2video", "ts"), ("mpeg2video", "m2v"), ("libx264", "mp4"),
    ("libx264", "264"), ("libx264", "flv"), ("libx265", "mp4"), ("libx265", "hevc"),
    ("mjpeg", "avi"), ("mjpeg", "mjpeg"), ("flv", "flv"), ("wmv2", "asf"), ("libvpx", "webm"),
    ("libvpx-vp9", "webm"), ("libsvtav1", "mkv"), ("ffv1", "mkv"), ("huffyuv", "avi"),
    ("rawvideo", "nut"), ("gif", "gif"), ("apng", "apng"), ("wrapped_avframe", "y4m"),
    ("prores", "mov"), ("dvvideo", "dv")]
PIXELS = {"gif": "rgb8", "apng": "rgb24", "mjpeg": "yuvj420p", "huffyuv": "yuv422p",
          "prores": "yuv422p10le"}


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "suffix"), CODECS)
def test_every_codec_keeps_to_the_limit_and_to_a_raised_one(
    tmp_path: Path, codec: str, suffix: str
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    size = (720, 576) if codec == "dvvideo" else (320, 240)
    formats = {"m4v": "m4v", "m2v": "mpeg2video", "y4m": "yuv4mpegpipe"}
    path = encode_clip(tmp_path / f"clip.{suffix}", moving_scene(4, size), codec=codec,
                       pix_fmt=PIXELS.get(codec, "yuv420p"), container_format=formats.get(suffix))
    with open_video(str(path)) as video:
        assert probe(video).pix_fmt is not None
    with pytest.raises(LimitError, match=rf"has pictures of {size[0]}x{size[1]}") as caught:
        open_video(str(path), limits=SMALL)
    hint = str(caught.value.hint)
    wanted = hint.rstrip(".").rpartition("--limit ")[2]
    assert wanted == f"pixels={size[0] * size[1]}"
    with open_video(str(path), limits=limits_of([wanted])) as video:
        assert probe(video).pix_fmt is not None


def test_a_damaged_packet_is_no_large_picture(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "clip.mkv", moving_scene(24, (64, 48)), codec="libx264",
                       options={"x264-params": "bframes=0:keyint=6"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        damaged = [bytes(packet) for packet in container.demux(video=0) if packet.size][12]
    at = data.index(damaged) + 4
    data[at : at + len(damaged) - 4] = b"\xff" * (len(damaged) - 4)
    path.write_bytes(data)
    with ClipReader(str(path), clip=ClipSpec(), inputs=INPUTS,
                    limits=Limits(pixels=64 * 48)) as reader:
        assert sum(clip.num_frames for clip in reader) >= 18


def test_the_shared_case_is_refused_and_allowed(shared_cases: Path) -> None:
    path = str(shared_cases / "hostile" / "huge-picture-12kB.avi")
    with pytest.raises(LimitError, match=r"64x32816.*the limit side_px.*--limit side_px=32816"):
        open_video(path)
    with open_video(path, limits=Limits(side_px=32_816)) as video:
        assert probe(video).height_px == 32_816
