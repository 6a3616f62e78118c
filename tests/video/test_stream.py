"""Streams that change on the way, hold pictures back, break off, or count time in their own way."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgepkd.config import ClipSpec, DecodeSpec, InputSpec, Modality
from edgepkd.errors import DecodeError
from edgepkd.video.clips import ClipReader
from tests.clips import encode_clip, moving_scene, translating_texture

MODALITIES: tuple[Modality, ...] = ("mv", "residual", "iframe")
INPUTS = {m: InputSpec(m, num_segments=2, resize_px=64, crop_px=48) for m in MODALITIES}
CLIP = ClipSpec(clip_frames=24, stride_frames=24, gop_frames=12)
NO_B = {"bf": "0", "refs": "1", "sc_threshold": "0"}


def _reader(source: Path, **keywords: Any) -> ClipReader:
    return ClipReader(str(source), clip=CLIP, inputs=INPUTS, **keywords)


def _all(source: Path, *, order: tuple[str, ...] = ("motion", "residual", "iframe")) -> Any:
    """Every array of every position, asked for in `order`, by time."""
    found = {}
    with _reader(source) as reader:
        for clip in reader:
            for gop in clip.gops:
                for what in order:
                    for t in range(1 if what == "iframe" else gop.num_frames):
                        array = gop.iframe() if what == "iframe" else getattr(gop, what)(t)
                        found[what, round(gop.times_s[t], 3)] = array.copy()
        assert reader.choice.route == "native"
    return found


def _spans(source: Path, **keywords: Any) -> tuple[list[tuple[float, float]], list[str]]:
    with _reader(source, **keywords) as reader:
        spans = [(round(clip.start_s, 3), round(clip.end_s, 3)) for clip in reader]
        return spans, reader.warnings


def _tensors(source: Path) -> list[dict[Modality, np.ndarray[Any, Any]]]:
    with _reader(source) as reader:
        return [{m: clip.tensor(m) for m in MODALITIES} for clip in reader]


# -- pictures that come later than their packets -----------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("order", [("motion", "residual", "iframe"), ("residual", "motion"),
                                   ("iframe", "residual", "motion"), ("motion",)])
def test_allowed_reordering_changes_nothing(shared_cases: Path, order: tuple[str, ...]) -> None:
    late = _all(shared_cases / "bf_allowed.mp4", order=order)
    truth = _all(shared_cases / "bf_allowed_reorder0.mp4", order=order)
    assert late.keys() == truth.keys()
    assert [key for key in truth if not np.array_equal(late[key], truth[key])] == []


def _held_back(path: Path, *, gop: int, options: dict[str, str]) -> Path:
    """H.264 without a B-frame by an encoder that was allowed to make some."""
    container_format = "h264" if path.suffix == ".264" else None
    frames = translating_texture(30, (96, 64), (2, -1))
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = 2
        stream.options = {"crf": "10", "refs": "1", "sc_threshold": "0", "threads": "1",
                          "forced-idr": "1", **options}
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            frame.pict_type = (av.video.frame.PictureType.P if number % gop
                               else av.video.frame.PictureType.I)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mp4", "264", "ts", "mkv"])
@pytest.mark.parametrize("options", [{"b-pyramid": "none"}, {"b-pyramid": "normal"}])
@pytest.mark.parametrize("gop", [5, 12, 250])
def test_motion_is_that_of_its_own_frame(
    tmp_path: Path, suffix: str, options: dict[str, str], gop: int
) -> None:
    path = _held_back(tmp_path / f"late.{suffix}", gop=gop, options=options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)) is not None
        assert container.streams.video[0].codec_context.has_b_frames
    num_frames = 0
    with _reader(path) as reader:
        assert reader.choice.route == "native"
        for clip in reader:
            for made in clip.gops:
                num_frames += made.num_frames
                for t in range(made.num_frames):
                    inner = made.motion(t)[2:-2, 2:-2].reshape(-1, 2) / 4
                    assert np.median(inner, axis=0) == pytest.approx((2 * t, -t), abs=0.5)
        assert reader.counters.errors == 0
    assert num_frames == 30


# -- streams that become others ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("order", ["ab", "ba", "aba"])
@pytest.mark.parametrize(("codec", "form"), [
    ("libx264", "h264"), ("libx264", "mpegts"), ("libx264", "flv"), ("mpeg2video", "mpeg2video"),
    ("mpeg4", "m4v"),
])
def test_each_size_is_answered_as_if_alone(
    tmp_path: Path, order: str, codec: str, form: str
) -> None:
    sizes, alone = {"a": (96, 64), "b": (192, 112)}, {}
    for name, size in sizes.items():
        path = encode_clip(tmp_path / f"{name}.raw", moving_scene(36, size, seed=3), codec=codec,
                           gop=12, options=NO_B if codec == "libx264" else None,
                           container_format=form)
        alone[name] = path.read_bytes(), _tensors(path)
    joined = tmp_path / "joined.raw"
    joined.write_bytes(b"".join(_body(alone[name][0], n) for n, name in enumerate(order)))
    expected = [tensors for name in order for tensors in alone[name][1]]
    found = _tensors(joined)
    assert len(found) == len(expected) == 2 * len(order)
    for got, wanted in zip(found, expected, strict=True):
        for modality in MODALITIES:
            np.testing.assert_array_equal(got[modality], wanted[modality], modality)
    spans, _ = _spans(joined)
    assert spans[2] == (1.44, 2.4)


def _body(file: bytes, number: int) -> bytes:
    """`file` as part `number` of several; only the first FLV keeps its head."""
    return file[13:] if number and file.startswith(b"FLV") else file


@pytest.mark.slow
@pytest.mark.parametrize("names", [("rs_a", "rs_b"), ("rs_b", "rs_a")])
def test_real_pictures_of_two_sizes(
    shared_cases: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    joined = tmp_path / "joined.264"
    joined.write_bytes(b"".join((shared_cases / f"{n}.264").read_bytes() for n in names))
    expected = [t for n in names for t in _tensors(shared_cases / f"{n}.264")]
    for got, wanted in zip(_tensors(joined), expected, strict=True):
        for modality in MODALITIES:
            np.testing.assert_array_equal(got[modality], wanted[modality], modality)


def test_sizes_of_a_normalised_stream_are_parts_too(tmp_path: Path) -> None:
    parts = [encode_clip(tmp_path / f"{size[0]}.264", moving_scene(30, size), codec="libx264",
                         gop=30, max_b_frames=2, options={"bf": "2", "b-adapt": "0"},
                         container_format="h264") for size in ((96, 64), (192, 112))]
    joined = tmp_path / "joined.264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    expected = [tensors for part in parts for tensors in _tensors(part)]
    found = _tensors(joined)
    assert len(found) == len(expected) == 4
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got["mv"], wanted["mv"])


def _with_b_frames_later(path: Path, *, suffix: str = "ts") -> Path:
    """Four seconds without B-frames, then two with; one stream, one clock."""
    container_format = "h264" if suffix == "264" else "mpegts"
    plain = encode_clip(path.with_suffix(".a"), moving_scene(400), codec="libx264", gop=25,
                        options=NO_B, container_format=container_format)
    later = encode_clip(path.with_suffix(".b"), moving_scene(50, seed=1), codec="libx264", gop=25,
                        max_b_frames=2, options={"bf": "2", "b-adapt": "0"},
                        pts=range(400, 450), container_format=container_format)
    path.write_bytes(plain.read_bytes() + later.read_bytes())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["ts", "264"])
def test_b_frames_that_begin_late_are_normalised(tmp_path: Path, suffix: str) -> None:
    path = _with_b_frames_later(tmp_path / f"late.{suffix}", suffix=suffix)
    with _reader(path) as reader:
        clips = []
        for clip in reader:
            assert clip.tensor("mv").shape == (2, 2, 48, 48)
            clips.append((clip.num_frames, round(clip.end_s, 2)))
        assert reader.choice.route == "native"
        (warning,) = reader.warnings
    assert "B-frames begin" in warning
    assert sum(frames for frames, _ in clips) == 450
    assert clips[-1][1] == 18.0


def test_b_frames_that_begin_late_are_refused_where_native_was_asked_for(tmp_path: Path) -> None:
    path = _with_b_frames_later(tmp_path / "late.ts")
    with _reader(path, route="native") as reader, pytest.raises(DecodeError, match="B-frames"):
        list(reader)


def test_all_clips_of_a_real_file_with_late_b_frames(shared_cases: Path) -> None:
    with _reader(shared_cases / "lb.mp4") as reader:
        frames = 0
        for clip in reader:
            clip.tensor("residual")
            frames += clip.num_frames
        assert frames == 475
        assert clip.end_s == pytest.approx(19.0, abs=0.1)


# -- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "fps"), [("r60.264", 60), ("r24.265", 24)])
def test_raw_streams_run_at_their_own_rate(shared_cases: Path, name: str, fps: int) -> None:
    with _reader(shared_cases / name) as reader:
        assert reader.info.fps == fps
        assert list(reader)[-1].end_s == pytest.approx(2.0)


@pytest.mark.parametrize(("codec", "form"), [("libx264", "h264"), ("mpeg4", "m4v"),
                                             ("mpeg2video", "mpeg2video")])
def test_raw_streams_of_every_codec_run_at_their_own_rate(
    tmp_path: Path, codec: str, form: str
) -> None:
    path = encode_clip(tmp_path / "raw.bin", moving_scene(60), codec=codec, fps=50,
                       container_format=form)
    spans, _ = _spans(path)
    assert spans[-1][1] == pytest.approx(1.2)


@pytest.mark.slow
@pytest.mark.parametrize("route", ["native", "normalize"])
def test_a_clock_that_starts_again_goes_on(shared_cases: Path, route: str) -> None:
    spans, warnings = _spans(shared_cases / "ts_ab.ts", route=route)
    assert warnings == []
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(12.0, abs=0.05)
    for (_, before), (after, _) in pairwise(spans):
        assert after == pytest.approx(before, abs=0.01)


@pytest.mark.parametrize("route", ["native", "normalize"])
def test_clips_end_at_a_gap(tmp_path: Path, route: str) -> None:
    stamps = [*range(40), *range(90_000, 90_040)]
    path = encode_clip(tmp_path / "gap.mkv", moving_scene(80), pts=stamps, gop=250)
    spans, _ = _spans(path, route=route)
    assert spans == [(0, 0.96), (0.96, 1.6), (3600, 3600.96), (3600.96, 3601.6)]


# -- the end -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("route", ["native", "normalize"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off_says_so(tmp_path: Path, route: str, share: float) -> None:
    path = encode_clip(tmp_path / "whole.mp4", moving_scene(100), codec="libx264", gop=25,
                       options={**NO_B, "movflags": "+faststart"})
    cut = tmp_path / "cut.mp4"
    whole = _faststart(path)
    cut.write_bytes(whole[: round(len(whole) * share)])
    assert _spans(path, route=route)[1] == []
    _, (warning,) = _spans(cut, route=route)
    assert "cut off" in warning
    assert "4.00 s" in warning


def _faststart(path: Path) -> bytes:
    """The file with its index first."""
    made = path.with_name("faststart.mp4")
    with av.open(str(path)) as source, av.open(
            str(made), "w", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return made.read_bytes()


def test_a_real_file_that_is_cut_off(shared_cases: Path) -> None:
    spans, (warning,) = _spans(shared_cases / "fs_trunc.mp4")
    assert spans[-1][1] == pytest.approx(4.5, abs=0.05)
    assert "10.00 s" in warning
    assert "4.50 s" in warning


@pytest.mark.parametrize("max_b_frames", [0, 2])
def test_an_avi_that_is_cut_off(tmp_path: Path, max_b_frames: int) -> None:
    whole = encode_clip(tmp_path / "whole.avi", moving_scene(60), max_b_frames=max_b_frames)
    assert _spans(whole)[1] == []
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (warning,) = _spans(cut)[1]
    assert "cut off" in warning


def test_a_reader_that_stops_early_says_nothing(shared_cases: Path) -> None:
    with _reader(shared_cases / "bf0.mp4") as reader:
        next(iter(reader))
        assert reader.warnings == []


@pytest.mark.slow
def test_no_good_file_is_called_cut_off(shared_data: Path) -> None:
    """Headers of real files are often wrong by a frame or two."""
    names = sorted((shared_data / "actions").rglob("*.avi"))[::9]
    names += sorted((shared_data / "fights").rglob("*.mp4"))[::30]
    names += [shared_data / "clips" / "hmdb51_cartwheel.avi"]
    assert len(names) > 30
    spec = DecodeSpec(gop_frames=12, pixels=False)
    called = {}
    for path in names:
        with ClipReader(str(path), clip=CLIP, inputs={"mv": INPUTS["mv"]}, decode=spec) as reader:
            for _ in reader:
                pass
            if reader.warnings:
                called[path.name] = reader.warnings
    assert called == {}
