"""The re-encoded form of a stream: its GOPs, times, orientation, errors and memory."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgepkd.errors import DecodeError
from edgepkd.video.normalize import NormalizedVideo, normalized
from edgepkd.video.source import open_video
from tests.clips import encode_clip, moving_scene


def run(path: Path, **kw: Any) -> tuple[NormalizedVideo, list[av.Packet]]:
    with open_video(str(path)) as video:
        form = normalized(video, **kw)
        return form, list(form.packets())


def decode(packets: list[av.Packet]) -> list[np.ndarray]:
    context = av.CodecContext.create("mpeg4", "r")
    frames = [f for packet in [*packets, None] for f in context.decode(packet)]
    return [frame.to_ndarray(format="rgb24") for frame in frames]


def rotate(path: Path, degrees: int) -> Path:
    out = path.with_name(f"{path.stem}_{degrees}.mp4")
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return out


def hard_cuts(num_frames: int) -> np.ndarray:
    """A new picture every 7 frames, so that cuts fall on no GOP border."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (num_frames // 7 + 1, 8, 10, 3), dtype=np.uint8)
    return pictures.repeat(8, 1).repeat(8, 2).repeat(7, 0)[:num_frames]


def test_gops_are_strict_even_across_hard_cuts(tmp_path) -> None:
    path = encode_clip(tmp_path / "cuts.mp4", hard_cuts(60), codec="libx264")
    form, packets = run(path)
    assert [n for n, p in enumerate(packets) if p.is_keyframe] == [0, 12, 24, 36, 48]
    assert len(packets) == form.counters.frames_encoded == 60
    context = av.CodecContext.create("mpeg4", "r")
    frames = [f for packet in [*packets, None] for f in context.decode(packet)]
    assert {(f.width, f.height, f.format.name) for f in frames} == {(340, 256, "yuv420p")}
    assert {int(f.pict_type) for f in frames} == {1, 2}  # I and P
    assert (form.params.width_px, form.params.height_px) == (340, 256)
    _, packets = run(path, gop_frames=20)
    assert [n for n, p in enumerate(packets) if p.is_keyframe] == [0, 20, 40]


def test_pictures_stay_what_they_are(tmp_path) -> None:
    scene = moving_scene(20, (340, 256))
    path = encode_clip(tmp_path / "c.mp4", scene, codec="libx264", quality=1,
                       options={"x264-params": "bframes=3:b-adapt=0"})
    pictures = decode(run(path)[1])
    errors = [np.abs(a.astype(int) - b).mean() for a, b in zip(pictures, scene, strict=True)]
    assert max(errors) < 6
    assert np.abs(pictures[0].astype(int) - scene[10]).mean() > 2 * max(errors)


def test_full_range_becomes_limited_range(tmp_path) -> None:
    white = np.full((3, 64, 96, 3), 255, np.uint8)
    path = encode_clip(tmp_path / "c.avi", white, codec="mjpeg", pix_fmt="yuvj420p")
    assert decode(run(path)[1])[0].min() > 250


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "mpeg4"), ("mp4", "libx264")])
def test_times_are_those_of_the_source(tmp_path, suffix: str, codec: str) -> None:
    pts = np.cumsum([0, 1, 1, 5, 1, 2, 9, 1, 1, 1, 3, 1, 1]).tolist()
    path = encode_clip(tmp_path / f"v.{suffix}", moving_scene(13), codec=codec, pts=pts)
    _, packets = run(path)
    times = [float(p.pts * p.time_base) for p in packets]
    assert times == pytest.approx([p / 25 for p in pts], abs=2e-3)


def test_streams_without_times_are_counted(tmp_path) -> None:
    path = encode_clip(tmp_path / "c.264", moving_scene(30), codec="libx264")
    with av.open(str(path)) as container:
        assert next(iter(container.demux(video=0))).pts is None
    _, packets = run(path)
    times = [float(p.pts * p.time_base) for p in packets]
    assert times == pytest.approx(np.arange(30) / 25, abs=1e-6)
    avi = encode_clip(tmp_path / "c.avi", moving_scene(30), max_b_frames=2)
    _, packets = run(avi, use_timestamps=False)
    assert [float(p.pts * p.time_base) for p in packets] == pytest.approx(
        (np.arange(len(packets)) / 25).tolist())


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_turns_the_pixels(tmp_path, degrees: int) -> None:
    corners = np.zeros((3, 96, 96, 3), np.uint8)
    corners[:, :48, :48] = (250, 20, 20)
    corners[:, :48, 48:] = (20, 250, 20)
    path = rotate(encode_clip(tmp_path / "c.mp4", corners, codec="libx264"), degrees)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation in (degrees, -degrees if abs(degrees) == 180 else degrees)
    picture = decode(run(path)[1])[0]
    # Positive is counter-clockwise, by FFmpeg's definition of the display matrix.
    upright = np.rot90(corners[0], degrees // 90)
    for y, x in ((64, 85), (64, 255), (192, 85), (192, 255)):
        np.testing.assert_allclose(picture[y, x], upright[y * 96 // 256, x * 96 // 340], atol=25)


def test_interlaced_frames_give_one_field(tmp_path) -> None:
    """Even lines dark, odd lines bright: a field is one of the two, a frame is a comb."""
    comb = np.full((6, 128, 96, 3), 40, np.uint8)
    comb[:, 1::2] = 200
    path = encode_clip(tmp_path / "i.mp4", comb, codec="libx264", quality=1,
                       options={"x264-params": "interlaced=1:bframes=0"})
    form, packets = run(path)
    assert form.counters.fields_taken == 6
    for picture in decode(packets):
        assert picture.mean() == pytest.approx(40, abs=6)
        assert picture.std() < 10


def test_odd_sizes_and_size_changes_are_scaled_away(tmp_path) -> None:
    _, packets = run(encode_clip(tmp_path / "c.avi", moving_scene(5, (121, 81))))
    assert {f.shape for f in decode(packets)} == {(256, 340, 3)}
    first = encode_clip(tmp_path / "a.264", moving_scene(10), codec="libx264").read_bytes()
    second = encode_clip(tmp_path / "b.264", moving_scene(10, (160, 96)), codec="libx264")
    path = tmp_path / "both.264"
    path.write_bytes(first + second.read_bytes())
    assert {f.shape for f in decode(run(path)[1])} == {(256, 340, 3)}


def test_damaged_packets_are_skipped_and_counted(tmp_path) -> None:
    path = encode_clip(tmp_path / "c.264", moving_scene(60), codec="libx264", gop=10,
                       options={"x264-params": "bframes=0"})
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data) - 4) if data[i:i + 4] == b"\x00\x00\x01\x65"]
    data[starts[2] + 4: starts[2] + 60] = b"\xff" * 56
    path.write_bytes(data)
    form, packets = run(path)
    assert form.counters.errors >= 1
    assert 40 <= len(packets) <= 60
    times = [p.pts for p in packets]
    assert all(a < b for a, b in pairwise(times))


def test_nothing_that_decodes_is_an_error(tmp_path) -> None:
    path = encode_clip(tmp_path / "c.mkv", moving_scene(10), codec="libx264")
    with open_video(str(path)) as video:
        packets = [av.Packet(b"\xff" * 50) for _ in range(10)]
        video.packets = lambda: iter(packets)  # type: ignore[method-assign]
        form = normalized(video)
        with pytest.raises(DecodeError, match="none of its 10 packets decodes"):
            list(form.packets())


def test_a_long_damaged_stretch_is_given_up(tmp_path) -> None:
    path = encode_clip(tmp_path / "c.mkv", moving_scene(10), codec="libx264")
    with open_video(str(path)) as video:
        packets = [av.Packet(b"\xff" * 50) for _ in range(500)]
        video.packets = lambda: iter(packets)  # type: ignore[method-assign]
        form = normalized(video)
        with pytest.raises(DecodeError, match="packets in a row do not decode"):
            list(form.packets())
        assert form.counters.packets_read < 500


def test_it_streams(tmp_path) -> None:
    """The first packet is there before the source is read further than its decoder needs."""
    path = encode_clip(tmp_path / "c.mp4", moving_scene(200))
    with open_video(str(path)) as video:
        form = normalized(video)
        packets = form.packets()
        next(packets)
        assert form.counters.packets_read <= 3
        for _ in range(100):
            next(packets)
        assert form.counters.packets_read <= 103
