"""The RGB floor: pictures, a frozen network, a linear classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepkd.datasets.index import Sample
from edgepkd.studies.defaults.rgb_floor import (
    FRAMES,
    PX,
    fitted_right,
    floor_job,
    frames_of,
    read_floor,
)
from edgepkd.studies.units import Unit
from tests.clips import encode_clip, moving_scene, translating_texture
from tests.studies.tiny_parts import tiny_unit


def test_a_classifier_finds_what_a_line_can_part() -> None:
    rng = np.random.default_rng(0)
    labels = ["a", "b"] * 20
    features = rng.normal(size=(40, 5)) + np.array([label == "b" for label in labels])[:, None] * 8
    assert fitted_right(features[:20], labels[:20], features[20:], labels[20:]).all()
    turned = ["b", "a"] * 10
    assert not fitted_right(features[:20], labels[:20], features[20:], turned).any()


def test_frames_are_spread_over_the_clip_and_scaled(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(0, 250, 10, dtype=np.uint8), 48 * 64 * 3).reshape(25, 48, 64, 3)
    x = frames_of(encode_clip(tmp_path / "ramp.mp4", ramp))
    assert x.shape == (FRAMES, 3, PX, PX)
    levels = (x[:, 0].mean(dim=(1, 2)) * 0.229 + 0.485) * 255
    np.testing.assert_allclose(levels, [0, 30, 70, 100, 140, 170, 210, 240], atol=4)


@pytest.mark.slow
def test_a_fold_is_answered_once(tmp_path: Path) -> None:
    unit = waves_and_squares(tmp_path)
    part = unit.part
    turned = replace(unit, part=replace(part, fit=part.answer + part.fit[:2], answer=part.fit[2:]))
    assert floor_job([unit, turned]) == "small: RGB floor 100.0 %"
    assert read_floor([unit, turned]).tolist() == [True] * 4
    assert floor_job([unit, turned]) == "small: RGB floor kept from an earlier run"
    fewer = replace(unit, part=replace(part, fit=part.fit[:2]))
    assert floor_job([fewer]) == "small: RGB floor 100.0 %"


def waves_and_squares(folder: Path) -> Unit:
    """A fold of `tiny_unit` with clips of its own: label b is of waves."""
    unit = tiny_unit(folder)

    def clip(sample: Sample) -> Sample:
        number = int(sample.path.stem)
        frames = (translating_texture(9, (96, 64), (1, 0), seed=number) if sample.label == "b"
                  else moving_scene(9, seed=number))
        return replace(sample, path=encode_clip(folder / sample.path, frames))

    part = unit.part
    return replace(unit, part=replace(part, fit=tuple(map(clip, part.fit)),
                                      answer=tuple(map(clip, part.answer))))
