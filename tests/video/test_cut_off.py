"""Whether a file ends before its header says so; `test_stream` shows it with whole files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.video.cut_off import cut_off
from edgepkd.video.probe import StreamInfo, probe
from tests.clips import encode_clip, moving_scene


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> StreamInfo:
    """Of an MP4 of 4 seconds."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return probe(encode_clip(path, moving_scene(100)))


def test_the_missing_end_is_said_in_seconds(info: StreamInfo) -> None:
    assert cut_off(info, read_s=1.5) == (
        f"{info.source} is cut off: its header says 4.00 s, its data end at 1.50 s.")


@pytest.mark.parametrize(("claimed_s", "read_s", "is_cut"), [
    (4.0, 4.0, False), (4.0, 3.81, False), (4.0, 3.79, True),  # 0.2 s
    (40.0, 38.01, False), (40.0, 37.99, True),  # 5 %
    (4.0, 5.0, False), (None, 1.0, False),
])
def test_both_a_share_and_a_time_must_be_missing(
    info: StreamInfo, claimed_s: float | None, read_s: float, is_cut: bool
) -> None:
    said = cut_off(replace(info, duration_s=claimed_s), read_s=read_s)
    assert (said is not None) is is_cut


@pytest.mark.parametrize("change", [{"is_live": True}, {"container": "h264"}])
def test_a_camera_and_a_raw_stream_promise_no_end(
    info: StreamInfo, change: dict[str, Any]
) -> None:
    assert cut_off(replace(info, **change), read_s=0.1) is None


def test_an_avi_is_measured_by_the_bytes_its_header_counts(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "clip.avi", moving_scene(30))
    whole = path.read_bytes()
    info = replace(probe(path), duration_s=None)
    assert cut_off(info, read_s=1.2) is None
    path.write_bytes(whole[:-100])
    assert cut_off(info, read_s=1.16) == (
        f"{path} is cut off: 100 bytes that its header counts are missing, "
        "its data end at 1.16 s.")
    path.write_bytes(whole[:4] + bytes(4) + whole[8:-100])  # a recorder that never counted
    assert cut_off(info, read_s=1.16) is None
    path.unlink()
    assert cut_off(info, read_s=1.16) is None
