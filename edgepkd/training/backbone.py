"""Trains the trunk of one modality with its last exit; the other exits come later (exits.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edgepkd.config import InputSpec, SamplingRule
from edgepkd.models.registry import build_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.cache import ClipArrays
from edgepkd.training.losses import clip_loss
from edgepkd.training.recipe import BackboneRecipe
from edgepkd.training.views import Rng, random_geometry, test_view, train_view

MAX_GRADIENT_NORM = 5.0
_FIRST_VARIANCE = 0.01
"""Where `data_bn` of motion and residuals starts: both are small numbers around zero."""


@dataclass(frozen=True)
class LabelledClips:
    """Clips and their label indices."""

    clips: Sequence[ClipArrays]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.clips)


def new_network(spec: InputSpec, recipe: BackboneRecipe, *, num_classes: int) -> SegmentedNetwork:
    """A network as `recipe` asks for, with its leading stages frozen.

    Raises:
        MissingExtraError: the package with the ImageNet weights is not installed.
    """
    network = build_network(
        recipe.backbone, modality=spec.modality, num_classes=num_classes, width=recipe.width,
        pretrained="imagenet" if recipe.imagenet else None, dropout=recipe.dropout,
    )
    for segment in list(network)[: recipe.frozen_stages]:
        segment.trunk.requires_grad_(False)
        segment.trunk_frozen = True
    for name, module in network.named_modules():
        if name.endswith("data_bn"):
            assert isinstance(module.running_var, Tensor)
            module.running_var.fill_(_FIRST_VARIANCE)
    last = network.heads[-1].fc
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return network


def train_backbone(
    data: LabelledClips,
    *,
    spec: InputSpec,
    recipe: BackboneRecipe,
    num_classes: int,
    rule: SamplingRule,
    seed: int,
    on_epoch: Callable[[int, float], None] | None = None,
) -> SegmentedNetwork:
    """Train trunk and last exit; returns the network in eval mode.

    AdamW, linear warm-up, cosine to zero. `on_epoch` gets the epoch and its mean loss. The same
    seed gives the same weights on one thread.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = new_network(spec, recipe, num_classes=num_classes)
    optimizer = _optimizer(network, recipe)
    steps = recipe.epochs * max(1, len(data) // recipe.batch_clips)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _schedule(step, steps=steps, warmup_share=recipe.warmup_share)
    )
    for epoch in range(recipe.epochs):
        set_training_mode(network, recipe)
        losses = []
        for indices in _batches(len(data), recipe.batch_clips, rng):
            x = _batch(data, indices, spec=spec, recipe=recipe, rule=rule, rng=rng)
            labels = torch.tensor([data.labels[i] for i in indices])
            logits = last_logits(network, x).view(len(indices), -1, num_classes)
            loss = clip_loss(logits, labels, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        if on_epoch:
            on_epoch(epoch, float(np.mean(losses)))
    return network.eval()


def set_training_mode(network: SegmentedNetwork, recipe: BackboneRecipe) -> None:
    """Train mode, but BatchNorm that is to keep its statistics stays in eval mode."""
    network.train()
    if not recipe.frozen_batch_norm:
        return
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and not name.endswith("data_bn"):
            module.eval()


def last_logits(network: SegmentedNetwork, x: Tensor) -> Tensor:
    """Logits [N, classes] of the last exit alone for frames [N, C, H, W]."""
    for segment in network:
        x = segment.trunk(x)
    logits: Tensor = network.heads[-1](x)
    return logits


@torch.no_grad()
def clip_logits(
    network: SegmentedNetwork, clips: Sequence[ClipArrays], *, spec: InputSpec
) -> Tensor:
    """Logits of all exits for the test views, averaged over segments: [clips, 4, classes]."""
    network.eval()
    rows = []
    for clip in clips:
        exits = network(test_view(clip, spec))  # 4 of [segments, classes]
        rows.append(torch.stack([logits.mean(dim=0) for logits in exits]))
    return torch.stack(rows)


def _optimizer(network: SegmentedNetwork, recipe: BackboneRecipe) -> torch.optim.Optimizer:
    trunk = [p for p in network.trunk_parameters() if p.requires_grad]
    head = list(network.heads[-1].parameters())
    groups = [{"params": head, "lr": recipe.learning_rate * recipe.head_multiplier}]
    if trunk:
        groups.append({"params": trunk, "lr": recipe.learning_rate})
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)


def _schedule(step: int, *, steps: int, warmup_share: float) -> float:
    """Factor of the learning rate: linear warm-up times half a cosine."""
    warmup = min(1.0, (step + 1) / max(1.0, warmup_share * steps))
    return warmup * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def _batches(count: int, size: int, rng: Rng) -> Iterator[list[int]]:
    """Random batches of equal size; the rest of an epoch is left out."""
    order = rng.permutation(count).tolist()
    for start in range(0, max(1, count // size) * size, size):
        yield order[start : start + size]


def _batch(
    data: LabelledClips, indices: Sequence[int], *, spec: InputSpec, recipe: BackboneRecipe,
    rule: SamplingRule, rng: Rng,
) -> Tensor:
    """Random views of some clips: [clips * train_segments, C, crop_px, crop_px]."""
    views = [
        train_view(data.clips[i], spec, num_segments=recipe.train_segments, rule=rule,
                   geometry=random_geometry(rng), rng=rng)
        for i in indices
    ]
    return torch.cat(views).contiguous(memory_format=torch.channels_last)
