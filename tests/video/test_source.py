"""Finding and opening sources: every way in, and every way it can go wrong."""

from __future__ import annotations

import io
import os
import socket
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from edgepkd.errors import SourceError
from edgepkd.video import source
from edgepkd.video.source import open_video, resolve_sources
from tests.clips import encode_clip, moving_scene


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return encode_clip(tmp_path_factory.mktemp("source") / "clip.mp4", moving_scene(30))


class Pipe(io.RawIOBase):
    """Bytes that cannot be sought, as standard input gives them."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer) -> int:
        return self._rest.readinto(buffer)


def pipe_in(monkeypatch, data: bytes) -> None:
    buffer = io.BufferedReader(Pipe(data))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=buffer))


@pytest.mark.smoke
def test_folder_pattern_and_file_resolve_in_natural_order(tmp_path) -> None:
    for name in ("clip10.mp4", "clip2.AVI", "sub/clip1.mkv", "notes.txt", ".hidden/clip.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    names = [Path(p).name for p in resolve_sources(str(tmp_path))]
    assert names == ["clip2.AVI", "clip10.mp4", "clip1.mkv"]
    assert resolve_sources(str(tmp_path / "clip*.mp4")) == [str(tmp_path / "clip10.mp4")]
    assert resolve_sources(str(tmp_path / "notes.txt")) == [str(tmp_path / "notes.txt")]
    odd = tmp_path / "a[1].mp4"
    odd.write_bytes(b"x")
    assert resolve_sources(str(odd)) == [str(odd)]
    for live in ("-", "rtsp://host/x", "/dev/video0"):
        assert resolve_sources(live) == [live]


@pytest.mark.parametrize(("argument", "message"), [
    ("nothing.mp4", "does not exist; allowed: a file, a folder"),
    ("*.nothing", "No file fits the pattern"),
    ("http://host/x.mp4", "no source edgepkd can open"),
    ("", "holds no video; allowed suffixes: .264"),
])
def test_what_is_not_there_is_said(tmp_path, argument: str, message: str) -> None:
    if "://" not in argument:
        argument = str(tmp_path / argument)
    with pytest.raises(SourceError, match=message.replace(".", r"\.")) as caught:
        resolve_sources(argument)
    assert caught.value.hint


def test_opening_what_is_no_video_is_said(tmp_path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "text.txt").write_text("hello\n" * 100)
    with av.open(str(tmp_path / "audio.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    for name, message in (
        ("missing.mp4", "does not exist"), ("empty.mp4", r"is empty \(0 bytes\)"),
        ("noise.mp4", "cannot be opened: invalid data"), ("text.txt", "is text|cannot be opened"),
        ("audio.wav", "no video stream; streams found: audio"), ("", "is a folder"),
    ):
        with pytest.raises(SourceError, match=message) as caught:
            open_video(str(tmp_path / name))
        assert caught.value.message.count("\n") == 0


def test_unreadable_file_is_said(clip, monkeypatch) -> None:
    # Not by chmod: the superuser may read everything.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SourceError, match="permission denied"):
        open_video(str(clip))


def test_cameras_that_do_not_answer_are_said() -> None:
    with pytest.raises(SourceError, match=r"rtsp://127\.0\.0\.1:9/x cannot be opened"):
        open_video("rtsp://127.0.0.1:9/x")
    with pytest.raises(SourceError, match="/dev/video99 does not exist"):
        open_video("/dev/video99")


def test_a_camera_that_says_nothing_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(source, "OPEN_TIMEOUT_S", 0.3)
    monkeypatch.setattr(source, "READ_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"rtsp://127.0.0.1:{server.getsockname()[1]}/x"
        with pytest.raises(SourceError, match="cannot be opened") as caught:
            open_video(address)
    assert "Check the address" in str(caught.value)


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


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "ts"])
def test_standard_input_gives_the_same_packets_as_the_file(
    tmp_path, monkeypatch, suffix: str
) -> None:
    path = encode_clip(tmp_path / f"c.{suffix}", moving_scene(20), codec="mpeg4")
    with open_video(str(path)) as video:
        expected = [bytes(p) for p in video.packets()]
    pipe_in(monkeypatch, path.read_bytes())
    with open_video("-") as video:
        assert [bytes(p) for p in video.packets()] == expected
    assert len(expected) == 20


def test_empty_and_senseless_standard_input_are_said(monkeypatch) -> None:
    pipe_in(monkeypatch, b"")
    with pytest.raises(SourceError, match=r"Standard input is empty"):
        open_video("-")
    pipe_in(monkeypatch, b"senseless" * 999)
    with pytest.raises(SourceError, match="Standard input cannot be opened"):
        open_video("-")


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


def test_file_names_with_colons_and_spaces_open(clip, tmp_path) -> None:
    path = tmp_path / "concat:a b?.mp4"
    path.write_bytes(clip.read_bytes())
    with open_video(str(path)) as video:
        assert len(video.peek(1)) == 1


def test_closing_twice_is_harmless(clip) -> None:
    video = open_video(str(clip))
    video.peek(3)
    video.close()
    video.close()
