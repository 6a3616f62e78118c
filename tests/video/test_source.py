"""Finding and opening sources: every way in, and every way it can go wrong."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import traceback
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from edgepkd.errors import ConfigError, SourceError
from edgepkd.video.probe import probe
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


def shown_of(error: BaseException | None) -> str:
    """All that a traceback of `error` and of what led to it can show."""
    seen = ""
    while error is not None:
        filename = getattr(error, "filename", "")
        seen += f"{error} {error!r} {error.args} {filename} {getattr(error, 'hint', '')}\n"
        seen += "".join(traceback.format_exception(error))
        error = error.__cause__ or error.__context__
    return seen


@pytest.mark.parametrize("address", [
    "rtsp://admin:hunter2@127.0.0.1:9/x", "rtsp://127.0.0.1:9/x?password=hunter2",
    "rtsp://admin:hun%40hunter2@127.0.0.1:9/x", "http://admin:hunter2@127.0.0.1:9/x",
    "admin:hunter2@127.0.0.1:9/x", "admin:hunter2@127.0.0.1:9/*.mp4",
])
def test_no_error_shows_a_password(address: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_video(resolve_sources(address)[0])
    assert "127.0.0.1" in caught.value.message
    assert "hunter2" not in shown_of(caught.value)


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
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="Standard input is closed"):
        open_video("-")
    pipe_in(monkeypatch, b"senseless" * 999)
    with pytest.raises(SourceError, match="Standard input cannot be opened"):
        open_video("-")


def test_file_names_with_colons_and_spaces_open(clip, tmp_path) -> None:
    path = tmp_path / "concat:a b?.mp4"
    path.write_bytes(clip.read_bytes())
    with open_video(str(path)) as video:
        assert len(video.peek(1)) == 1


TITLE = "a title that is long enough"


@pytest.mark.parametrize("title", [
    "\u30c6\u30b9\u30c8\u52d5\u753b".encode("shift-jis"),
    "\u00e9t\u00e9 \u00e0 la plage".encode("latin-1"),
    "\u0442\u0435\u0441\u0442".encode("cp1251")], ids=["shift-jis", "latin-1", "cp1251"])
@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4", "ts", "nut"])
def test_titles_in_any_code_page_open(tmp_path, monkeypatch, suffix: str, title: bytes) -> None:
    path = tmp_path / f"titled.{suffix}"
    with av.open(str(path), "w") as container:
        container.metadata.update(title=TITLE, service_name=TITLE)
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.metadata["title"] = TITLE
        container.set_chapters([{"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000),
                                 "metadata": {"title": TITLE}}])
        for array in moving_scene(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))
    with open_video(str(path)) as video:
        expected = [bytes(p) for p in video.packets()]
    content = path.read_bytes()
    assert TITLE.encode() in content
    odd = content.replace(TITLE.encode(), title.ljust(len(TITLE)))
    path.write_bytes(odd)
    with open_video(str(path)) as video:
        assert [bytes(p) for p in video.packets()] == expected
    pipe_in(monkeypatch, odd)
    with open_video("-") as video:
        assert [bytes(p) for p in video.packets()] == expected
    assert len(expected) == 5


def test_a_real_title_in_shift_jis_opens(shared_cases) -> None:
    with open_video(str(shared_cases / "sjis_title.avi")) as video:
        assert probe(video).num_packets_seen > 10


def test_the_scheme_may_be_in_any_case() -> None:
    with pytest.raises(SourceError, match="refused"):
        open_video("RTSP://127.0.0.1:9/x")


def test_file_addresses_open(clip, tmp_path, monkeypatch) -> None:
    path = tmp_path / "with blank 50%.mp4"
    path.write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in (path.as_uri(), path.as_uri().replace("file:", "FILE:"), f"file:{path}",
                 "file:with%20blank%2050%25.mp4", "file:with blank 50%.mp4",
                 path.as_uri().replace("file://", "file://localhost")):
        with open_video(resolve_sources(name)[0]) as video:
            assert len(video.peek(99)) == 30, name
    for name in ("file://host/x.mp4", "file:///nothing.mp4"):
        with pytest.raises(SourceError, match=r"not a source that edgepkd can open|does not exist"):
            resolve_sources(name)


def sizes(source) -> list[int]:
    with open_video(source) as video:
        return [p.size for p in video.packets()]


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "ts"])
def test_paths_and_open_files_give_the_same_packets(tmp_path, suffix: str) -> None:
    path = encode_clip(tmp_path / f"c.{suffix}", moving_scene(20), codec="mpeg4")
    expected = sizes(str(path))
    assert len(expected) == 20
    assert sizes(path) == expected
    data = path.read_bytes()
    for file in (io.BytesIO(data), path.open("rb"), path.open("rb", buffering=0),
                 io.BufferedReader(Pipe(data)), Pipe(data)):
        assert sizes(file) == expected
        assert not file.closed
        file.close()


def test_a_file_is_read_from_where_it_stands(clip) -> None:
    expected, file = sizes(clip), io.BytesIO(b"a head of its own" + clip.read_bytes())
    file.seek(17)
    assert sizes(file) == expected
    with pytest.raises(SourceError, match=r"<file object> is empty .* read to its end"):
        open_video(file)


def test_open_files_are_shown_by_their_names(clip, tmp_path) -> None:
    with clip.open("rb") as file, open_video(file) as video:
        assert video.name == str(clip)
    with open_video(io.BytesIO(clip.read_bytes())) as video:
        assert video.name == "<file object>"
    with tempfile.TemporaryFile() as file:
        file.write(clip.read_bytes())
        file.seek(0)
        with open_video(file) as video:
            assert video.name == "<file object>", "a number is no name"


def test_what_is_no_file_of_bytes_is_said(clip, tmp_path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("hello")
    closed = path.open("rb")
    closed.close()
    with path.open() as text, pytest.raises(SourceError, match=r"open as text; .* 'rb'"):
        open_video(text)
    with pytest.raises(SourceError, match="cannot be read"):
        open_video(closed)
    for wrong in (7, None, clip.read_bytes()):
        with pytest.raises(SourceError, match="a source is of type"):
            open_video(wrong)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1001])
def test_frame_rates_out_of_range_are_refused(clip, fps: float) -> None:
    with pytest.raises(ConfigError, match=r"fps is .*; allowed: frames per second"):
        open_video(clip, fps=fps)


def test_the_frame_rate_given_is_handed_on(clip) -> None:
    with open_video(clip, fps=29.97) as video:
        assert video.fps == Fraction(2997, 100)
    with open_video(clip) as video:
        assert video.fps is None


def test_paths_that_cannot_be_looked_at_are_said(tmp_path, clip) -> None:
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nothing")
    for name, message in (
        (tmp_path / "gone.mp4", "does not exist: it is a broken link"),
        (clip / "x.mp4", "cannot be read: not a directory"),
        ("a" * 5000, "cannot be read: file name too long"),
        ("a\0b.mp4", "is no name of a file"), ("", "'' does not exist"),
    ):
        for opening in (open_video, resolve_sources):
            with pytest.raises(SourceError, match=message):
                opening(name if isinstance(name, str) else str(name))
