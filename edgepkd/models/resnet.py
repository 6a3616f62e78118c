"""ResNet-18 and ResNet-50 in four stages, with torchvision's parameter names.

Take the prefix `segments.<k>.trunk.` (or `.head.` for `fc`) off a key of the segmented network and
torchvision's key is left, so its checkpoints load without torchvision (see `weights.py`).
"""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from edgepkd.models.stages import (
    ResidualAdd,
    Stages,
    init_convolutions,
    named,
    scale_channels,
)

ResNetName = Literal["resnet18", "resnet50"]

_BLOCKS_PER_LAYER: dict[ResNetName, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet50": (3, 4, 6, 3),
}
_LAYER_WIDTHS = (64, 128, 256, 512)
_EXPANSION = 4  # of a bottleneck


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride=stride)
        self.add = ResidualAdd()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] -> [N, channels, H/stride, W/stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return cast(Tensor, self.relu(self.add(out, shortcut)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        out_channels = channels * _EXPANSION
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride=stride)
        self.add = ResidualAdd()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] -> [N, 4 * channels, H/stride, W/stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return cast(Tensor, self.relu(self.add(out, shortcut)))


def _shortcut(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def build_resnet_stages(
    name: ResNetName, *, in_channels: int, width: float, data_bn: bool
) -> Stages:
    """The trunk of a ResNet cut after layer1, layer2, layer3 and layer4 (paper.md 2.1).

    Strides of the stages' outputs are 4, 8, 16, 32. With `data_bn` a learned BatchNorm comes first.
    """
    channels = scale_channels(_LAYER_WIDTHS[0], width)
    stem: list[tuple[str, nn.Module]] = []
    if data_bn:
        stem.append(("data_bn", nn.BatchNorm2d(in_channels)))
    stem += [
        ("conv1", nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)),
        ("bn1", nn.BatchNorm2d(channels)),
        ("relu", nn.ReLU(inplace=True)),
        ("maxpool", nn.MaxPool2d(3, stride=2, padding=1)),
    ]
    modules, widths = [], []
    for layer, depth in enumerate(_BLOCKS_PER_LAYER[name]):
        blocks, channels = _build_layer(name, layer, depth, in_channels=channels, width=width)
        head = stem if layer == 0 else []
        modules.append(named(*head, (f"layer{layer + 1}", blocks)))
        widths.append(channels)
        init_convolutions(modules[-1])
    return Stages(tuple(modules), tuple(widths))


def _build_layer(
    name: ResNetName, layer: int, depth: int, *, in_channels: int, width: float
) -> tuple[nn.Sequential, int]:
    channels = scale_channels(_LAYER_WIDTHS[layer], width)
    block = BasicBlock if name == "resnet18" else Bottleneck
    out_channels = channels if name == "resnet18" else channels * _EXPANSION
    blocks: list[nn.Module] = []
    for index in range(depth):
        stride = 2 if layer > 0 and index == 0 else 1
        blocks.append(block(in_channels if index == 0 else out_channels, channels, stride=stride))
    return nn.Sequential(*blocks), out_channels
