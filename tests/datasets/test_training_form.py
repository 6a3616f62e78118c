"""The training form on disk: the packets of the normalize route, read natively, bit for bit."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import MODALITIES, ClipSpec, DecodeSpec, InputSpec
from edgepkd.datasets.index import Sample
from edgepkd.datasets.training_form import encode, training_form
from edgepkd.errors import DecodeError
from edgepkd.training.cache import CacheSpec, cached_clip
from edgepkd.video.normalize import normalized
from edgepkd.video.probe import probe
from edgepkd.video.routes import choose_route
from edgepkd.video.source import open_video
from tests.clips import encode_clip, moving_scene, translating_texture

SPEC = CacheSpec(
    clip=ClipSpec(clip_frames=60), decode=DecodeSpec(),
    inputs={m: InputSpec(m, num_segments=3, resize_px=64, crop_px=56) for m in MODALITIES})


def prepare(source: Path) -> Path:
    with open_video(str(source)) as video:
        encoded = encode(video)
    target = source.with_name(f"{source.stem}-prepared.mp4")
    target.write_bytes(encoded.content)
    return target


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H.264 with B-frames and uneven times, which cannot be read natively."""
    times = [n + n // 5 for n in range(20)]
    return encode_clip(tmp_path_factory.mktemp("form") / "clip.mp4",
                       moving_scene(20, (200, 120), seed=2), codec="libx264", max_b_frames=2,
                       gop=20, quality=15, pts=times)


@pytest.fixture(scope="module")
def prepared(source: Path) -> Path:
    return prepare(source)


def test_the_file_holds_the_packets_of_the_normalize_route_at_their_times(
    source: Path, prepared: Path
) -> None:
    with open_video(str(source)) as video:
        made = normalized(video)
        expected = [(bytes(p), float(p.pts * p.time_base)) for p in made.packets()]
    with open_video(str(prepared)) as video:
        got = [(bytes(p), float(p.pts * p.time_base)) for p in video.packets()]
    assert [content for content, _ in got] == [content for content, _ in expected]
    start = expected[0][1]
    np.testing.assert_allclose([t for _, t in got], [t - start for _, t in expected], atol=1e-4)


def test_it_takes_the_native_route(source: Path, prepared: Path) -> None:
    assert choose_route(probe(str(source))).route == "normalize"
    info = probe(str(prepared))
    assert choose_route(info).route == "native"
    assert (info.codec, info.width_px, info.height_px) == ("mpeg4", 340, 256)
    assert (info.gop_max, info.has_b_frames, info.variable_fps) == (12, False, True)


def test_the_same_source_gives_the_same_bytes(source: Path, prepared: Path) -> None:
    with open_video(str(source)) as video:
        again = encode(video)
    assert again.content == prepared.read_bytes()
    assert (again.num_frames, again.num_damaged) == (20, 0)


def test_training_arrays_are_those_of_the_original(
    source: Path, prepared: Path, tmp_path: Path
) -> None:
    original = Sample(source, "a", "g", "train")
    ready = replace(original, path=prepared, form=training_form())
    want = cached_clip(original, spec=SPEC, folder=tmp_path / "1")
    got = cached_clip(ready, spec=SPEC, folder=tmp_path / "2")
    assert (got.gop_lengths, got.test_places, got.extents, got.places) == (
        want.gop_lengths, want.test_places, want.extents, want.places)
    for modality in MODALITIES:
        np.testing.assert_array_equal(got.pixels[modality], want.pixels[modality])
    assert np.ptp(got.pixels["mv"]) > 0
    assert np.ptp(got.pixels["residual"]) > 0


def test_without_its_form_the_clip_is_encoded_again_under_another_key(
    prepared: Path, tmp_path: Path
) -> None:
    ready = Sample(prepared, "a", "g", "train", form=training_form())
    plain = replace(ready, form="")
    once = cached_clip(ready, spec=SPEC, folder=tmp_path)
    twice = cached_clip(plain, spec=SPEC, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert (once.pixels["iframe"] != twice.pixels["iframe"]).any()


def test_other_gops_than_the_form_has_are_made_by_encoding_again(
    prepared: Path, tmp_path: Path
) -> None:
    spec = replace(SPEC, clip=ClipSpec(gop_frames=8), decode=DecodeSpec(gop_frames=8))
    ready = Sample(prepared, "a", "g", "train", form=training_form())
    plain = replace(ready, form="")
    got, want = (cached_clip(s, spec=spec, folder=tmp_path) for s in (ready, plain))
    assert got.gop_lengths == (8, 8, 4)
    np.testing.assert_array_equal(got.pixels["iframe"], want.pixels["iframe"])


def test_keys_of_clips_without_a_form_did_not_change() -> None:
    assert SPEC.key("00") == SPEC.key("00", "") != SPEC.key("00", training_form())


@pytest.mark.parametrize("frames", [1, 2, 13])
def test_short_and_still_clips_are_read_natively_too(tmp_path: Path, frames: int) -> None:
    still = np.repeat(translating_texture(1, (96, 64), (0, 0)), frames, 0)
    path = prepare(encode_clip(tmp_path / "clip.avi", still))
    clip = cached_clip(Sample(path, "a", "g", "train", form=training_form()), spec=SPEC,
                       folder=tmp_path / "cache")
    assert sum(clip.gop_lengths) == frames
    if frames > 1:
        assert (clip.pixels["mv"] == 128).mean() > 0.9


def test_a_damaged_source_is_counted_and_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    whole = encode_clip(tmp_path / "clip.avi", moving_scene(24, seed=3))
    content = bytearray(whole.read_bytes())
    at = content.index(b"\x00\x00\x01\xb6", len(content) // 2)
    content[at : at + 40] = bytes(40)
    (tmp_path / "damaged.avi").write_bytes(content)
    with open_video(str(tmp_path / "damaged.avi")) as video:
        encoded = encode(video)
    assert encoded.num_damaged >= 1
    assert 12 <= encoded.num_frames < 24
    while (at := content.find(b"\x00\x00\x01\xb6")) >= 0:
        content[at : at + 4] = b"\xff" * 4
    (tmp_path / "broken.avi").write_bytes(content)
    with open_video(str(tmp_path / "broken.avi")) as video, pytest.raises(DecodeError):
        encode(video)


@pytest.mark.slow
def test_real_clips_are_the_same_by_both_ways(shared_data: Path, tmp_path: Path) -> None:
    names = ("clips/hmdb51_cartwheel.avi", "clips/decord_video_90.mov",
             "clips/filetype_vfr_1080p.webm")
    for name in names:
        copy = tmp_path / Path(name).name
        copy.symlink_to(shared_data / name)
        original = Sample(copy, "a", "g", "train",
                          hashlib.sha256(copy.read_bytes()).hexdigest())
        ready = Sample(prepare(copy), "a", "g", "train", form=training_form())
        want, got = (cached_clip(s, spec=SPEC, folder=tmp_path / "cache")
                     for s in (original, ready))
        assert got.gop_lengths == want.gop_lengths
        for modality in MODALITIES:
            np.testing.assert_array_equal(got.pixels[modality], want.pixels[modality])
