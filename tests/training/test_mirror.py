"""Whether classes that are each other's mirror image are found in what a network answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgepkd.config import MODALITIES, InputSpec
from edgepkd.training.loader import LabelledClips
from edgepkd.training.mirror import (
    MirrorAnswers,
    Swapped,
    mirror_answers,
    mirrored,
    swapped_classes,
    told_apart,
)
from edgepkd.training.views import test_view as view_of
from tests.models.networks import small_network
from tests.training.fake_clips import fake_clip

MV = InputSpec("mv", num_segments=2, resize_px=32, crop_px=32)


def answers(labels: Any, plain: Any, mirrored: Any) -> MirrorAnswers:
    return MirrorAnswers(*(np.array(part, np.int64) for part in (labels, plain, mirrored)))


def test_classes_that_swap_in_the_mirror_are_found() -> None:
    labels = [0] * 10 + [1] * 10 + [2] * 10
    swapped = [1] * 10 + [0] * 10 + [2] * 10
    assert swapped_classes(answers(labels, labels, swapped)) == (
        Swapped((0, 1), num_clips=20, num_mirrored=20, num_plain=0),)


@pytest.mark.parametrize(("plain", "mirrored"), [
    ([0] * 10 + [1] * 10, [0] * 10 + [1] * 10),  # nothing changes
    ([0] * 10 + [1] * 10, [1] * 10 + [1] * 10),  # one way only: the mirror looks like class 1
    ([1] * 5 + [0] * 15, [0] * 5 + [1] * 5 + [0] * 10),  # changes both ways alike
    ([0] * 10 + [1] * 10, [1] * 2 + [0] * 8 + [0] * 2 + [1] * 8),  # 4 of 4 is chance
])
def test_other_changes_are_not_swaps(plain: list[int], mirrored: list[int]) -> None:
    assert swapped_classes(answers([0] * 10 + [1] * 10, plain, mirrored)) == ()


def test_five_changes_of_five_speak_for_two_classes_and_not_for_four() -> None:
    labels = [0] * 10 + [1] * 10
    mirrored = [1] * 3 + [0] * 7 + [0] * 2 + [1] * 8
    assert swapped_classes(answers(labels, labels, mirrored)) == (Swapped((0, 1), 20, 5, 0),)
    more = [2] * 5 + [3] * 5
    assert swapped_classes(answers(labels + more, labels + more, mirrored + more)) == ()


def test_two_classes_are_told_apart_or_not() -> None:
    labels = [0] * 6 + [1] * 6 + [2] * 3
    right = told_apart(answers(labels, labels, labels), 0, 1)
    assert right is not None
    assert (right.num_right, right.num_clips) == (12, 12)
    confused = [0, 1] * 6 + [0] * 3
    half = told_apart(answers(labels, confused, labels), 0, 1)
    assert half is not None
    assert (half.num_right, half.num_clips) == (6, 12)
    assert told_apart(answers(labels, [2] * 15, labels), 0, 1) is None


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_view_of_a_mirrored_clip_is_the_mirror_image(modality: Any) -> None:
    spec = InputSpec(modality, num_segments=2, resize_px=32, crop_px=32)
    clip = fake_clip(seed=1, brightness=60)
    plain, mirror = view_of(clip, spec), view_of(mirrored(clip), spec)
    expected = plain.flip(-1)
    if modality == "mv":
        expected[:, 0] = 1 / 255 - expected[:, 0]  # 256 - v, in units of 255 about one half
    torch.testing.assert_close(mirror, expected, atol=0.02, rtol=0)
    assert not torch.allclose(mirror, plain, atol=0.02)


def test_answers_are_those_of_the_last_exit() -> None:
    network = small_network(num_classes=2)
    with torch.no_grad():
        network.heads[-1].fc.weight.zero_()
        network.heads[-1].fc.bias.copy_(torch.tensor([0.0, 1.0]))
    data = LabelledClips([fake_clip(seed=i) for i in range(3)], [0, 1, 0])
    found = mirror_answers(network, data, spec=MV)
    assert [found.labels.tolist(), found.plain.tolist(), found.mirrored.tolist()] == [
        [0, 1, 0], [1, 1, 1], [1, 1, 1]]
