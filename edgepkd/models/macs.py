"""Multiply-accumulates per exit and frame, heads in the paper's form and pool-first.

Convolutions and linear layers count, and for pool-first heads the two products with M; additions,
BatchNorm and activations do not. 1 GMAC = 1e9. Reproduces paper.md 2.2.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgepkd.config import Inputs, InputSpec, Modality
from edgepkd.models.heads import POOL_CELLS, ClassifierHead
from edgepkd.models.registry import build_from_spec
from edgepkd.models.segmented import Head, HeadForm, Networks, SegmentedNetwork


@dataclass(frozen=True)
class ExitMacs:
    """What one segment costs for one frame, in MACs, and the shapes at its borders."""

    modality: Modality
    exit: int
    """1..4."""
    input_shape: tuple[int, int, int]
    """Per frame: channels, height, width."""
    features_shape: tuple[int, int, int]
    """Per frame: channels, height, width of what the next segment gets."""
    trunk: int
    """This segment's stage alone."""
    head_paper: int
    """This segment's exit, pooling after the convolution."""
    head_pool_first: int
    """This segment's exit, pooling first."""

    def segment(self, form: HeadForm) -> int:
        """Stage and exit of this segment."""
        return self.trunk + (self.head_paper if form == "paper" else self.head_pool_first)


def macs_per_exit(network: SegmentedNetwork, *, crop_px: int = 224) -> tuple[ExitMacs, ...]:
    """Cost of each segment of `network` for one frame of crop_px x crop_px; nothing is computed."""
    x = torch.empty(1, network.spec.num_channels, crop_px, crop_px, device="meta")
    rows: list[ExitMacs] = []
    for index, segment in enumerate(network):
        features, trunk = _count(segment.trunk, x)
        head_paper, head_pool_first = _head_macs(segment.head, _frame_shape(features))
        rows.append(ExitMacs(
            modality=network.spec.modality, exit=index + 1, input_shape=_frame_shape(x),
            features_shape=_frame_shape(features), trunk=trunk, head_paper=head_paper,
            head_pool_first=head_pool_first,
        ))
        x = features
    return tuple(rows)


def segment_macs(network: SegmentedNetwork, spec: InputSpec) -> tuple[ExitMacs, ...]:
    """MACs of each segment for one frame; a quantised network has those of its float one."""
    return macs_per_exit(build_from_spec(network.spec), crop_px=spec.crop_px)


def clip_gmac(networks: Networks, inputs: Inputs) -> dict[Modality, tuple[float, ...]]:
    """Cost of each segment for all temporal segments of one clip, in GMAC."""
    return {
        modality: tuple(row.segment("pool_first") * inputs[modality].num_passes / 1e9
                        for row in segment_macs(network, inputs[modality]))
        for modality, network in networks.items()
    }


def _frame_shape(x: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = x.shape
    return channels, height, width


def _count(trunk: nn.Sequential, x: Tensor) -> tuple[Tensor, int]:
    """Output of `trunk` and the MACs of its convolutions, by shapes only."""
    shapes_only = copy.deepcopy(trunk).to("meta").eval()
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += output[0].numel() * module.weight[0].numel()

    for module in shapes_only.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        return shapes_only(x), total


def _head_macs(head: Head, shape: tuple[int, int, int]) -> tuple[int, int]:
    """MACs of a head on `shape` features: paper form, pool-first form."""
    linear = head.fc.in_features * head.fc.out_features
    if isinstance(head, ClassifierHead):
        return linear, linear
    channels, height, width = shape
    weight = head.conv.weight.numel()
    shrink = 2 * head.padding - head.kernel + 1
    paper = weight * (height + shrink) * (width + shrink)
    side = POOL_CELLS * head.kernel
    pooling = channels * (height * width * side + side * side * height)  # x M^T, then M (x M^T)
    pool_first = pooling + weight * POOL_CELLS**2
    return paper + linear, pool_first + linear
