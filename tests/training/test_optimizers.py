"""Optimisers and rates: decay acts where it should, schedules switch at the exact epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import nn

from edgepkd.config import InputSpec
from edgepkd.training.backbone import STEM, new_network
from edgepkd.training.backbone import _optimizer as backbone_optimizer
from edgepkd.training.optimizers import (
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from edgepkd.training.recipe import ExitRecipe, Optimizer, OptimizerRecipe, load_train_recipe

STEPS = OptimizerRecipe(epochs=10, learning_rate=0.1, weight_decay=0.5)


def linear(*, idle: bool = True) -> nn.Linear:
    """All weights and biases are 1; with `idle` their gradients are zero."""
    layer = nn.Linear(3, 2)
    for parameter in layer.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter) if idle else torch.ones_like(parameter)
    return layer


def rates(recipe: OptimizerRecipe, *, steps_per_epoch: int) -> list[float]:
    optimizer = make_optimizer([(linear().named_parameters(), 1.0)], recipe)
    return [set_learning_rate(optimizer, recipe, step=s, steps_per_epoch=steps_per_epoch)
            for s in range(recipe.epochs * steps_per_epoch)]


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("biases", [True, False])
def test_weight_decay_shrinks_what_the_loss_leaves_alone(kind: Optimizer, biases: bool) -> None:
    layer = linear()
    recipe = replace(STEPS, optimizer=kind, decay_biases=biases)
    make_optimizer([(layer.named_parameters(), 1.0)], recipe).step()
    assert (layer.weight < 1).all()
    assert (layer.bias < 1).all() == biases


def test_decay_of_adamw_is_rate_times_decay() -> None:
    layer = linear()
    make_optimizer([(layer.named_parameters(), 0.5)], STEPS).step()
    torch.testing.assert_close(layer.weight, torch.full((2, 3), 1 - 0.1 * 0.5 * 0.5))


def test_without_decay_nothing_moves() -> None:
    layer = linear()
    make_optimizer([(layer.named_parameters(), 1.0)], replace(STEPS, weight_decay=0.0)).step()
    assert torch.equal(layer.weight, torch.ones(2, 3))


def test_batch_norm_counts_as_bias() -> None:
    norm = nn.BatchNorm2d(4)
    optimizer = make_optimizer([(norm.named_parameters(), 1.0)],
                               replace(STEPS, decay_biases=False))
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.0]


def test_frozen_parameters_are_left_out() -> None:
    layer = linear()
    layer.bias.requires_grad_(False)
    optimizer = make_optimizer([(layer.named_parameters(), 1.0)], STEPS)
    assert [p for g in optimizer.param_groups for p in g["params"]] == [layer.weight]


def test_steps_switch_at_the_first_step_of_their_epochs() -> None:
    recipe = replace(STEPS, decline="steps", step_epochs=(3, 7))
    expected = [1.0] * 3 * 4 + [0.1] * 4 * 4 + [0.01] * 3 * 4
    assert rates(recipe, steps_per_epoch=4) == pytest.approx(expected)


def test_cosine_starts_at_the_peak_and_is_half_way_down_in_the_middle() -> None:
    found = rates(STEPS, steps_per_epoch=2)
    assert found[0] == 1
    assert found[10] == pytest.approx(0.5)
    assert found == sorted(found, reverse=True)
    assert 0 < found[-1] < 0.01


def test_a_warm_up_rises_evenly_to_the_peak() -> None:
    recipe = replace(STEPS, decline="steps", warmup_share=0.2)
    assert rates(recipe, steps_per_epoch=2)[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])


def test_rates_of_the_groups_are_multiples_of_the_peak() -> None:
    optimizer = make_optimizer([(linear().named_parameters(), 10.0),
                                (linear().named_parameters(), 1.0)], STEPS)
    set_learning_rate(optimizer, STEPS, step=5, steps_per_epoch=1)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.5, 0.05])


@pytest.mark.parametrize(("modality", "head", "stem", "trunk"), [
    ("mv", 1e-2, 1e-3, 1e-4), ("residual", 5e-3, 5e-4, 5e-5), ("iframe", 3e-4, 3e-6, 3e-6),
])
def test_rates_of_the_paper_reach_head_stem_and_trunk(
    modality: Any, head: float, stem: float, trunk: float
) -> None:
    recipe = replace(load_train_recipe("paper-ucf101").backbones[modality], width=0.125)
    spec = InputSpec(modality, num_segments=1, resize_px=32, crop_px=32)
    network = new_network(spec, recipe, num_classes=3)
    optimizer = backbone_optimizer(network, recipe)
    names = {id(p): name for name, p in network.named_parameters()}
    found = {names[id(p)]: (g["lr"], g["weight_decay"])
             for g in optimizer.param_groups for p in g["params"]}
    trained = {name for name in names.values()
               if ".trunk." in name or name.startswith("segments.3.head.")}
    assert set(found) == trained
    assert sum(bool(STEM.search(name)) for name in trained) == (3 if modality == "iframe" else 5)
    for name, (rate, decay) in found.items():
        expected = head if ".head." in name else stem if STEM.search(name) else trunk
        assert rate == pytest.approx(expected), name
        assert decay == (1e-4 if name.endswith("weight") and "bn" not in name
                         and "downsample.1" not in name else 0), name


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_the_state_of_an_optimiser_survives_as_tensors(kind: Optimizer) -> None:
    recipe = ExitRecipe(optimizer=kind, learning_rate=0.1)
    layers = [linear(idle=False), linear(idle=False)]
    one, other = (make_optimizer([(layer.named_parameters(), 1.0)], recipe) for layer in layers)
    one.step()
    layers[1].load_state_dict(layers[0].state_dict())
    load_optimizer_tensors(other, {k: v.clone() for k, v in optimizer_tensors(one).items()})
    for optimizer in (one, other):
        optimizer.step()
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert cast(float, layers[0].weight[0, 0]) < 1
