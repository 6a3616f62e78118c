"""Photometric augmentation: exact values, one draw a view, nothing where nothing is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgepkd.config import MODALITIES, InputSpec, Modality
from edgepkd.training.augment import Light, draw_light, relit
from edgepkd.training.exits import ViewPlan
from edgepkd.training.loader import ViewRule
from edgepkd.training.recipe import AugmentRecipe
from edgepkd.video.transforms import Uint8, ValueImage
from tests.training.fake_clips import fake_clip

ALL = AugmentRecipe(gamma=0.5, contrast=0.4, brightness=0.2, color=0.3, grayscale=0.5)


def frames(modality: Modality, count: int = 2) -> list[ValueImage]:
    rng = np.random.default_rng(3)
    channels = 2 if modality == "mv" else 3
    return [ValueImage(modality, rng.integers(0, 256, (8, 12, channels)).astype(np.uint8),
                       (12.0, 8.0)) for _ in range(count)]


def seen(images: list[ValueImage], light: Light) -> list[Uint8]:
    return [image.pixels for image in relit(images, light)]


def test_gamma_brightness_and_gains_are_those_of_the_formula() -> None:
    images = frames("iframe")
    x = images[0].pixels / 255
    for light, expected in (
        (Light(gamma=0.5), x**0.5), (Light(brightness=-0.25), x - 0.25),
        (Light(gains=(1.5, 1.0, 0.5)), x * [1.5, 1.0, 0.5]),
    ):
        np.testing.assert_allclose(seen(images, light)[0], (255 * expected).clip(0, 255),
                                   atol=0.5 + 1e-9)


def test_contrast_of_a_picture_is_about_the_mean_of_the_view() -> None:
    dark = np.full((4, 4, 3), 40, np.uint8)
    light = np.full((4, 4, 3), 80, np.uint8)
    images = [ValueImage("iframe", pixels, (4.0, 4.0)) for pixels in (dark, light)]
    low, high = seen(images, Light(contrast=1.5))
    assert (low[0, 0, 0], high[0, 0, 0]) == (30, 90)


def test_a_grey_picture_has_its_luma_in_every_channel_and_no_gains() -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    (grey,) = seen([ValueImage("iframe", pixels, (4.0, 1.0))],
                   Light(grey=True, gains=(2.0, 1.0, 0.1)))
    assert grey[0].tolist() == [[v] * 3 for v in (76, 149, 28, 255)]


def test_residuals_have_contrast_about_zero_alone_and_motion_nothing() -> None:
    strong = Light(gamma=2.0, contrast=1.5, brightness=0.3, gains=(2.0, 0.5, 1.0), grey=True)
    residual, motion = frames("residual"), frames("mv")
    expected = (128 + 1.5 * (residual[0].pixels.astype(float) - 128)).clip(0, 255)
    np.testing.assert_allclose(seen(residual, strong)[0], expected, atol=0.5 + 1e-9)
    np.testing.assert_array_equal(seen(motion, strong)[0], motion[0].pixels)


def test_a_light_is_drawn_from_its_seed_and_each_part_has_its_strength() -> None:
    drawn = [draw_light(ALL, 7, 0, i) for i in range(200)]
    assert drawn == [draw_light(ALL, 7, 0, i) for i in range(200)]
    lights = [light for light in drawn if light]
    assert len({light.gamma for light in lights}) == len(lights) == 200
    for values, bound in (([x.gamma for x in lights], 0.5), ([x.contrast for x in lights], 0.4),
                          ([x.gains[2] for x in lights], 0.3)):
        assert 0.9 * bound < np.log(values).max() <= bound
        assert 0.9 * bound < -np.log(values).min() <= bound
    assert 0.18 < max(abs(light.brightness) for light in lights) <= 0.2
    assert 0.35 < np.mean([light.grey for light in lights]) < 0.65
    alone = [draw_light(AugmentRecipe(gamma=0.5), 7, 0, i) for i in range(200)]
    assert alone == [Light(gamma=light.gamma) for light in lights]  # others do not move it


def test_no_strength_draws_nothing() -> None:
    assert draw_light(AugmentRecipe(), 1, 2, 3) is None
    assert draw_light(AugmentRecipe(flip=False), 1, 2, 3) is None


@pytest.mark.parametrize("modality", MODALITIES)
def test_views_of_trunks_and_exits_are_relit_with_crop_and_frames_as_before(
    modality: Modality,
) -> None:
    spec = InputSpec(modality, num_segments=2, resize_px=40, crop_px=32)
    clip = fake_clip(seed=1, brightness=90)
    rule, plan = ViewRule(spec, 2, "centre", 5), ViewPlan(spec, 3, 2, "centre", 5)
    for plain, changed in (
        (rule.view(clip, epoch=1, index=2),
         replace(rule, augment=ALL).view(clip, epoch=1, index=2)),
        (plan.view(clip, index=1, view=2), replace(plan, augment=ALL).view(clip, index=1, view=2)),
    ):
        light = draw_light(ALL, 5, 1, 2)
        assert light
        assert torch.equal(plain, changed) == (modality == "mv")
        if modality == "residual":  # linear but for rounding and clipping
            torch.testing.assert_close(changed, light.contrast * plain, atol=0.03, rtol=0)


def test_without_flips_no_view_is_mirrored_and_the_others_are_the_same() -> None:
    spec = InputSpec("iframe", num_segments=2, resize_px=40, crop_px=32)
    clip = fake_clip(seed=1)
    rule, plan = ViewRule(spec, 2, "centre", 5), ViewPlan(spec, 3, 2, "centre", 5)
    off = AugmentRecipe(flip=False)
    for plain, changed in [
        *((rule.view(clip, epoch=e, index=0), replace(rule, augment=off).view(clip, epoch=e,
                                                                            index=0))
          for e in range(8)),
        *((plan.view(clip, index=0, view=v), replace(plan, augment=off).view(clip, index=0, view=v))
          for v in range(8)),
    ]:
        assert torch.equal(changed, plain) or torch.equal(changed, plain.flip(-1))
    flipped = [not torch.equal(rule.view(clip, epoch=e, index=0),
                               replace(rule, augment=off).view(clip, epoch=e, index=0))
               for e in range(8)]
    assert 0 < sum(flipped) < 8
