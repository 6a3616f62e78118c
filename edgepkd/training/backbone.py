"""Trains the trunk of one modality with its last exit; the other exits come later (exits.py)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgepkd.config import InputSpec, SamplingRule
from edgepkd.models.registry import build_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.cache import ClipArrays
from edgepkd.training.execution import Execution, check_batch, rank, same_buffers, world_size
from edgepkd.training.loader import LabelledClips, ViewRule, load_epoch
from edgepkd.training.loop import (
    Checkpoint,
    Log,
    mix_seed,
    refuse_nan,
    run_epochs,
    settle_selection,
)
from edgepkd.training.losses import class_weights, clip_loss
from edgepkd.training.optimizers import make_optimizer, set_learning_rate
from edgepkd.training.recipe import AugmentRecipe, BackboneRecipe
from edgepkd.training.views import test_view

MAX_GRADIENT_NORM = 5.0
STEM = re.compile(r"segments\.0\.trunk\.(data_bn|conv1|conv_stem|bn1)\.")
"""First convolution, its BatchNorm and the input's."""
_FIRST_VARIANCE = 0.01
"""Where `data_bn` of motion and residuals starts: both are small numbers around zero."""


def new_network(spec: InputSpec, recipe: BackboneRecipe, *, num_classes: int) -> SegmentedNetwork:
    """A network as `recipe` asks for, with its leading stages frozen.

    Raises:
        MissingExtraError: the package with the ImageNet weights is not installed.
    """
    network = build_network(
        recipe.backbone, modality=spec.modality, num_classes=num_classes, width=recipe.width,
        pretrained="imagenet" if recipe.imagenet else None, dropout=recipe.dropout,
        frames_per_pass=spec.frames_per_pass,
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
    augment: AugmentRecipe | None = None,
    calibration: LabelledClips | None = None,
    start: SegmentedNetwork | None = None,
    execution: Execution | None = None,
    log: Log | None = None,
    checkpoint: Checkpoint | None = None,
) -> SegmentedNetwork:
    """Train trunk and last exit; returns the network on the CPU, in eval mode.

    `start` is trained in place of a new network. The loss of the calibration clips is logged each
    epoch, and chooses the epoch where the recipe says so. The same seed gives the same weights on
    one thread, also after a kill (`checkpoint`).

    Raises:
        TrainingError: the loss is not finite, or the checkpoint is of another run.
    """
    execution = execution or Execution()
    check_batch(recipe.batch_clips, name="batch_clips")
    recipe = settle_selection(
        recipe.for_clips(len(data)), labels=calibration.labels if calibration else (),
        groups=calibration.groups if calibration else (), num_classes=num_classes, log=log)
    torch.manual_seed(seed)
    network = start or new_network(spec, recipe, num_classes=num_classes)
    if execution.on_gpu and world_size() > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    for norm in _batch_norms(network):
        norm.momentum = recipe.batch_norm_momentum
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = execution.prepare(nn.Sequential(*(s.trunk for s in network), network.heads[-1]))
    optimizer = _optimizer(network, recipe)
    weights = class_weights(data.labels, num_classes=num_classes, rule=recipe.class_weights)
    views = ViewRule(spec, recipe.train_segments, rule, seed, augment or AugmentRecipe())

    def train_epoch(epoch: int) -> Mapping[str, float]:
        set_training_mode(network, recipe)
        torch.manual_seed(mix_seed(seed, epoch, rank()))  # of dropout
        return _train_epoch(trained, optimizer, data, views, epoch=epoch, recipe=recipe,
                            weights=weights, execution=execution)

    def evaluate() -> Mapping[str, float]:
        assert calibration is not None
        return _last_exit_on(network, calibration, spec=spec, device=execution.device)

    run_epochs(network, [optimizer], recipe=recipe, train_epoch=train_epoch,
               evaluate=evaluate if calibration else None, log=log, checkpoint=checkpoint)
    if recipe.settle_batch_norm:
        set_training_mode(network, recipe)
        _settle_batch_norm(network, (x for x, _ in load_epoch(
            data, views, epoch=recipe.epochs, batch_clips=recipe.batch_clips,
            workers=execution.workers)), execution=execution)
    return network.cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload,no-any-return]


def _train_epoch(
    trained: nn.Module, optimizer: torch.optim.Optimizer, data: LabelledClips, views: ViewRule, *,
    epoch: int, recipe: BackboneRecipe, weights: Tensor | None, execution: Execution,
) -> dict[str, float]:
    losses: list[float] = []
    share_of_peak = 1.0
    steps_per_epoch = recipe.steps_per_epoch(len(data))
    num_batches = max(1, len(data) // recipe.batch_clips)
    batches = load_epoch(data, views, epoch=epoch, batch_clips=recipe.batch_clips,
                         workers=execution.workers)
    for index, (x, labels) in enumerate(batches):
        step, place = divmod(index, recipe.accumulate)
        together = min(recipe.accumulate, num_batches - step * recipe.accumulate)
        share_of_peak = set_learning_rate(
            optimizer, recipe, step=epoch * steps_per_epoch + step,
            steps_per_epoch=steps_per_epoch)
        frames = x.flatten(0, 1).to(execution.device, memory_format=torch.channels_last)
        with execution.autocast():
            logits = trained(frames).float()
        loss = clip_loss(logits.view(len(x), x.shape[1], -1), labels.to(execution.device),
                         label_smoothing=recipe.label_smoothing, weights=weights)
        losses.append(loss.item())
        refuse_nan(losses[-1], epoch=epoch)
        if place == 0:
            optimizer.zero_grad()
        (loss / together).backward()  # type: ignore[no-untyped-call]
        if place + 1 < together:
            continue
        nn.utils.clip_grad_norm_(trained.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
    return {"loss": float(np.mean(losses)), "learning_rate": share_of_peak * recipe.learning_rate}


def _batch_norms(network: SegmentedNetwork) -> list[_BatchNorm]:
    """BatchNorm of the trunk, synchronised over processes or not."""
    return [module for name, module in network.named_modules()
            if isinstance(module, _BatchNorm) and ".trunk." in name]


@torch.no_grad()
def _settle_batch_norm(
    network: SegmentedNetwork, views: Iterable[Tensor], *, execution: Execution
) -> None:
    """Set BatchNorm that is in training mode to the mean of the statistics of all batches.

    `views` are batches [clips, segments, C, crop_px, crop_px]. The statistics are those that the
    trained weights saw, batch by batch.
    """
    moving = [(norm, norm.momentum) for norm in _batch_norms(network) if norm.training]
    for norm, _ in moving:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
    for x in views:
        last_logits(network, x.flatten(0, 1).to(execution.device,
                                                memory_format=torch.channels_last))
    for norm, momentum in moving:
        norm.momentum = momentum
    same_buffers(network)


@torch.no_grad()
def _last_exit_on(
    network: SegmentedNetwork, data: LabelledClips, *, spec: InputSpec, device: str
) -> dict[str, float]:
    """Loss and accuracy of the last exit on test views."""
    network.eval()
    logits = last_exit_logits(network, data.clips, spec=spec).cpu()
    labels = torch.tensor(data.labels)
    return {"loss_calibration": float(nn.functional.cross_entropy(logits, labels)),
            "accuracy_calibration": float((logits.argmax(1) == labels).double().mean())}


def set_training_mode(network: SegmentedNetwork, recipe: BackboneRecipe) -> None:
    """Train mode, but BatchNorm that is to keep its statistics stays in eval mode."""
    network.train()
    if not recipe.frozen_batch_norm:
        return
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and not name.endswith("data_bn"):
            module.eval()


def last_logits(network: SegmentedNetwork, x: Tensor) -> Tensor:
    """Logits [N, classes] of the last exit alone for frames [N, C, H, W]."""
    for segment in network:
        x = segment.trunk(x)
    logits: Tensor = network.heads[-1](x)
    return logits


@torch.no_grad()
def last_exit_logits(
    network: SegmentedNetwork, clips: Sequence[ClipArrays], *, spec: InputSpec
) -> Tensor:
    """Logits of the last exit alone for the test views, averaged over segments: [clips, classes].
    """
    device = next(network.parameters()).device
    return torch.stack([last_logits(network, test_view(clip, spec).to(device)).mean(dim=0)
                        for clip in clips])


@torch.no_grad()
def clip_logits(
    network: SegmentedNetwork, clips: Sequence[ClipArrays], *, spec: InputSpec
) -> Tensor:
    """Logits of all exits for the test views, averaged over segments: [clips, 4, classes]."""
    network.eval()
    device, rows = next(network.parameters()).device, []
    for clip in clips:
        exits = network(test_view(clip, spec).to(device))  # 4 of [segments, classes]
        rows.append(torch.stack([logits.mean(dim=0) for logits in exits]))
    return torch.stack(rows)


def _optimizer(network: SegmentedNetwork, recipe: BackboneRecipe) -> torch.optim.Optimizer:
    stem: list[tuple[str, nn.Parameter]] = []
    rest: list[tuple[str, nn.Parameter]] = []
    for name, parameter in network.named_parameters():
        if ".trunk." in name:
            (stem if STEM.search(name) else rest).append((name, parameter))
    head = list(network.heads[-1].named_parameters())
    return make_optimizer(
        [(head, recipe.head_multiplier), (stem, recipe.stem_multiplier), (rest, 1.0)], recipe)
