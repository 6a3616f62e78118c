"""The segmented early-exit network: ordered segments, each a stage of the trunk and its exit."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, cast

from torch import Tensor, nn

from edgepkd.config import (
    LATER,
    MAX_SEGMENTS,
    MODALITIES,
    NUM_CHANNELS,
    NUM_EXITS,
    Modality,
    check,
)
from edgepkd.models.heads import ClassifierHead, ICHead, PoolFirstHead, as_pool_first

BackboneName = Literal["resnet18", "resnet50", "efficientnet_lite0"]
BACKBONES: tuple[BackboneName, ...] = ("resnet18", "resnet50", "efficientnet_lite0")
MAX_CLASSES = 100_000
HeadForm = Literal["paper", "pool_first"]
Head: TypeAlias = ICHead | PoolFirstHead | ClassifierHead


@dataclass(frozen=True)
class NetworkSpec:
    """All it takes to build a network; saved beside its weights."""

    backbone: BackboneName
    modality: Modality
    num_classes: int
    width: float = 1.0
    """Multiplier of the trunk's channels."""
    head_form: HeadForm = "paper"
    """'paper': pool after the convolution; 'pool_first': before it, the same map for less."""
    dropout: float = 0.0
    """Before the last exit's linear layer, in training only."""
    frames_per_pass: int = field(default=1, metadata=LATER)
    """Motion fields that the network sees at once, their channels one after the other."""

    def __post_init__(self) -> None:
        check(self.backbone in BACKBONES, "backbone", got=self.backbone,
              allowed=", ".join(BACKBONES))
        check(self.modality in MODALITIES, "modality", got=self.modality,
              allowed=", ".join(MODALITIES))
        check(type(self.num_classes) is int and 1 <= self.num_classes <= MAX_CLASSES, "num_classes",
              got=self.num_classes, allowed=f"an integer in 1..{MAX_CLASSES}")
        check(0 < self.width <= 4, "width", got=self.width, allowed="0 < value <= 4")
        check(self.head_form in ("paper", "pool_first"), "head_form", got=self.head_form,
              allowed="paper, pool_first")
        check(0 <= self.dropout < 1, "dropout", got=self.dropout, allowed="0 <= value < 1")
        most = MAX_SEGMENTS if self.modality == "mv" else 1
        check(type(self.frames_per_pass) is int and 1 <= self.frames_per_pass <= most,
              f"frames_per_pass of {self.modality}", got=self.frames_per_pass,
              allowed=f"an integer in 1..{most}")

    @property
    def num_channels(self) -> int:
        """Channels of the network's input: 2 for each motion field, else 3."""
        return NUM_CHANNELS[self.modality] * self.frames_per_pass


class Segment(nn.Module):
    """The part of a network between two exits, with its exit."""

    def __init__(self, trunk: nn.Sequential, head: Head) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.trunk_frozen = False
        self.head_frozen = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] -> features [N, C', H', W'] for the next segment, logits [N, classes]."""
        features = self.trunk(x)
        return features, self.head(features)

    def train(self, mode: bool = True) -> Segment:
        """Set training mode; frozen parts stay in eval mode, so BatchNorm cannot drift."""
        super().train(mode)
        if self.trunk_frozen:
            self.trunk.eval()
        if self.head_frozen:
            self.head.eval()
        return self


class SegmentedNetwork(nn.Module):
    """Four segments in order; exits 1..3 are internal classifiers, exit 4 the own classifier."""

    def __init__(self, segments: Sequence[Segment], *, spec: NetworkSpec) -> None:
        super().__init__()
        assert len(segments) == NUM_EXITS
        self.segments = nn.ModuleList(segments)
        self.spec = spec

    def __iter__(self) -> Iterator[Segment]:
        return (cast(Segment, segment) for segment in self.segments)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Frames [N, C, H, W] -> logits of the four exits, each [N, num_classes]."""
        logits = []
        for segment in self:
            x, answer = segment(x)
            logits.append(answer)
        return logits

    def features(self, x: Tensor) -> list[Tensor]:
        """Frames [N, C, H, W] -> what each stage of the trunk puts out, [N, C_k, H_k, W_k]."""
        outputs = []
        for segment in self:
            x = segment.trunk(x)
            outputs.append(x)
        return outputs

    def pooled_inputs(self, x: Tensor) -> list[Tensor]:
        """Frames [N, C, H, W] -> all that each head needs: M x M^T for exits 1..3, [N, C] for 4.

        Cache these to train heads on a frozen trunk, then `head.from_pooled`.
        """
        return [
            segment.head.pooled_input(features)
            for segment, features in zip(self, self.features(x), strict=True)
        ]

    @property
    def heads(self) -> list[Head]:
        """The four exits in order."""
        return [segment.head for segment in self]

    def pool_first(self) -> SegmentedNetwork:
        """A copy with pool-first heads: equal logits in eval mode, far fewer MACs.

        See `models.heads`. BatchNorm in train mode would see other values: rewrite, then `.eval()`.
        """
        rewritten = copy.deepcopy(self)
        for segment in rewritten:
            if not isinstance(segment.head, ClassifierHead):
                segment.head = as_pool_first(segment.head)
        rewritten.spec = replace(self.spec, head_form="pool_first")
        return rewritten

    def freeze_trunk(self) -> SegmentedNetwork:
        """Freeze all stages and the own classifier: no gradients, BatchNorm statistics fixed.

        BatchNorm stays in eval mode whatever `.train()` says later, unlike in the reference code
        (paper.md 6.4). Internal classifiers stay trainable. Returns self.
        """
        for segment in self:
            segment.trunk_frozen = True
            segment.trunk.requires_grad_(False)
            if isinstance(segment.head, ClassifierHead):
                segment.head_frozen = True
                segment.head.requires_grad_(False)
            segment.train(self.training)
        return self


Networks = Mapping[Modality, SegmentedNetwork]
"""One network for each modality."""
