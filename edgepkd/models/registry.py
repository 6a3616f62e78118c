"""From a backbone's name to a segmented network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgepkd.config import Modality
from edgepkd.errors import ModelError
from edgepkd.models.efficientnet_lite import build_lite0_stages
from edgepkd.models.heads import IC_HEADS, ClassifierHead, ICHead, PoolFirstHead
from edgepkd.models.resnet import build_resnet_stages
from edgepkd.models.segmented import (
    BackboneName,
    Head,
    HeadForm,
    NetworkSpec,
    Segment,
    SegmentedNetwork,
)
from edgepkd.models.stages import Stages
from edgepkd.models.weights import load_backbone, load_imagenet_lite0, read_checkpoint


def build_network(
    name: BackboneName,
    *,
    modality: Modality,
    num_classes: int,
    width: float = 1.0,
    pretrained: Path | Literal["imagenet"] | None = None,
    head_form: HeadForm = "paper",
    dropout: float = 0.0,
    frames_per_pass: int = 1,
) -> SegmentedNetwork:
    """A network for frames [N, 2 or 3, H, W] with four exits of `num_classes` logits.

    With `frames_per_pass` a motion network sees so many fields at once: [N, 2 * fields, H, W].

    Networks for motion vectors and residuals start with a learned input BatchNorm, `data_bn`;
    those for I-frames do not (paper.md 1.3). `pretrained` fills the trunk: 'imagenet' (only
    efficientnet_lite0), or a file: torchvision's .pth, or this package's .safetensors.

    Raises:
        ConfigError: an argument is out of its range.
        ModelError: `pretrained` does not exist for, or does not fit, this network.
        MissingExtraError: the package that holds the ImageNet weights is not installed.
    """
    return build_from_spec(
        NetworkSpec(backbone=name, modality=modality, num_classes=num_classes, width=width,
                    head_form=head_form, dropout=dropout, frames_per_pass=frames_per_pass),
        pretrained=pretrained,
    )


def build_from_spec(
    spec: NetworkSpec, *, pretrained: Path | Literal["imagenet"] | None = None
) -> SegmentedNetwork:
    """As `build_network`, from a spec."""
    stages = _build_stages(spec)
    segments = [
        Segment(module, _build_head(spec, stages, index))
        for index, module in enumerate(stages.modules)
    ]
    network = SegmentedNetwork(segments, spec=spec)
    if pretrained is not None:
        _load_pretrained(network, pretrained)
    return network


def _build_stages(spec: NetworkSpec) -> Stages:
    data_bn = spec.modality != "iframe"
    if spec.backbone == "efficientnet_lite0":
        return build_lite0_stages(in_channels=spec.num_channels, width=spec.width, data_bn=data_bn)
    return build_resnet_stages(
        spec.backbone, in_channels=spec.num_channels, width=spec.width, data_bn=data_bn
    )


def _build_head(spec: NetworkSpec, stages: Stages, index: int) -> Head:
    channels = stages.channels[index]
    if index == len(stages.modules) - 1:
        return ClassifierHead(channels, num_classes=spec.num_classes, dropout=spec.dropout)
    head = IC_HEADS[spec.backbone][index]
    kind = ICHead if spec.head_form == "paper" else PoolFirstHead
    return kind(
        channels, out_channels=max(1, round(channels * head.out_ratio)), kernel=head.kernel,
        padding=head.padding, num_classes=spec.num_classes,
    )


def _load_pretrained(network: SegmentedNetwork, pretrained: Path | Literal["imagenet"]) -> None:
    if isinstance(pretrained, Path):
        load_backbone(network, read_checkpoint(pretrained), source=f"Checkpoint {pretrained}")
        return
    if pretrained != "imagenet" or network.spec.backbone != "efficientnet_lite0":
        raise ModelError(
            f"pretrained is {pretrained!r} for {network.spec.backbone}; allowed: a Path, or "
            "'imagenet' for efficientnet_lite0.",
            hint="For ResNets give the Path of torchvision's checkpoint file.",
        )
    load_imagenet_lite0(network)
