"""Cameras that go away, stall, refuse or never answer: each says so, in time, and no password."""

from __future__ import annotations

import errno
import re
import socket
from pathlib import Path

import av
import pytest

from edgepkd.errors import SourceError
from edgepkd.video import cameras
from edgepkd.video.cameras import stopped
from edgepkd.video.probe import probe
from edgepkd.video.source import open_video
from tests.clips import encode_clip, moving_scene
from tests.video.rtsp_camera import camera

NUM_FRAMES = 50


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("camera") / "clip.ts"
    return encode_clip(path, moving_scene(NUM_FRAMES), codec="libx264").read_bytes()


@pytest.fixture(autouse=True)
def short_times(monkeypatch) -> None:
    monkeypatch.setattr(cameras, "OPEN_TIMEOUT_S", 0.5)
    monkeypatch.setattr(cameras, "READ_TIMEOUT_S", 0.5)


def address(port: int, user: str = "admin:hunter2@") -> str:
    return f"rtsp://{user}127.0.0.1:{port}/x"


def watched(port: int) -> tuple[int, SourceError]:
    """Packets seen of a camera, and how it ended."""
    seen: list[int] = []

    def watch() -> None:
        with open_video(address(port)) as video:
            seen.extend(packet.size for packet in video.packets())

    with pytest.raises(SourceError) as caught:
        watch()
    assert caught.value.hint
    assert "hunter2" not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"
    assert f"rtsp://***@127.0.0.1:{port}/x" in caught.value.message
    return len(seen), caught.value


@pytest.mark.parametrize("manner", ["close", "bye"])
def test_a_camera_that_ends_the_stream_has_failed(content, manner) -> None:
    with camera(content, then=manner) as port:
        count, error = watched(port)
    assert count >= NUM_FRAMES - 2, "the last frame is still in the demuxer"
    assert re.search(rf"ended the stream after {count} packets, \d+\.\d s: the camera stopped it "
                     "or", error.message)


def test_a_camera_that_breaks_off_has_failed(content) -> None:
    with camera(content, then="reset") as port:
        _, error = watched(port)
    assert "ended the stream" in error.message or "stopped sending" in error.message


@pytest.mark.slow
def test_a_camera_that_stalls_says_for_how_long(content) -> None:
    with camera(content, then="stall") as port:
        count, error = watched(port)
    assert re.search(rf"stopped sending after {count} packets, .*: nothing came for 0\.5 s",
                     error.message)
    assert "immediate exit" not in error.message


@pytest.mark.slow
@pytest.mark.parametrize(("manner", "message"), [
    ("mute", "no answer within 0.5 s"),
    ("no packets", "no answer within 0.5 s"),
    ("nonsense", "answers, but not as a camera"),
])
def test_a_camera_that_gives_nothing_is_given_up(manner, message: str) -> None:
    with camera(b"", then=manner) as port, pytest.raises(SourceError, match=message) as caught:
        open_video(address(port))
    assert "invalid data" not in caught.value.message
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("status", "message"), [
    ("401 Unauthorized", "does not accept the user name or the password, .*401"),
    ("403 Forbidden", "may not see the stream .*403"),
    ("404 Not Found", "no stream at this path .*404"),
    ("461 Unsupported transport", "refuses the request"),
    ("503 Service Unavailable", "an error of its own"),
])
def test_a_camera_that_refuses_says_why(content, status: str, message: str) -> None:
    with camera(content, status=status) as port, pytest.raises(
            SourceError, match=message) as caught:
        open_video(address(port))
    assert caught.value.hint
    assert "hunter2" not in str(caught.value)


def test_no_camera_at_all_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SourceError, match=f"refused, nothing listens on port {port}"):
        open_video(address(port))
    with pytest.raises(SourceError, match=r"host 'no\.such\.host\.invalid' is unknown"):
        open_video("rtsp://admin:hunter2@no.such.host.invalid/x")
    with pytest.raises(SourceError, match="its port is not a number"):
        open_video("rtsp://127.0.0.1:99999/x")
    with pytest.raises(SourceError, match="it names no host"):
        open_video("rtsp:///x")


def test_a_password_with_a_slash_is_said_and_not_shown() -> None:
    with pytest.raises(SourceError, match="holds a '/', '\\?' or '#'") as caught:
        open_video("rtsp://admin:hunter2/x@127.0.0.1:9/x")
    assert "%2F" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("number", "message"), [
    (errno.EBUSY, "another program holds the camera"), (errno.EACCES, "permission denied"),
    (errno.ENODEV, "unplugged"), (errno.ENOTTY, "it is no camera"), (errno.ENOSPC, "no space"),
])
def test_local_cameras_that_do_not_open_say_why(monkeypatch, number: int, message: str) -> None:
    def refuse(name: str, **_: object) -> None:
        raise av.error.OSError(number, "no space left", name)

    monkeypatch.setattr("os.path.exists", lambda _: True)
    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(SourceError, match=f"/dev/video0 cannot be opened: .*{message}") as caught:
        open_video("/dev/video0")
    assert caught.value.hint


def test_a_local_camera_that_is_unplugged_says_so() -> None:
    for error in (None, av.error.OSError(errno.ENODEV, "No such device", "/dev/video0")):
        found = stopped("/dev/video0", error, num_packets=7, seconds=0.5)
        assert "stopped sending after 7 packets, 0.5 s: the camera is unplugged" in found.message


def test_a_stream_that_is_not_asked_to_the_end_is_no_failure(content, tmp_path: Path) -> None:
    with camera(content, then="stall") as port, open_video(address(port)) as video:
        assert probe(video).codec == "h264"
        packets = video.packets()
        assert [next(packets).size > 0 for _ in range(5)] == [True] * 5
