"""Trace and sharpness where they are known in closed form, then on a network."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgepkd.errors import ConfigError, ModelError
from edgepkd.training.backbone import last_logits
from edgepkd.training.flatness import (
    Batch,
    TraceEstimate,
    epsilon_sharpness,
    flat_weights,
    hessian_trace,
    sharpness_of,
    trace_of,
)
from tests.models.networks import small_network

NONE = [(torch.zeros(1, 1), torch.zeros(1))]


def batches_of(inputs: Tensor, labels: Tensor, sizes: Sequence[int]) -> list[Batch]:
    return list(zip(inputs.split(list(sizes)), labels.split(list(sizes)), strict=True))


# ---- closed forms


def test_the_trace_of_a_diagonal_quadratic_is_exact() -> None:
    w = torch.tensor([1.0, -2, 3], requires_grad=True)
    curvature = torch.tensor([1.0, 4, 10])
    estimate = trace_of(lambda *_: (curvature * w**2).sum() / 2, [w], NONE, num_probes=2)
    assert estimate.mean == pytest.approx(15)
    assert estimate.standard_error == pytest.approx(0)  # v^T D v is the same for all signs
    assert estimate.relative_mean == pytest.approx((1 + 4 + 9) / 3 * 15)
    assert estimate.per_parameter == pytest.approx(5)
    assert estimate.loss == pytest.approx((1 + 16 + 90) / 2)


def test_the_trace_of_a_full_quadratic_is_within_its_error_bar() -> None:
    a = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))
    matrix = a @ a.T
    w = torch.zeros(12, requires_grad=True)
    estimate = trace_of(lambda *_: w @ matrix @ w / 2, [w], NONE, num_probes=400)
    exact = float(matrix.trace())
    off = matrix - matrix.diag().diag()
    expected_error = (2 * off.square().sum() / 400).sqrt()  # Var(v^T A v) = 2 sum_{i!=j} a_ij^2
    assert abs(estimate.mean - exact) < 3 * estimate.standard_error
    assert estimate.standard_error == pytest.approx(float(expected_error), rel=0.15)


@pytest.mark.slow
def test_the_trace_of_softmax_regression_equals_its_formula_for_any_batches() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(10, 4), torch.randint(0, 3, (10,))
    w = torch.randn(3, 4, requires_grad=True)

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(inputs @ w.T, targets)

    p = torch.softmax(x @ w.T, dim=1).detach()
    exact = float(((1 - p.square().sum(1)) * x.square().sum(1)).mean())
    one, several = (trace_of(loss_of, [w], batches_of(x, labels, sizes), num_probes=300)
                    for sizes in ((10,), (1, 6, 3)))
    assert abs(one.mean - exact) < 3 * one.standard_error
    assert one.standard_error < 0.1 * exact
    assert several.mean == pytest.approx(one.mean, rel=1e-4)
    assert several.loss == pytest.approx(one.loss, rel=1e-5)


def test_the_relative_trace_does_not_see_where_the_scale_sits() -> None:
    torch.manual_seed(1)
    x, labels = torch.randn(8, 5), torch.randint(0, 2, (8,))
    first, second = torch.randn(4, 5), torch.randn(2, 4)

    def measure(factor: float) -> TraceEstimate:
        a = (first * factor).requires_grad_(True)
        b = (second / factor).requires_grad_(True)
        return trace_of(lambda u, y: F.cross_entropy(torch.relu(u @ a.T) @ b.T, y), [a, b],
                        batches_of(x, labels, [8]), num_probes=50)

    here, moved = measure(1.0), measure(8.0)
    assert moved.relative_mean == pytest.approx(here.relative_mean, rel=1e-4)
    assert moved.relative_standard_error == pytest.approx(here.relative_standard_error, rel=1e-3)
    assert moved.mean > 5 * here.mean


def test_the_sharpness_of_a_linear_loss_is_that_of_the_best_corner() -> None:
    w = torch.tensor([1.0, -3, 0], requires_grad=True)
    slope = torch.tensor([2.0, -1, 0.5])
    found = sharpness_of(lambda *_: slope @ w, [w], NONE, epsilon=0.1, steps=5)
    assert found.loss == pytest.approx(5.0)
    rise = 0.1 * (2 * 2 + 1 * 4 + 0.5 * 1)  # epsilon * sum |slope_i| (|w_i| + 1)
    assert found.worst_loss == pytest.approx(5 + rise)
    assert found.value == pytest.approx(100 * rise / 6)
    assert w.tolist() == [1, -3, 0]


def test_the_sharpness_at_a_minimum_is_that_of_the_corner() -> None:
    w = torch.zeros(2, requires_grad=True)
    curvature = torch.tensor([1.0, 9])
    found = sharpness_of(lambda *_: (curvature * w**2).sum() / 2, [w], NONE, epsilon=0.2)
    assert found.value == pytest.approx(100 * 10 / 2 * 0.2**2, rel=1e-5)


# ---- on a network


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(3)
    views = torch.rand(3, 2, 2, 32, 32, generator=generator)
    return batches_of(views, torch.tensor([0, 1, 4]), [2, 1])


def test_the_weights_are_convolutions_and_the_last_classifier() -> None:
    network = small_network()
    names = {id(p): name for name, p in network.named_parameters()}
    chosen = [names[id(w)] for w in flat_weights(network)]
    assert len(chosen) == len(set(chosen)) == 20 + 1  # ResNet-18: 20 convolutions with shortcuts
    assert not [n for n in chosen if "bias" in n or "bn" in n]
    assert [n for n in chosen if ".head." in n] == ["segments.3.head.fc.weight"]


@pytest.mark.slow
def test_the_block_of_the_last_classifier_equals_its_formula(
    batches: list[Batch],
) -> None:
    network = small_network().double()
    doubled = [(views.double(), labels) for views, labels in batches]
    estimate = hessian_trace(network, doubled, num_probes=3, seed=2)
    last = network.heads[-1].fc.weight
    only_last = trace_of(loss_with(network), [last], doubled, num_probes=400)
    exact = exact_last_trace(network, doubled)
    assert abs(only_last.mean - exact) < 3 * only_last.standard_error
    assert estimate.num_parameters == sum(w.numel() for w in flat_weights(network))
    assert estimate.standard_error > 0


def loss_with(network: nn.Module):  # type: ignore[no-untyped-def]
    def loss_of(views: Tensor, labels: Tensor) -> Tensor:
        frames = last_logits(network, views.flatten(0, 1))  # type: ignore[arg-type]
        return F.cross_entropy(frames.view(*views.shape[:2], -1).mean(1), labels)
    return loss_of


def exact_last_trace(network: nn.Module, batches: list[Batch]) -> float:
    """The loss is softmax regression in the last classifier, on features averaged over segments."""
    total = 0.0
    with torch.no_grad():
        for views, _ in batches:
            x = network.features(views.flatten(0, 1))[-1].mean((2, 3))  # type: ignore[operator]
            x = x.view(*views.shape[:2], -1).mean(1)
            p = torch.softmax(network.heads[-1].fc(x), dim=1)  # type: ignore[index, union-attr]
            total += float(((1 - p.square().sum(1)) * x.square().sum(1)).sum())
    return total / 3


@pytest.mark.slow
def test_the_same_seed_gives_the_same_estimate_and_nothing_moves(batches: list[Batch]) -> None:
    network = small_network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    first = hessian_trace(network, batches, num_probes=2, seed=5)
    assert hessian_trace(network, batches, num_probes=2, seed=5) == first
    assert hessian_trace(network, batches, num_probes=2, seed=6) != first
    sharp = epsilon_sharpness(network, batches, epsilon=1e-3, steps=3)
    assert epsilon_sharpness(network, batches, epsilon=1e-3, steps=3) == sharp
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


@pytest.mark.slow
def test_a_larger_box_is_sharper(batches: list[Batch]) -> None:
    network = small_network()
    small, large = (epsilon_sharpness(network, batches, epsilon=e) for e in (1e-4, 1e-3))
    assert 0 < small.value < large.value
    assert small.loss == large.loss


def test_a_broken_loss_and_bad_settings_are_refused(batches: list[Batch]) -> None:
    network = small_network()
    with pytest.raises(ConfigError, match="num_probes is 1"):
        hessian_trace(network, batches, num_probes=1)
    with pytest.raises(ConfigError, match="clips to measure flatness on is 0"):
        hessian_trace(network, [])
    with pytest.raises(ConfigError, match="epsilon is 0"):
        epsilon_sharpness(network, batches, epsilon=0)
    with torch.no_grad():
        network.heads[-1].fc.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="loss of exit 4 is not finite"):
        epsilon_sharpness(network, batches)
