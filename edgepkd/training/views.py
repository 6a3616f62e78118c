"""Views of a clip: some of its frames under one crop and flip, as a network input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from edgepkd.config import InputSpec, SamplingRule
from edgepkd.training.augment import Light, draw_light
from edgepkd.training.cache import ClipArrays
from edgepkd.training.recipe import AugmentRecipe
from edgepkd.video import transforms
from edgepkd.video.sampling import Place, sample_train
from edgepkd.video.transforms import Geometry

CROP_SHARES = (1.0, 0.875, 0.75, 0.66)
"""Sides of training crops as shares of the squashed picture (the reference's scales)."""

Rng: TypeAlias = np.random.Generator


def test_view(clip: ClipArrays, spec: InputSpec) -> Tensor:
    """What the device sees, `spec.input_shape`: places and crop of the test."""
    geometry = transforms.centre_crop(resize_px=spec.resize_px, crop_px=spec.crop_px)
    return view_at(clip, spec, clip.test_places[spec.modality], geometry)


def view_at(
    clip: ClipArrays, spec: InputSpec, places: Sequence[Place], geometry: Geometry, *,
    light: Light | None = None,
) -> Tensor:
    """Network input of `places`, in time order: [passes, C, crop_px, crop_px]."""
    frames = torch.from_numpy(clip.tensor(spec.modality, places, geometry, crop_px=spec.crop_px,
                                          light=light))
    return frames.reshape(-1, *spec.input_shape[1:])


def train_view(
    clip: ClipArrays, spec: InputSpec, *, num_segments: int, rule: SamplingRule,
    geometry: Geometry, rng: Rng, light: Light | None = None,
) -> Tensor:
    """One random frame of each temporal segment: [num_segments, C, crop_px, crop_px]; stacked
    (then as many segments as the network sees): one pass of them."""
    drawn = sample_train(
        clip.gop_lengths, num_segments={spec.modality: num_segments}, rng=rng, rule=rule
    )[spec.modality]
    places = [nearest_place(place, tuple(clip.places[spec.modality])) for place in drawn]
    return view_at(clip, spec, places, geometry, light=light)


def random_view(
    clip: ClipArrays, spec: InputSpec, *, num_segments: int, rule: SamplingRule,
    seed: tuple[int, ...], augment: AugmentRecipe,
) -> Tensor:
    """A training view under a random crop, flip and light: as `train_view`.

    All are a function of `seed`; modalities with equal ones share crop, flip and light.
    """
    rng = np.random.default_rng(seed)
    geometry = random_geometry(rng, flip=augment.flip)  # first: frames are drawn for a modality
    return train_view(clip, spec, num_segments=num_segments, rule=rule, geometry=geometry, rng=rng,
                      light=draw_light(augment, *seed))


def random_geometry(rng: Rng, *, flip: bool = True) -> Geometry:
    """Multi-scale crop of the squashed picture, and with `flip` a mirror image in half of cases.

    The reference crops squares from the 340x256 picture and squashes at test time (paper.md 1.5):
    people are 1.3 times slimmer in the test than in training. Here both are squashed alike. Width
    and height differ by at most one step.
    """
    i = int(rng.integers(len(CROP_SHARES)))
    j = int(np.clip(i + rng.integers(-1, 2), 0, len(CROP_SHARES) - 1))
    width, height = CROP_SHARES[i], CROP_SHARES[j]
    left, top = rng.random() * (1 - width), rng.random() * (1 - height)
    mirrored = bool(rng.random() < 0.5)  # drawn in any case: what comes later is the same
    return Geometry(float(left), float(top), width, height, mirrored and flip)


def nearest_place(place: Place, kept: Sequence[Place]) -> Place:
    """The kept place closest to `place`: of the same GOP if it has one, else of a near one."""
    return min(kept, key=lambda p: (abs(p.gop - place.gop), abs(p.t - place.t), p.t))
