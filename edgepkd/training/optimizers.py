"""Optimisers and learning rates as a recipe asks for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from edgepkd.training.recipe import OptimizerRecipe

Group = tuple[Iterable[tuple[str, nn.Parameter]], float]
"""Named parameters, and their multiplier of the learning rate."""


def make_optimizer(groups: Sequence[Group], recipe: OptimizerRecipe) -> torch.optim.Optimizer:
    """Optimiser over the trainable parameters of `groups`.

    With `decay_biases` false, parameters of one dimension (biases, BatchNorm) have no weight
    decay. Every group keeps its peak learning rate under the key `peak`.
    """
    made: list[dict[str, Any]] = []
    for parameters, multiplier in groups:
        trainable = [p for _, p in parameters if p.requires_grad]
        plain = [] if recipe.decay_biases else [p for p in trainable if p.ndim <= 1]
        decayed = [p for p in trainable if recipe.decay_biases or p.ndim > 1]
        peak = recipe.learning_rate * multiplier
        made += [{"params": params, "lr": peak, "peak": peak, "weight_decay": decay}
                 for params, decay in ((decayed, recipe.weight_decay), (plain, 0.0)) if params]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(made, momentum=recipe.momentum)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(made, eps=recipe.epsilon)


def set_learning_rate(
    optimizer: torch.optim.Optimizer, recipe: OptimizerRecipe, *, step: int, steps_per_epoch: int
) -> float:
    """Set the rate of `step` (from 0, over all epochs); returns its share of the peak."""
    steps = recipe.epochs * steps_per_epoch
    factor = min(1.0, (step + 1) / max(1.0, recipe.warmup_share * steps))
    if recipe.decline == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
    else:
        passed = sum(step >= epoch * steps_per_epoch for epoch in recipe.step_epochs)
        factor *= float(recipe.step_factor**passed)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return factor


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """State of an optimiser as named tensors: PARAMETER.NAME."""
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items()
            for name, value in values.items() if isinstance(value, torch.Tensor)}


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Undo `optimizer_tensors`; groups and rates stay as they are."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
