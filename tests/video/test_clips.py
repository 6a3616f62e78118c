"""Clips end to end: windows, laziness, times, orientation, routes and errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgepkd.config import MODALITIES, ClipSpec, DecodeSpec, InputSpec, Modality
from edgepkd.errors import ConfigError, DecodeError, SourceError
from edgepkd.video.clips import Clip, ClipReader
from edgepkd.video.sampling import Place
from edgepkd.video.source import open_video
from edgepkd.video.transforms import Geometry, centre_crop, to_tensor
from tests.clips import encode_clip, moving_scene, translating_texture


def specs(
    modalities: Iterable[Modality] = MODALITIES, num_segments: int = 2
) -> dict[Modality, InputSpec]:
    return {m: InputSpec(m, num_segments, resize_px=72, crop_px=64) for m in modalities}


def read(path: Path, *, clip: ClipSpec | None = None, **kw: Any) -> ClipReader:
    return ClipReader(str(path), clip=clip or ClipSpec(), inputs=kw.pop("inputs", specs()), **kw)


def layout(path: Path, **kw: Any) -> list[tuple[int, ...]]:
    with read(path, **kw) as reader:
        return [clip.gop_lengths for clip in reader]


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


@pytest.fixture(scope="module")
def mpeg4(tmp_path_factory) -> Path:
    return encode_clip(tmp_path_factory.mktemp("clips") / "c.mp4", moving_scene(90))


@pytest.fixture(scope="module")
def b_pyramid(tmp_path_factory) -> Path:
    return encode_clip(
        tmp_path_factory.mktemp("clips") / "b.mp4", moving_scene(40), codec="libx264",
        options={"x264-params": "bframes=3:b-adapt=0:b-pyramid=normal:ref=4"})


# -- windows ------------------------------------------------------------------------------------

def test_clips_are_whole_gops_and_the_last_may_be_short(mpeg4) -> None:
    assert layout(mpeg4) == [(12,) * 5, (12, 12, 6)]
    with read(mpeg4) as reader:
        assert reader.num_frames_estimate == 90
        clips = [(c.index, c.start_s, c.end_s, c.num_frames) for c in reader]
    assert clips[0] == (0, pytest.approx(0), pytest.approx(60 / 25), 60)
    assert clips[1] == (1, pytest.approx(60 / 25), pytest.approx(90 / 25), 30)


@pytest.mark.parametrize(("clip_frames", "stride", "starts"), [
    (24, 24, [0, 24, 48, 72]), (24, 12, [0, 12, 24, 36, 48, 60, 72]), (24, 30, [0, 24, 48, 72]),
    (24, 40, [0, 36, 72]), (24, 1, [0, 12, 24, 36, 48, 60, 72]), (30, 30, [0, 36, 72]),
    (200, 200, [0]), (1, 1, [0, 12, 24, 36, 48, 60, 72, 84]), (36, 24, [0, 24, 48, 72]),
])
def test_windows_start_at_the_nearest_gop(mpeg4, clip_frames, stride, starts) -> None:
    clip = ClipSpec(clip_frames=clip_frames, stride_frames=stride)
    with read(mpeg4, clip=clip) as reader:
        windows = [(round(c.start_s * 25), c.num_frames) for c in reader]
    assert [start for start, _ in windows] == starts
    assert all(n >= clip_frames or start + n == 90 for start, n in windows)


def test_overlapping_clips_give_what_separate_ones_give(mpeg4) -> None:
    with read(mpeg4, clip=ClipSpec(clip_frames=24, stride_frames=12)) as reader:
        overlapping = [c.tensor("residual") for c in reader][2]
    with read(mpeg4, clip=ClipSpec(clip_frames=24, stride_frames=24)) as reader:
        apart = [c.tensor("residual") for c in reader][1]
    np.testing.assert_array_equal(overlapping, apart)


@pytest.mark.parametrize("rule", ["centre", "gop"])
def test_one_frame_is_one_clip_without_motion(tmp_path, rule) -> None:
    path = encode_clip(tmp_path / "one.mp4", moving_scene(1))
    with read(path, clip=ClipSpec(sampling=rule)) as reader:
        (clip,) = [(c, {m: c.tensor(m) for m in MODALITIES}) for c in reader]
    tensors = clip[1]
    assert clip[0].num_frames == 1
    np.testing.assert_allclose(tensors["mv"], 128 / 255 - 0.5, atol=1e-6)
    assert all(np.ptp(tensors["residual"][:, c]) == 0 for c in range(3))
    assert np.ptp(tensors["iframe"]) > 0


# -- what it decodes ----------------------------------------------------------------------------

def test_what_is_not_asked_for_is_not_decoded(mpeg4) -> None:
    with read(mpeg4) as reader:
        for clip in reader:
            assert clip.counters.packets_decoded == 0
            clip.tensor("mv")
            assert clip.counters.frames_rgb == clip.counters.residuals == 0
            assert clip.counters.motion_fields == 2
    with read(mpeg4) as reader:
        clip = next(iter(reader))
        clip.tensor("iframe")
        assert clip.counters.packets_decoded == clip.counters.frames_rgb == 2
        assert clip.counters.motion_fields == 0


@pytest.mark.slow
@pytest.mark.parametrize("order", [MODALITIES, ("iframe", "residual", "mv")])
def test_nothing_is_decoded_twice_whatever_the_order(tmp_path, order) -> None:
    """Large frames, so that only planned ones are kept; a long GOP, so that anchors are virtual."""
    path = encode_clip(tmp_path / "c.mp4", moving_scene(60, (640, 480)), codec="libx264", gop=250,
                       options={"x264-params": "bframes=0:ref=1"})
    with read(path) as reader:
        for clip in reader:
            for modality in order:
                first = clip.tensor(modality)
                assert clip.tensor(modality) is first
    assert reader.choice.route == "native"
    assert reader.counters.packets_decoded <= 60


def test_counters_of_clips_add_up_to_those_of_the_reader(mpeg4) -> None:
    with read(mpeg4) as reader:
        clips = []
        for clip in reader:
            clip.tensor("residual")
            clips.append(clip)
    for name, total in vars(reader.counters).items():
        assert sum(getattr(c.counters, name) for c in clips) == pytest.approx(total), name
    assert reader.counters.packets_read == 90
    assert reader.counters.packets_decoded + reader.counters.packets_skipped == 90


def test_a_released_clip_keeps_its_tensors_only(mpeg4) -> None:
    with read(mpeg4) as reader:
        clips = []
        for clip in reader:
            clip.tensor("mv")
            clips.append(clip)
    assert clips[0].tensor("mv").shape == (2, 2, 64, 64)
    with pytest.raises(DecodeError, match="released"):
        clips[0].tensor("iframe")


# -- values -------------------------------------------------------------------------------------

def test_tensors_have_their_shapes_and_are_crops_of_images(mpeg4) -> None:
    with read(mpeg4, inputs=specs(num_segments=3)) as reader:
        clip = next(iter(reader))
        for modality in MODALITIES:
            tensor = clip.tensor(modality)
            assert tensor.shape == (3, 2 if modality == "mv" else 3, 64, 64)
            assert tensor.dtype == np.float32
            image = clip.image(modality, clip.places(modality)[1])
            crop = centre_crop(resize_px=72, crop_px=64)
            np.testing.assert_array_equal(tensor[1], to_tensor(image, crop, crop_px=64))
            flipped = clip.tensor(modality, geometry=Geometry(flip=True))
            assert not np.array_equal(flipped, tensor)


@pytest.mark.smoke
@pytest.mark.parametrize("route", ["native", "normalize"])
@pytest.mark.parametrize("size", [(340, 256), (170, 128)])
def test_known_motion_arrives_in_training_pixels(tmp_path, route, size) -> None:
    """3 px of 340 a frame to the right, whatever the size of the source and the route."""
    factor = size[0] / 340
    frames = translating_texture(12, size, (4 * factor, -2 * factor))
    path = encode_clip(tmp_path / "t.mp4", frames)
    with read(path, route=route) as reader:
        clip = next(iter(reader))
        image = clip.image("mv", Place(0, 4))
    inner = image.pixels[6:-6, 6:-6].reshape(-1, 2)
    expected = 128 + np.array([int(16 * 6.375), int(-8 * 6.375)])
    assert np.abs(np.median(inner, axis=0) - expected).max() <= 3


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_turns_pictures_and_motion_on_both_routes(tmp_path, degrees: int) -> None:
    frames = translating_texture(12, (170, 128), (2, 0))
    path = rotate(encode_clip(tmp_path / "t.mp4", frames), degrees)
    expected = {90: (0, -1), 180: (-1, 0), -90: (0, 1)}[degrees]
    tensors = {}
    for route in ("native", "normalize"):
        with read(path, route=route) as reader:
            clip = next(iter(reader))
            motion = clip.tensor("mv")[:, :, 8:-8, 8:-8].mean(axis=(0, 2, 3))
            assert np.sign(np.where(np.abs(motion) < 0.03, 0, motion)).tolist() == list(expected)
            tensors[route] = clip.tensor("iframe")
            assert reader.info.rotation_deg % 360 == degrees % 360
    assert np.abs(tensors["native"] - tensors["normalize"]).mean() < 0.25
    turned = np.abs(tensors["native"] - tensors["normalize"][..., ::-1]).mean()
    assert turned > 2 * np.abs(tensors["native"] - tensors["normalize"]).mean()


def test_partial_cells_stay_on_the_side_rotation_puts_them(tmp_path) -> None:
    """100 px are 12.5 cells of 8; turned by 180 degrees the half cell comes first."""
    path = rotate(encode_clip(tmp_path / "t.mp4", moving_scene(12, (100, 64))), 180)
    with read(path, route="native") as reader:
        image = next(iter(reader)).image("mv", Place(0, 3))
    assert (image.extent, image.origin) == ((12.5, 8.0), (0.5, 0.0))


# -- times --------------------------------------------------------------------------------------

@pytest.mark.parametrize("route", ["native", "normalize"])
def test_times_go_by_timestamps_and_start_at_zero(tmp_path, route) -> None:
    pts = (np.cumsum([0] + [1, 4, 1] * 8)[:24] + 100).tolist()
    path = encode_clip(tmp_path / "v.mkv", moving_scene(24), pts=pts)
    with read(path, clip=ClipSpec(clip_frames=12, stride_frames=12), route=route) as reader:
        assert reader.info.variable_fps
        assert reader.info.start_s == pytest.approx(4.0, abs=0.01)
        starts = [c.start_s for c in reader]
    assert starts == pytest.approx([0.0, (pts[12] - 100) / 25], abs=2e-3)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_avi_with_b_frames_counts_frames(tmp_path, codec) -> None:
    path = encode_clip(tmp_path / "b.avi", moving_scene(48), codec=codec, max_b_frames=2)
    with read(path, clip=ClipSpec(clip_frames=12, stride_frames=12)) as reader:
        clips = [(c.start_s, c.end_s) for c in reader]
    for (_, end), (start, _) in pairwise(clips):
        assert start == pytest.approx(end, abs=1e-3)


# -- routes and errors --------------------------------------------------------------------------

def test_native_is_refused_where_it_would_be_wrong(b_pyramid, mpeg4) -> None:
    with pytest.raises(ConfigError, match=r"route is 'native', but .* with B-frames.*normalize"):
        read(b_pyramid, route="native")
    with read(b_pyramid) as reader:
        assert reader.choice.route == "normalize"
        assert sum(c.num_frames for c in reader) == 40
    with read(mpeg4, route="normalize") as reader:
        assert reader.choice.reason == "asked for (normalize)"
        assert [c.gop_lengths for c in reader] == [(12,) * 5, (12, 12, 6)]


def test_short_gops_may_be_read_natively_on_request(tmp_path) -> None:
    path = encode_clip(tmp_path / "c.mp4", moving_scene(12), gop=2)
    with read(path) as reader:
        assert reader.choice.route == "normalize"
    assert layout(path, route="native") == [(2,) * 6]


def test_contradicting_or_missing_settings_are_refused(mpeg4) -> None:
    with pytest.raises(ConfigError, match=r"decode.gop_frames is 16; allowed: 12"):
        read(mpeg4, decode=DecodeSpec(gop_frames=16))
    with pytest.raises(ConfigError, match="inputs is 'empty'"):
        read(mpeg4, inputs={})
    with pytest.raises(ConfigError, match="route is 'fast'; allowed: auto, native, normalize"):
        read(mpeg4, route="fast")
    with read(mpeg4, inputs=specs(["mv"])) as reader:
        clip = next(iter(reader))
        with pytest.raises(ConfigError, match="modality is 'iframe'; allowed: mv"):
            clip.tensor("iframe")


def test_clips_are_given_once(mpeg4) -> None:
    with read(mpeg4) as reader:
        assert len(list(reader)) == 2
        with pytest.raises(SourceError, match="read already"):
            next(iter(reader))


def test_an_open_input_is_taken_over(mpeg4) -> None:
    video = open_video(str(mpeg4))
    with ClipReader(video, clip=ClipSpec(), inputs=specs()) as reader:
        assert all(isinstance(clip, Clip) for clip in reader)


def test_gop_frames_rules_both_routes(b_pyramid, mpeg4) -> None:
    clip = ClipSpec(gop_frames=8, clip_frames=24, stride_frames=24)
    assert layout(b_pyramid, clip=clip)[0] == (8, 8, 8)
    assert layout(mpeg4, clip=clip)[0] == (8, 4, 8, 4)


def test_stacked_fields_are_the_same_fields_for_the_same_packets(mpeg4) -> None:
    made = {}
    for stack in (False, True):
        inputs = {"mv": InputSpec("mv", 3, resize_px=72, crop_px=64, stack=stack)}
        with read(mpeg4, inputs=inputs) as reader:
            clip = next(iter(reader))
            made[stack] = clip.tensor("mv"), clip.counters.copy()
    (apart, before), (stacked, after) = made[False], made[True]
    assert (apart.shape, stacked.shape) == ((3, 2, 64, 64), (1, 6, 64, 64))
    np.testing.assert_array_equal(stacked[0], np.concatenate(apart))
    assert replace(after, decode_s=0) == replace(before, decode_s=0)
    assert 0 < after.packets_decoded < after.packets_read
