"""The clip cache: what training sees is what the device sees; entries are whole or absent."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import MODALITIES, ClipSpec, DecodeSpec, InputSpec
from edgepkd.datasets.index import Sample
from edgepkd.errors import DataError, StorageError
from edgepkd.training import cache
from edgepkd.training.cache import CacheSpec, cached_clip, decode_all
from edgepkd.training.entries import entries
from edgepkd.training.views import test_view as view_for_test
from edgepkd.video.clips import ClipReader
from edgepkd.video.sampling import Place
from tests.clips import encode_clip

SPEC = CacheSpec(
    clip=ClipSpec(clip_frames=60), decode=DecodeSpec(),
    inputs={m: InputSpec(m, num_segments=3, resize_px=64, crop_px=56) for m in MODALITIES},
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A square that moves over 20 frames."""
    frames = np.full((20, 96, 128, 3), 90, np.uint8)
    for number, frame in enumerate(frames):
        frame[30:60, 10 + 4 * number : 40 + 4 * number] = (200, 40, 120)
    path = encode_clip(tmp_path_factory.mktemp("cache") / "clip.avi", frames)
    return Sample(path, "a", "g", "train")


def test_test_views_are_those_of_the_device(sample: Sample, tmp_path: Path) -> None:
    clip = cached_clip(sample, spec=SPEC, folder=tmp_path)
    with ClipReader(str(sample.path), clip=SPEC.clip, inputs=SPEC.inputs, decode=SPEC.decode,
                    route="normalize") as reader:
        on_device = next(iter(reader))
        assert clip.gop_lengths == on_device.gop_lengths == (12, 8)
        for modality, spec in SPEC.inputs.items():
            np.testing.assert_array_equal(view_for_test(clip, spec).numpy(),
                                          on_device.tensor(modality))


def test_what_is_kept_is_enough_for_training(sample: Sample, tmp_path: Path) -> None:
    clip = cached_clip(sample, spec=SPEC, folder=tmp_path)
    assert set(clip.places["iframe"]) == {Place(0, 0), Place(1, 0)}
    assert len(clip.places["mv"]) == 11 + 7
    assert set(clip.places["residual"]) >= {Place(0, 3), Place(0, 11), Place(1, 7)}
    assert clip.image("mv", Place(0, 11)).pixels[..., 0].max() > 128  # moves to the right


def test_a_second_call_reads_what_the_first_one_left(sample: Sample, tmp_path: Path) -> None:
    first = cached_clip(sample, spec=SPEC, folder=tmp_path)
    moved = replace(sample, path=sample.path.rename(sample.path.with_suffix(".moved")),
                    sha256="")
    entries = list(tmp_path.iterdir())
    try:
        again = cached_clip(moved, spec=SPEC, folder=tmp_path)  # content counts, not the name
    finally:
        moved.path.rename(sample.path)
    assert list(tmp_path.iterdir()) == entries
    for modality in MODALITIES:
        np.testing.assert_array_equal(first.pixels[modality], again.pixels[modality])


def test_other_settings_are_another_entry(sample: Sample, tmp_path: Path) -> None:
    cached_clip(sample, spec=SPEC, folder=tmp_path)
    cached_clip(sample, spec=replace(SPEC, train_positions=(1,)), folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["mv.npy", "residual.npy", "iframe.npy", "facts.json"])
def test_a_damaged_entry_is_named(sample: Sample, tmp_path: Path, name: str) -> None:
    cached_clip(sample, spec=SPEC, folder=tmp_path)
    (entry,) = tmp_path.iterdir()
    (entry / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"cache entry .* is damaged"):
        cached_clip(sample, spec=SPEC, folder=tmp_path)


def test_settings_that_change_no_byte_find_the_same_entry(sample: Sample, tmp_path: Path) -> None:
    clip = cached_clip(sample, spec=SPEC, folder=tmp_path)
    other = replace(SPEC, clip=replace(SPEC.clip, clip_frames=24, stride_frames=24), inputs={
        m: replace(one, resize_px=128, crop_px=96) for m, one in SPEC.inputs.items()})
    again = cached_clip(sample, spec=other, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert again.test_places == clip.test_places
    assert SPEC.key("00") != other.key("00"), "what networks see differs"
    more = replace(SPEC, inputs={
        m: replace(one, num_segments=2) for m, one in SPEC.inputs.items()})
    assert SPEC.entry("00") != more.entry("00")


def test_an_entry_says_for_which_settings_it_was_made(sample: Sample, tmp_path: Path) -> None:
    cached_clip(sample, spec=SPEC, folder=tmp_path)
    [entry] = entries(tmp_path)
    assert entry.facts()["settings"] == (
        "mv x3, residual x3, iframe x3; centre, GOP 12, residuals at 3 5 7 9 11")


def test_a_use_is_remembered(sample: Sample, tmp_path: Path) -> None:
    cached_clip(sample, spec=SPEC, folder=tmp_path)
    [entry] = tmp_path.iterdir()
    os.utime(entry, (0, 0))
    cached_clip(sample, spec=SPEC, folder=tmp_path)
    assert entry.stat().st_mtime > 0


def test_an_entry_that_goes_while_it_is_looked_up_is_made_again(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_clip(sample, spec=SPEC, folder=tmp_path)
    real, calls = cache._read_entry, []

    def read(entry: Path) -> cache.ClipArrays:
        if not calls:
            shutil.rmtree(entry)
        calls.append(entry)
        return real(entry)

    monkeypatch.setattr(cache, "_read_entry", read)
    assert cached_clip(sample, spec=SPEC, folder=tmp_path).gop_lengths == (12, 8)
    assert len(calls) == 2


def test_the_same_clips_elsewhere_are_not_decoded_twice(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_clip(sample, spec=SPEC, folder=tmp_path / "cache")
    copy = tmp_path / "elsewhere.avi"
    shutil.copy(sample.path, copy)
    monkeypatch.setattr(cache, "LocalPool", None)  # nothing is left to be decoded
    there, reasons = decode_all([replace(sample, path=copy)], spec=SPEC, jobs=1,
                                folder=tmp_path / "cache")
    assert len(there) == 1
    assert reasons == {}


def test_a_file_that_is_gone_is_left_out(sample: Sample, tmp_path: Path) -> None:
    gone = replace(sample, path=tmp_path / "gone.avi")
    there, reasons = decode_all([gone], spec=SPEC, jobs=1, folder=tmp_path / "cache")
    assert there == ()
    assert "gone.avi cannot be read" in reasons[gone]


@pytest.mark.slow
def test_clips_that_do_not_fit_are_an_error_with_a_number(sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"1 clips? needs? about .* GB"):
        decode_all([sample], spec=SPEC, jobs=1, folder=tmp_path, limit_gb=1e-5)
def test_names_of_entries_are_what_they_were_before_inputs_could_be_stacked() -> None:
    assert SPEC.key("ab", "f") == "9519c0526af9afa972c28e6b84b3206a"
    stacked = {**SPEC.inputs, "mv": replace(SPEC.inputs["mv"], stack=True)}
    assert replace(SPEC, inputs=stacked).key("ab", "f") == SPEC.key("ab", "f")
    other = {**SPEC.inputs, "mv": replace(SPEC.inputs["mv"], num_segments=4)}
    assert replace(SPEC, inputs=other).key("ab", "f") != SPEC.key("ab", "f")


def test_a_stacked_test_view_is_that_of_the_device(sample: Sample, tmp_path: Path) -> None:
    spec = replace(SPEC, inputs={"mv": replace(SPEC.inputs["mv"], stack=True)})
    clip = cached_clip(sample, spec=spec, folder=tmp_path)
    with ClipReader(str(sample.path), clip=spec.clip, inputs=spec.inputs, decode=spec.decode,
                    route="normalize") as reader:
        on_device = next(iter(reader)).tensor("mv")
    assert on_device.shape == (1, 6, 56, 56)
    np.testing.assert_array_equal(view_for_test(clip, spec.inputs["mv"]).numpy(), on_device)
