"""Photometric augmentation: other light and colours for a whole view, so that scenes teach less.

One draw holds for all frames of a view and, as it depends on seed, view and clip alone, for all
modalities: teacher and student see the same thing. Everything happens on uint8 values before the
crop, through one table of 256 values a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepkd.training.recipe import AugmentRecipe
from edgepkd.video.jit import compiled
from edgepkd.video.transforms import Uint8, ValueImage

_STREAM = 1
"""Tells these random numbers from those of crops and frames, which have the same seed."""
_LUMA = np.array([77, 150, 29], np.uint32)
"""Weights of R, G and B in grey, in 256ths (BT.601)."""


@dataclass(frozen=True)
class Light:
    """What is drawn for one view."""

    gamma: float = 1.0
    """Exponent of values in 0..1."""
    contrast: float = 1.0
    """Factor of the distance from the mean (of residuals: from zero)."""
    brightness: float = 0.0
    """Added, in units of the range."""
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factor of each colour."""
    grey: bool = False


def draw_light(recipe: AugmentRecipe, *seed: int) -> Light | None:
    """The light of one view: a function of `seed` alone. None: nothing changes.

    Exponents and factors are exp(u) with u uniform in -strength..strength. All are drawn whatever
    the recipe says: one strength more or less leaves the others as they were.
    """
    if replace(recipe, flip=True) == AugmentRecipe():
        return None
    rng = np.random.default_rng((*seed, _STREAM))
    u, chance = rng.uniform(-1, 1, 6), rng.random()
    red, green, blue = np.exp(recipe.color * u[3:])
    return Light(
        float(np.exp(recipe.gamma * u[0])), float(np.exp(recipe.contrast * u[1])),
        float(recipe.brightness * u[2]), (float(red), float(green), float(blue)),
        bool(chance < recipe.grayscale))


def relit(images: Sequence[ValueImage], light: Light) -> list[ValueImage]:
    """Frames of one view and one modality under `light`.

    I-frames: x -> gain * (contrast * (x^gamma - mean) + mean + brightness) for x in 0..1, clipped,
    with the mean of all frames' x^gamma. Residuals: contrast * r, clipped. Motion stays as it is.
    """
    if not images or images[0].modality == "mv":
        return list(images)
    pictures = [np.ascontiguousarray(image.pixels) for image in images]
    if images[0].modality == "residual":
        levels = 128 + light.contrast * (np.arange(256) - 128)
        tables = np.stack([levels.round().clip(0, 255).astype(np.uint8)] * 3)
    else:
        pictures = [_grey(picture) for picture in pictures] if light.grey else pictures
        tables = _tables(light, pictures)
    return [replace(image, pixels=_looked_up(picture, tables))
            for image, picture in zip(images, pictures, strict=True)]


def _looked_up(picture: Uint8, tables: Uint8) -> Uint8:
    out = np.empty(picture.shape, np.uint8)
    _look_up(picture.reshape(-1), tables, out.reshape(-1))
    return out


@compiled
def _look_up(values: Any, tables: Any, out: Any) -> None:
    for i in range(values.size // 3):
        for c in range(3):
            out[3 * i + c] = tables[c, values[3 * i + c]]


def _tables(light: Light, pictures: Sequence[Uint8]) -> Uint8:
    """A table of 256 values for each channel: [3, 256]."""
    curve: NDArray[np.float64] = (np.arange(256) / 255) ** light.gamma
    counts = sum(np.bincount(p[::4, ::4].reshape(-1), minlength=256) for p in pictures)
    mean = float((curve * counts).sum() / np.sum(counts))
    plain = light.contrast * (curve - mean) + mean + light.brightness
    gains = (1.0, 1.0, 1.0) if light.grey else light.gains
    return np.stack([(255 * gain * plain).round().clip(0, 255).astype(np.uint8)
                     for gain in gains])


def _grey(picture: Uint8) -> Uint8:
    grey = (picture.astype(np.uint32) @ _LUMA >> 8).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
