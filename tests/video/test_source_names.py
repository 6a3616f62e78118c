"""What people may see of a source, and what its name says it is."""

from __future__ import annotations

import pytest

from edgepkd.video.source_names import is_live_source, shown_argument, shown_source


@pytest.mark.parametrize(("address", "shown"), [
    ("rtsp://admin:hunter2@10.0.0.2:554/ch1", "rtsp://***@10.0.0.2:554/ch1"),
    ("RTSP://admin:hunter2@cam/x", "RTSP://***@cam/x"),
    ("rtsps://:hunter2@cam/x", "rtsps://***@cam/x"),
    ("rtsp://hunter2@cam/x", "rtsp://***@cam/x"),
    ("rtsp://admin:hunter2@[fe80::1%25eth0]:554/x", "rtsp://***@[fe80::1%25eth0]:554/x"),
    ("rtsp://admin:hun%40ter2@cam", "rtsp://***@cam"),
    ("rtsp://admin%3Ahunter2%40cam/x", "rtsp://***@cam/x"),
    ("rtsp://admin:hun@ter2@cam/x", "rtsp://***@cam/x"),
    ("rtsp://admin:hun/ter2@cam/x", "rtsp://***@cam/x"),
    ("rtsp://admin:1/hunter2@cam/x", "rtsp://***@cam/x"),
    ("rtsp://admin:hun:ter2@cam/x", "rtsp://***@cam/x"),
    ("rtsp://admin:hun?ter2#@cam/x", "rtsp://***@cam/x"),
    ("rtsp://cam/x?user=admin&password=hunter2", "rtsp://cam/x?user=***&password=***"),
    ("rtsp://cam/x?hunter2", "rtsp://cam/x?***"),
    ("rtsp://cam/user=admin_password=hunter2_channel=1", "rtsp://cam/user=***"),
    ("rtsp://cam/x#key=hunter2", "rtsp://cam/x#key=***"),
    ("rtsp:/admin:hunter2@cam/x", "rtsp:/***@cam/x"),
    ("rtsp:admin:hunter2@cam/x", "rtsp:***@cam/x"),
    ("https://me:hunter2@host/x.mp4?token=hunter2", "https://***@host/x.mp4?token=***"),
])
def test_no_password_is_shown(address: str, shown: str) -> None:
    assert shown_source(address) == shown
    assert shown_argument(address) == shown


@pytest.mark.parametrize("source", [
    "clip.mp4", "a:b@c.mp4", "concat:a b?.mp4", "-", "/dev/video0", "C:\\clips\\a@b.mp4",
    "rtsp://cam/x", "rtsp://cam/x@2", "rtsp://cam:554", "rtsp://10.0.0.2:554/x@2",
    "rtsp://[::1]:554/x@2", "rtsp://[::1]/x@2", "file:///home/a=b/me:you@x?y=z.mp4",
])
def test_what_holds_no_password_is_shown_whole(source: str) -> None:
    assert shown_source(source) == source


def test_an_address_without_scheme_hides_its_password_too() -> None:
    assert shown_argument("admin:hunter2@cam:554/x") == "***@cam:554/x"
    assert shown_argument("a/16:9@2.mp4") == "a/16:9@2.mp4"


@pytest.mark.parametrize(("source", "live"), [
    ("rtsp://cam/x", True), ("RTSPS://cam/x", True), ("/dev/video0", True),
    ("/dev/v4l/by-id/usb-cam", True), ("-", False), ("rtsp.mp4", False),
    ("/dev/videos/a.mp4", False), ("http://host/x", False),
])
def test_cameras_are_known_by_their_names(source: str, live: bool) -> None:
    assert is_live_source(source) == live
