"""Views: places that are kept, crops inside the picture, the test view of the device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgepkd.config import MODALITIES, NUM_CHANNELS, InputSpec, Modality
from edgepkd.training.views import (
    CROP_SHARES,
    nearest_place,
    random_geometry,
    train_view,
)
from edgepkd.training.views import (
    test_view as view_for_test,
)
from edgepkd.video.sampling import Place
from edgepkd.video.transforms import Geometry, centre_crop
from tests.training.fake_clips import fake_clip


@pytest.mark.parametrize("modality", MODALITIES)
def test_views_have_the_shape_of_the_network_input(modality: Modality) -> None:
    spec = InputSpec(modality, num_segments=2, resize_px=40, crop_px=32)
    rng = np.random.default_rng(0)
    drawn = train_view(fake_clip(seed=1), spec, num_segments=5, rule="centre",
                       geometry=random_geometry(rng), rng=rng)
    assert drawn.shape == (5, NUM_CHANNELS[modality], 32, 32)
    assert drawn.dtype == torch.float32
    assert view_for_test(fake_clip(seed=1), spec).shape == (2, NUM_CHANNELS[modality], 32, 32)


def test_the_test_view_is_the_centre_crop_of_the_test_places() -> None:
    clip, spec = fake_clip(seed=2), InputSpec("iframe", num_segments=2, resize_px=40, crop_px=32)
    expected = clip.tensor("iframe", clip.test_places["iframe"],
                           centre_crop(resize_px=40, crop_px=32), crop_px=32)
    np.testing.assert_array_equal(view_for_test(clip, spec).numpy(), expected)


def test_crops_stay_inside_and_both_flips_and_all_sizes_come() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_geometry(rng) for _ in range(500)]
    for g in drawn:
        assert 0 <= g.left <= g.left + g.width <= 1 + 1e-9
        assert 0 <= g.top <= g.top + g.height <= 1 + 1e-9
        assert abs(CROP_SHARES.index(g.width) - CROP_SHARES.index(g.height)) <= 1
    assert {g.width for g in drawn} == {g.height for g in drawn} == set(CROP_SHARES)
    assert {g.flip for g in drawn} == {True, False}


@pytest.mark.parametrize(("wanted", "found"), [
    (Place(0, 4), Place(0, 3)), (Place(0, 6), Place(0, 7)), (Place(0, 5), Place(0, 3)),
    (Place(1, 7), Place(0, 7)), (Place(2, 2), Place(2, 2)),
])
def test_a_place_that_was_not_kept_gives_the_nearest_one(wanted: Place, found: Place) -> None:
    assert nearest_place(wanted, [Place(0, 3), Place(0, 7), Place(2, 2)]) == found


STACKED = InputSpec("mv", num_segments=3, resize_px=40, crop_px=32, stack=True)


@pytest.mark.parametrize("flip", [False, True])
def test_a_stacked_view_is_one_pass_of_the_same_fields_in_time_order(flip: bool) -> None:
    apart, stacked = (
        train_view(fake_clip(seed=1), spec, num_segments=3, rule="centre",
                   geometry=Geometry(flip=flip), rng=np.random.default_rng(4))
        for spec in (replace(STACKED, stack=False), STACKED))
    assert (apart.shape, stacked.shape) == ((3, 2, 32, 32), (1, 6, 32, 32))
    assert torch.equal(stacked[0], torch.cat(list(apart)))
    assert not torch.equal(apart[0], apart[1])


def test_a_flip_negates_motion_to_the_right_in_every_field_of_a_stack() -> None:
    plain, flipped = (
        train_view(fake_clip(seed=1, brightness=100), STACKED, num_segments=3, rule="centre",
                   geometry=Geometry(flip=flip), rng=np.random.default_rng(4))[0]
        for flip in (False, True))
    zero = 128 / 255 - 0.5  # where no motion lies
    assert torch.allclose(flipped[0::2].flip(-1) - zero, zero - plain[0::2], atol=1e-5)
    assert torch.allclose(flipped[1::2].flip(-1), plain[1::2], atol=1e-5)


def test_a_clip_with_fewer_frames_than_fields_repeats_some() -> None:
    clip = fake_clip(seed=1, num_gops=1)  # P-frames at 1, 2, 3
    spec = replace(STACKED, num_segments=6)
    view = train_view(clip, spec, num_segments=6, rule="centre", geometry=Geometry(),
                      rng=np.random.default_rng(0))
    assert view.shape == (1, 12, 32, 32)
    fields = view.reshape(6, 2, 32, 32)
    assert len({tuple(field.flatten().tolist()) for field in fields}) <= 3
