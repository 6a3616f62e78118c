"""FFmpeg opens what is on the list, and nothing that a source names."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import pytest

from edgepkd.config import MODALITIES, ClipSpec, InputSpec
from edgepkd.errors import LimitError, SourceError
from edgepkd.video.clips import ClipReader
from edgepkd.video.limits import Limits
from edgepkd.video.source import STDIN, open_video
from tests.clips import encode_clip, moving_scene

INPUTS = {m: InputSpec(m, num_segments=2, resize_px=64, crop_px=64) for m in MODALITIES}
PLAYLISTS = {
    "hls": ("an HLS playlist", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{target}\n"
                               "#EXT-X-ENDLIST\n"),
    "concat": ("a concat script", "ffconcat version 1.0\nfile {target}\n"),
    "sdp": ("an SDP session description",
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            "m=video 45678 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"),
    "dash": ("a DASH manifest",
             '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
             'mediaPresentationDuration="PT1S"><Period><AdaptationSet><BaseURL>{target}</BaseURL>'
             "</AdaptationSet></Period></MPD>\n"),
}
NAMES = {"hls": "list.m3u8", "concat": "list.ffconcat", "sdp": "list.sdp", "dash": "list.mpd"}

pytestmark = pytest.mark.timeout(60)


class Stream(io.RawIOBase):
    """Bytes that cannot be sought in, as those of a pipe."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        return self._data.readinto(buffer)


@contextmanager
def trap(folder: Path) -> Iterator[tuple[str, threading.Event]]:
    """A named pipe that says if somebody opens it."""
    path, opened = folder / "secret.ts", threading.Event()
    os.mkfifo(path)

    def wait() -> None:
        with path.open("wb"):
            opened.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield path.name, opened
        was_open = opened.is_set()
    finally:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        thread.join()
        os.close(reader)
    if not was_open:
        opened.clear()


def ways(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], object]]:
    """Open a file by name, as a file object that has its name, as bytes, as a pipe."""
    yield lambda: open_video(path)
    with path.open("rb") as file:
        yield lambda: open_video(file)
    yield lambda: open_video(io.BytesIO(path.read_bytes()))
    stdin = io.TextIOWrapper(io.BufferedReader(Stream(path.read_bytes())))
    monkeypatch.setattr("sys.stdin", stdin)
    yield lambda: open_video(STDIN)


@pytest.mark.parametrize("named", ["as it is", "lie.mp4", "lie.avi"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_opens_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, named: str
) -> None:
    what, text = PLAYLISTS[kind]
    path = tmp_path / (NAMES[kind] if named == "as it is" else named)
    monkeypatch.chdir(tmp_path)
    with trap(tmp_path) as (target, opened):
        for prefix in ("", f"file:{tmp_path}/", f"{tmp_path}/"):
            path.write_text(text.format(target=prefix + target))
            for way in ways(path, monkeypatch):
                with pytest.raises(SourceError, match=f"is {what}, which names other") as caught:
                    way()
                assert "--allow-playlists" in str(caught.value.hint)
    assert not opened.is_set()


@pytest.mark.parametrize("kind", ["hls", "concat", "dash"])
@pytest.mark.parametrize("scheme", ["http://", "tcp://", "rtsp://", "udp://"])
def test_a_playlist_opens_no_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, scheme: str
) -> None:
    path = tmp_path / NAMES[kind]
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        path.write_text(PLAYLISTS[kind][1].format(target=f"{scheme}127.0.0.1:{port}/a.ts"))
        for way in ways(path, monkeypatch):
            with pytest.raises(SourceError, match="which names other files or addresses"):
                way()
        with pytest.raises(BlockingIOError):
            server.accept()


def test_an_sdp_listens_on_no_port(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = PLAYLISTS["sdp"][1].replace("45678", str(port))
    with suppress(SourceError):
        open_video(io.BytesIO(text.encode()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))
        assert again.getsockname()[1] == port


@pytest.mark.parametrize("name", ["list", "lie.mp4"])
@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_a_playlist_that_is_trusted_is_read(tmp_path: Path, kind: str, name: str) -> None:
    encode_clip(tmp_path / "part.ts", moving_scene(24, (64, 48)), codec="mpeg2video")
    path = tmp_path / (NAMES[kind] if name == "list" else name)
    path.write_text(PLAYLISTS[kind][1].format(target="part.ts"))
    with ClipReader(path, clip=ClipSpec(), inputs=INPUTS,
                    limits=Limits(playlists=True)) as reader:
        assert sum(clip.num_frames for clip in reader) == 24


def test_trust_in_playlists_changes_nothing_else(tmp_path: Path) -> None:
    limits = Limits(playlists=True)
    path = encode_clip(tmp_path / "a.mp4", moving_scene(8))
    with open_video(path, limits=limits) as video:
        assert len(list(video.packets())) == 8
    (tmp_path / "noise.mp4").write_bytes(b"\x91\x02\x77" * 500)
    with pytest.raises(SourceError, match="cannot be opened"):
        open_video(tmp_path / "noise.mp4", limits=limits)


@pytest.mark.parametrize("text", [
    ";FFMETADATA1\ntitle=x\n",
    "# VobSub index file, v7 (do not modify this line!)\nsize: 720x576\n"])
def test_a_format_that_is_not_on_the_list_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_text(text + "\n" * 2000)
    with pytest.raises(SourceError, match=r"not on the list|cannot be opened|no video stream"):
        open_video(path)


def test_a_picture_named_as_a_pattern_stands_for_itself(tmp_path: Path) -> None:
    pictures = list(encode_pictures(tmp_path, 3))
    literal = tmp_path / "img%03d.png"
    literal.write_bytes(pictures[0].read_bytes())
    with pytest.raises(SourceError, match="is a picture, not a video"):
        open_video(literal)
    with open_video(tmp_path) as video:
        assert len(list(video.packets())) == 4


def encode_pictures(folder: Path, count: int) -> Iterator[Path]:
    from PIL import Image

    for number, frame in enumerate(moving_scene(count, (64, 48))):
        path = folder / f"img{number:03d}.png"
        Image.fromarray(frame).save(path)
        yield path


FORMATS = [
    ("avi", "mpeg4", None), ("mp4", "mpeg4", None), ("mov", "mpeg4", None), ("3gp", "mpeg4", None),
    ("m4v", "mpeg4", "m4v"), ("mkv", "mpeg4", None), ("webm", "libvpx", None),
    ("flv", "flv", None), ("f4v", "libx264", None), ("ts", "mpeg2video", None),
    ("m2ts", "libx264", "mpegts"), ("mpg", "mpeg2video", None), ("vob", "mpeg2video", None),
    ("m2v", "mpeg2video", None), ("m1v", "mpeg1video", None), ("wmv", "wmv2", "asf"),
    ("asf", "wmv2", None), ("nut", "mpeg4", None), ("h264", "libx264", None),
    ("264", "libx264", "h264"), ("hevc", "libx265", None), ("265", "libx265", "hevc"),
    ("mjpeg", "mjpeg", None), ("gif", "gif", None), ("apng", "apng", None),
    ("ivf", "libvpx", None), ("obu", "libsvtav1", None), ("mxf", "mpeg2video", None),
    ("ogv", "libvpx", "ogg"), ("y4m", "wrapped_avframe", "yuv4mpegpipe"), ("dv", "dvvideo", None),
    ("rm", "rv10", "rm"), ("h261", "h261", None), ("h263", "h263", None),
    ("swf", "flv", None), ("gxf", "mpeg2video", None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "codec", "kind"), FORMATS)
@pytest.mark.parametrize("piped", [False, True])
def test_formats_of_video_open_from_files_and_pipes(
    tmp_path: Path, suffix: str, codec: str, kind: str | None, piped: bool
) -> None:
    size = {"dv": (720, 576), "h261": (176, 144), "h263": (176, 144), "gxf": (720, 576)}.get(
        suffix, (64, 48))
    pix_fmt = {"gif": "rgb8", "apng": "rgb24", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    path = tmp_path / f"clip.{suffix}"
    try:
        encode_clip(path, moving_scene(12, size), codec=codec, container_format=kind,
                    pix_fmt=pix_fmt)
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg does not write it: {error}")
    source = io.BufferedReader(Stream(path.read_bytes())) if piped else path
    with open_video(source) as video:
        assert len(list(video.packets())) >= 11


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_the_number_of_streams_is_limited(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"many.{suffix}"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg2video", rate=25) for _ in range(12)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(3):
            for stream in streams:
                frame = av.VideoFrame(64, 48, "yuv420p")
                frame.pts = number
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    with open_video(path) as video:
        assert len(video.container.streams) == 12
    with pytest.raises(LimitError, match=r"has too many streams; allowed: 8, the limit streams"):
        open_video(path, limits=Limits(streams=8))


def test_codec_settings_are_limited(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "a.mkv", moving_scene(4), codec="libx264")
    with open_video(path) as video:
        size = len(video.stream.codec_context.extradata)
    with pytest.raises(LimitError, match=rf"\({size}\); allowed: 10, the limit header_bytes"):
        open_video(path, limits=Limits(header_bytes=10))
