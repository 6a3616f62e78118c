"""What a backbone is to the segmented network: four stages, and how their widths are rounded."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn


class ResidualAdd(nn.Module):
    """The sum at the end of a shortcut; a module of its own, so that quantisers see both inputs."""

    def forward(self, out: Tensor, shortcut: Tensor) -> Tensor:
        """Two tensors of one shape -> their sum."""
        return out + shortcut


@dataclass(frozen=True)
class Stages:
    """A backbone cut at its exits."""

    modules: tuple[nn.Sequential, ...]
    """One per exit; children carry the names of the original checkpoint."""
    channels: tuple[int, ...]
    """Channels that each stage puts out."""


def scale_channels(channels: int, width: float) -> int:
    """Round `channels * width` to a multiple of 8, never below 90 % of it (MobileNet's rule)."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def named(*children: tuple[str, nn.Module]) -> nn.Sequential:
    """A Sequential whose children have the given names."""
    return nn.Sequential(OrderedDict(children))


def init_convolutions(module: nn.Module) -> None:
    """Kaiming-normal weights (fan out, per group) for every convolution under `module`."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            fan_out = part.weight[:, 0].numel() / part.groups  # torch's own ignores groups
            nn.init.normal_(part.weight, std=math.sqrt(2 / fan_out))
