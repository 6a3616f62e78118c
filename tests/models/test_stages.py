"""Parts that all backbones share: widths, names, first weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgepkd.models.stages import ResidualAdd, init_convolutions, named, scale_channels


@pytest.mark.parametrize(("channels", "width", "expected"), [
    (64, 1.0, 64), (64, 0.5, 32), (64, 0.125, 8), (16, 0.1, 8), (1, 1.0, 8),
    (24, 0.8, 24),  # 19.2: 16 would lose more than a tenth
    (40, 1.1, 48),  # 44: half way goes up
    (112, 1.4, 160), (320, 1.1, 352)])
def test_widths_are_multiples_of_eight_and_lose_no_tenth(
    channels: int, width: float, expected: int
) -> None:
    scaled = scale_channels(channels, width)
    assert scaled == expected
    assert scaled % 8 == 0
    assert scaled >= 0.9 * channels * width


def test_children_have_their_names_in_order() -> None:
    made = named(("conv1", nn.Conv2d(1, 2, 1)), ("relu", nn.ReLU()))
    assert list(made.state_dict()) == ["conv1.weight", "conv1.bias"]
    assert [name for name, _ in made.named_children()] == ["conv1", "relu"]


def test_convolutions_start_with_the_spread_of_their_group() -> None:
    torch.manual_seed(0)
    dense, depthwise = nn.Conv2d(64, 256, 3), nn.Conv2d(512, 512, 3, groups=512)
    linear = nn.Linear(4, 4)
    before = linear.weight.clone()
    init_convolutions(nn.Sequential(dense, nn.Sequential(depthwise), linear))
    # fan out: 256 channels of 9 taps, and one channel of 9 taps
    assert dense.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    assert depthwise.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert torch.equal(linear.weight, before)


def test_a_residual_add_is_a_sum() -> None:
    one, other = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.equal(ResidualAdd()(one, other), one + other)
