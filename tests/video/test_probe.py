"""The probe against streams whose make is known, and the choice drawn from it."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from edgepkd.errors import SourceError
from edgepkd.video import probe as probe_module
from edgepkd.video.probe import probe
from edgepkd.video.routes import choose_route
from edgepkd.video.source import open_video
from tests.clips import encode_clip, moving_scene
from tests.video.reading import look


def test_mpeg4_b_frames_are_seen_in_the_headers_far_behind_the_decoded_frames(tmp_path) -> None:
    # AVI tells no display order, so without the headers these would take dozens of frames to find
    plain = encode_clip(tmp_path / "plain.avi", moving_scene(60))
    late = encode_clip(tmp_path / "late.avi", moving_scene(60), max_b_frames=2)
    with av.open(str(plain)) as first, av.open(str(late)) as second:
        packets = [p for c in (first, second) for p in c.demux(video=0) if p.size]
        with av.open(str(tmp_path / "joined.avi"), "w") as out:
            stream = out.add_stream_from_template(first.streams.video[0])
            for number, packet in enumerate(packets):
                packet.stream, packet.pts, packet.dts = stream, number, number
                out.mux(packet)
    info = probe(str(tmp_path / "joined.avi"))
    assert info.has_b_frames
    assert info.num_inter_frames_decoded < 12
    assert not probe(str(plain)).has_b_frames


def test_variable_rate_is_seen_and_reordering_is_not_mistaken_for_it(tmp_path) -> None:
    steps = [0]
    for number in range(1, 40):
        steps.append(steps[-1] + (1 if number % 5 else 4))
    assert look(tmp_path, "v.mkv", pts=steps).variable_fps
    long = look(tmp_path, "b.mp4", num_frames=320, codec="libx264",
                options={"x264-params": "bframes=3:b-adapt=0"})
    assert not long.seen_all
    assert not long.variable_fps


def test_only_the_first_packets_are_looked_at_and_they_are_kept(tmp_path) -> None:
    path = encode_clip(tmp_path / "long.avi", moving_scene(400, (48, 48)))
    with open_video(str(path)) as video:
        info = probe(video)
        assert (info.num_packets_seen, info.seen_all) == (300, False)
        assert sum(1 for _ in video.packets()) == 400


def test_what_the_header_claims_is_not_used(tmp_path) -> None:
    path = encode_clip(tmp_path / "cut.avi", moving_scene(60))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    info = probe(str(path))
    assert info.num_frames_from_header == 60
    assert 20 < info.num_packets_seen < 50


def test_packets_that_do_not_decode_are_counted_not_raised(tmp_path) -> None:
    path = encode_clip(tmp_path / "c.mp4", moving_scene(24), codec="libx264")
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start) if data.index(b"moov") < start else data[start:]
    if data.index(b"moov") > start:
        end = data.index(b"moov") - 4
        data[start:end] = b"\xff" * (end - start)
    path.write_bytes(data)
    info = probe(str(path))
    assert info.pix_fmt is None
    assert info.num_errors > 0
    assert "decodes" in choose_route(info).reason


@pytest.mark.smoke
def test_a_missing_source_is_said(tmp_path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        probe(str(tmp_path / "no.mp4"))


def _frames_decoded(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    seen: list[object] = []
    add = probe_module._Decoded.add
    monkeypatch.setattr(probe_module._Decoded, "add",
                        lambda self, frame: (seen.append(frame), add(self, frame)))
    assert choose_route(probe(str(path))).route == "normalize"
    return len(seen)


@pytest.mark.parametrize(("codec", "suffix", "pix_fmt"), [
    ("mjpeg", "avi", "yuvj420p"), ("mjpeg", "mov", "yuvj420p"),
    ("libx264", "mp4", "yuv420p"), ("mpeg2video", "mpg", "yuv420p"), ("ffv1", "mkv", "yuv420p"),
])
def test_streams_of_key_frames_alone_are_not_searched_for_motion(
    tmp_path: Path, codec: str, suffix: str, pix_fmt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode_clip(tmp_path / f"c.{suffix}", moving_scene(70), codec=codec, gop=1,
                       pix_fmt=pix_fmt)
    assert _frames_decoded(path, monkeypatch) == 1


def test_a_clock_that_starts_again_is_no_b_frame(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "c.ts", moving_scene(60), codec="libx264", gop=12,
                       options={"bf": "0"})
    path.write_bytes(2 * path.read_bytes())
    assert not probe(str(path)).has_b_frames
