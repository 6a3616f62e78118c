"""Exit heads: the paper's internal classifier, its pool-first form, and the last classifier.

An internal classifier is conv -> BatchNorm -> 4x4 adaptive average pool -> linear (paper.md 2.1).
Nothing in it is non-linear, so pooling can go before the convolution. With M the
(4k x H) matrix whose row p*k+t averages the inputs that tap t sees within pooling window p,

    head(x) = linear(BN(conv2d(M x M^T, W, stride=k)))

exactly, in eval mode. M has zeros where a tap falls on zero padding. In train mode BatchNorm sees
pooled values in the one form and unpooled ones in the other: same map, other batch statistics.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

POOL_CELLS = 4
"""Cells per side that an internal classifier averages its feature map to."""


@dataclass(frozen=True)
class HeadSpec:
    """Constants of one internal classifier."""

    out_ratio: float
    """Channels of its convolution, as a share of the channels that come in."""
    kernel: int
    padding: int = 1


IC_HEADS: dict[str, tuple[HeadSpec, HeadSpec, HeadSpec]] = {
    # The trained heads of the reference: k7 with padding 1 shrinks ResNet-18's 56 to 52.
    "resnet18": (HeadSpec(1, 7), HeadSpec(1, 3), HeadSpec(1, 3)),
    "resnet50": (HeadSpec(1 / 4, 3), HeadSpec(1 / 2, 3), HeadSpec(1, 3)),
    # Not in the paper: its plain rule, channels kept and k3.
    "efficientnet_lite0": (HeadSpec(1, 3), HeadSpec(1, 3), HeadSpec(1, 3)),
}
"""Heads after stages 1..3 of each backbone (paper.md 2.1, column "trained")."""


def pool_matrix(size: int, *, kernel: int, padding: int, cells: int = POOL_CELLS) -> Tensor:
    """Pooling matrix M of the module docstring along one axis, float64 [cells * kernel, size].

    Windows are those of `torch.nn.AdaptiveAvgPool2d`: cell p spans floor(p*n/cells) up to
    ceil((p+1)*n/cells) of the n conv outputs, so uneven (14 -> 4) and repeated (3 -> 4) ones work.
    """
    num_outputs = size + 2 * padding - kernel + 1
    # numpy, so that a tracer sees one constant and not how it is made
    matrix = np.zeros((cells * kernel, size))
    for cell in range(cells):
        start = cell * num_outputs // cells
        stop = -(-(cell + 1) * num_outputs // cells)
        for tap in range(kernel):
            for position in range(start + tap - padding, stop + tap - padding):
                if 0 <= position < size:  # else it is zero padding
                    matrix[cell * kernel + tap, position] += 1 / (stop - start)
    return torch.from_numpy(matrix)


@functools.lru_cache(maxsize=64)
def _cached_pool_matrix(
    size: int, kernel: int, padding: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # the cache outlives the mode it is filled in
        return pool_matrix(size, kernel=kernel, padding=padding).to(device=device, dtype=dtype)


def pool_input(features: Tensor, *, kernel: int, padding: int) -> Tensor:
    """M x M^T of [N, C, H, W] features: [N, C, 4k, 4k], all an internal classifier needs."""
    height, width = int(features.shape[-2]), int(features.shape[-1])
    rows = _cached_pool_matrix(height, kernel, padding, features.dtype, features.device)
    columns = _cached_pool_matrix(width, kernel, padding, features.dtype, features.device)
    return rows @ (features @ columns.T)


class ICHead(nn.Module):
    """Internal classifier as in the paper: conv -> BN -> average pool 4x4 -> linear."""

    def __init__(
        self, in_channels: int, *, out_channels: int, kernel: int, padding: int, num_classes: int
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.padding = padding
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.fc = nn.Linear(out_channels * POOL_CELLS**2, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, C, H, W] -> logits [N, num_classes]."""
        pooled = F.adaptive_avg_pool2d(self.bn(self.conv(features)), POOL_CELLS)
        return cast(Tensor, self.fc(pooled.flatten(1)))

    def pooled_input(self, features: Tensor) -> Tensor:
        """M x M^T: features [N, C, H, W] -> [N, C, 4k, 4k]; has no parameters, so cache it."""
        return pool_input(features, kernel=self.kernel, padding=self.padding)

    def from_pooled(self, pooled: Tensor) -> Tensor:
        """`pooled_input` [N, C, 4k, 4k] -> logits [N, num_classes]; equals forward in eval mode."""
        return _head_from_pooled(self, pooled)


class PoolFirstHead(nn.Module):
    """The same classifier with pooling first; same parameter names, same map in eval mode."""

    def __init__(
        self, in_channels: int, *, out_channels: int, kernel: int, padding: int, num_classes: int
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.padding = padding
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride=kernel, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.fc = nn.Linear(out_channels * POOL_CELLS**2, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, C, H, W] -> logits [N, num_classes]."""
        return self.from_pooled(self.pooled_input(features))

    def pooled_input(self, features: Tensor) -> Tensor:
        """M x M^T: features [N, C, H, W] -> [N, C, 4k, 4k]; has no parameters, so cache it."""
        return pool_input(features, kernel=self.kernel, padding=self.padding)

    def from_pooled(self, pooled: Tensor) -> Tensor:
        """`pooled_input` [N, C, 4k, 4k] -> logits [N, num_classes]."""
        return _classify(self, self.conv(pooled))

    def cells(self, windows: Tensor) -> Tensor:
        """`windows_of` the pooled input [N, 16, C * k * k] -> the convolution's output
        [N, C', 16, 1], its 4x4 cells in one row.
        """
        # contiguous: PyTorch's BatchNorm on the CPU gives wrong gradients for a transposed input
        # whose output is flattened
        cells = (windows @ self.conv.weight.flatten(1).T).transpose(1, 2).contiguous()
        return cells.unsqueeze(-1)

    def from_windows(self, windows: Tensor) -> Tensor:
        """`windows_of` the pooled input [N, 16, C * k * k] -> logits [N, num_classes]."""
        return _classify(self, self.cells(windows))


def windows_of(pooled: Tensor, *, kernel: int) -> Tensor:
    """What the convolution of a pool-first head sees: [N, C, 4k, 4k] -> [N, 16, C * k * k].

    Made once, training is a matrix product: twice as fast as the strided convolution.
    """
    cells, k = POOL_CELLS, kernel
    windows = pooled.reshape(-1, pooled.shape[1], cells, k, cells, k).permute(0, 2, 4, 1, 3, 5)
    return windows.reshape(len(pooled), cells * cells, -1)


def _head_from_pooled(head: ICHead, pooled: Tensor) -> Tensor:
    return _classify(head, F.conv2d(pooled, head.conv.weight, stride=head.kernel))


def _classify(head: ICHead | PoolFirstHead, cells: Tensor) -> Tensor:
    return cast(Tensor, head.fc(head.bn(cells).flatten(1)))


def as_pool_first(head: ICHead | PoolFirstHead) -> PoolFirstHead:
    """A copy that pools first: parameters, statistics, device and mode are those of `head`."""
    weight = head.conv.weight
    converted = PoolFirstHead(
        weight.shape[1], out_channels=weight.shape[0], kernel=head.kernel, padding=head.padding,
        num_classes=head.fc.out_features,
    ).to(device=weight.device, dtype=weight.dtype)
    converted.load_state_dict(head.state_dict())
    converted.train(head.training)
    for mine, theirs in zip(converted.parameters(), head.parameters(), strict=True):
        mine.requires_grad_(theirs.requires_grad)
    return converted


class ClassifierHead(nn.Module):
    """A network's own classifier, its last exit: global average pool -> dropout -> linear."""

    def __init__(self, in_channels: int, *, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, C, H, W] -> logits [N, num_classes]."""
        return self.from_pooled(self.pooled_input(features))

    def pooled_input(self, features: Tensor) -> Tensor:
        """Features [N, C, H, W] -> their mean over the picture [N, C]."""
        return F.adaptive_avg_pool2d(features, 1).flatten(1)

    def from_pooled(self, pooled: Tensor) -> Tensor:
        """`pooled_input` [N, C] -> logits [N, num_classes]."""
        return cast(Tensor, self.fc(self.dropout(pooled)))
