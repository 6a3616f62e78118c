"""One open video: its stream, its packets, its end."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from edgepkd.errors import SourceError
from edgepkd.video.probe import probe
from edgepkd.video.source import open_video
from edgepkd.video.video_input import VideoInput
from tests.clips import encode_clip, moving_scene
from tests.video.reading import cover_only


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return encode_clip(tmp_path_factory.mktemp("source") / "clip.mp4", moving_scene(30))


def sizes(source) -> list[int]:
    with open_video(source) as video:
        return [p.size for p in video.packets()]


def test_an_input_shows_no_password(tmp_path) -> None:
    address = "rtsp://admin:hunter2@cam/x"
    longer = encode_clip(tmp_path / "longer.mp4", moving_scene(40))
    container = av.open(str(longer))
    with VideoInput(address, container, container.streams.video[0]) as video:
        assert (video.source, video.name, video.is_live) == (
            "rtsp://***@cam/x", "rtsp://***@cam/x", True)
        assert probe(video).source == "rtsp://***@cam/x"


def test_peeked_packets_come_again(clip) -> None:
    with open_video(str(clip)) as video:
        assert [p.size for p in video.peek(5)] == [p.size for p in video.peek(5)]
        sizes = [p.size for p in video.packets()]
    with open_video(str(clip)) as video:
        assert [p.size for p in video.packets()] == sizes
        assert video.peek(1) == []
    assert len(sizes) == 30
    with open_video(str(clip)) as video:
        assert len(video.peek(99)) == 30


def test_default_stream_is_the_largest_picture(tmp_path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for width in (64, 160, 96):
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
            stream.disposition = 0
            streams.append(stream)
        for stream in streams:
            for n, array in enumerate(moving_scene(3, (stream.width, 64))):
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                frame.pts, frame.time_base = n, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    with open_video(str(path)) as video:
        assert video.stream.codec_context.width == 160
        assert {p.stream_index for p in video.packets()} == {video.stream.index}


def test_closing_twice_is_harmless(clip) -> None:
    video = open_video(str(clip))
    video.peek(3)
    video.close()
    with pytest.raises(AssertionError, match="not open"):  # PyAV's
        video.container.seek(0)
    video.close()


@pytest.mark.parametrize("suffix", ["mp3", "mp4"])
def test_cover_art_is_no_video(tmp_path, suffix: str) -> None:
    path = cover_only(tmp_path / f"song.{suffix}")
    with pytest.raises(SourceError, match=r"has no video stream but a cover picture\."):
        open_video(path)


def test_a_stream_that_begins_later_is_passed_over(shared_cases: Path) -> None:
    """A TS may gain a stream after it was opened; PyAV knows only those that it began with."""
    path = shared_cases / "hostile" / "exc_17009.ts"
    with av.open(str(path)) as container, pytest.raises(IndexError):
        for _ in container.demux(container.streams.video[0]):
            pass
    with open_video(str(path)) as video:
        assert len(list(video.packets())) > 10
