"""A small network in INT8, for the tests of this room and of what builds on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgepkd.models.segmented import BackboneName, SegmentedNetwork
from edgepkd.quantize.network import quantize_network
from edgepkd.quantize.spec import QuantSpec
from tests.models.networks import small_network


def some_frames(count: int = 4, *, seed: int = 0) -> Tensor:
    """Motion vectors of noise: [count, 2, 32, 32]."""
    return torch.randn(count, 2, 32, 32, generator=torch.Generator().manual_seed(seed))


def small_int8(
    spec: QuantSpec | None = None, *, name: BackboneName = "resnet18",
    network: SegmentedNetwork | None = None,
) -> SegmentedNetwork:
    """`small_network` with ranges from `some_frames`."""

    def calibrate(quantized: nn.Module) -> None:
        quantized(some_frames())

    return quantize_network(network or small_network(name), spec=spec or QuantSpec(),
                            calibrate=calibrate)
