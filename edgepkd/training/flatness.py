"""How flat the loss is around trained weights: Hessian trace and epsilon-sharpness.

The loss L is the mean cross-entropy, over the clips given, of exit 4's logits averaged over the
segments of each clip; the network is in eval mode (BatchNorm uses its stored statistics, no
dropout). The weights w are `flat_weights`: the weight tensors of all convolutions and linear layers
of the four stages, and of the last classifier. Left out are biases, the scales and shifts of
BatchNorm (`data_bn` too), and the internal classifiers of exits 1..3, on which L does not depend.

Neither measure can be compared between networks without care: both grow with the number of weights
and change when a layer's scale moves into the next one. That is why the trace is given three times
(`TraceEstimate`), and why only networks of one architecture should be ranked by sharpness.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgepkd.cascade import Floats
from edgepkd.config import check
from edgepkd.errors import ModelError
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.backbone import last_logits

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Views [clips, segments, C, H, W] and labels [clips]."""
LossOf: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Inputs and labels of a batch -> mean loss of its clips."""


@dataclass(frozen=True)
class TraceEstimate:
    """Trace of the Hessian of the loss; errors are standard errors over probes.

    They say how well the trace is known for these clips, not how it would vary with other clips.
    """

    mean: float
    """tr(H): the sum of all second derivatives."""
    standard_error: float
    relative_mean: float
    """sum over weight tensors of ||w_t||^2 / n_t * tr(H_tt), n_t entries in tensor t and H_tt its
    block of H: the trace where each tensor is counted in units of its own root mean square, so
    that the scale of a layer drops out. Half of it times s^2 is the loss that noise of s times that
    root mean square on every weight adds, to second order."""
    relative_standard_error: float
    num_probes: int
    num_parameters: int
    """Entries of all weight tensors."""
    loss: float

    @property
    def per_parameter(self) -> float:
        """tr(H) divided by the number of weights: the mean curvature."""
        return self.mean / self.num_parameters


@dataclass(frozen=True)
class Sharpness:
    """Epsilon-sharpness of the loss (see `epsilon_sharpness`)."""

    value: float
    """100 * (worst_loss - loss) / (1 + loss)."""
    loss: float
    worst_loss: float
    """Largest loss met in the box."""
    epsilon: float
    steps: int


def flat_weights(network: SegmentedNetwork) -> list[nn.Parameter]:
    """The weight tensors that flatness is measured in (see the top of this module)."""
    parts: list[nn.Module] = [*(segment.trunk for segment in network), network.heads[-1]]
    modules = [module for part in parts for module in part.modules()]
    return [cast(nn.Parameter, module.weight) for module in modules
            if isinstance(module, nn.Conv2d | nn.Linear)]


def hessian_trace(
    network: SegmentedNetwork, batches: Sequence[Batch], *, num_probes: int = 16, seed: int = 0
) -> TraceEstimate:
    """Estimate tr(H) of the loss by Hutchinson's method.

    With entries of v drawn from {-1, +1}, E[v^T H v] = tr(H); H v comes from differentiating
    grad(L)^T v once more. The relative trace takes v scaled by each tensor's root mean square. The
    mean of `num_probes` such values and its standard error are returned. A batch is gone through
    for all probes at once, so memory is that of one batch; each probe costs two second backward
    passes.

    Raises:
        ConfigError: fewer than 2 probes, or no clip. ModelError: the loss is not finite.
    """
    network = _copy(network)
    return trace_of(_network_loss(network), flat_weights(network), batches,
                    num_probes=num_probes, seed=seed)


def trace_of(
    loss_of: LossOf, weights: Sequence[Tensor], batches: Sequence[Batch], *,
    num_probes: int = 16, seed: int = 0,
) -> TraceEstimate:
    """As `hessian_trace`, for any `loss_of` that depends on `weights` (which need gradients)."""
    check(num_probes >= 2, "num_probes", got=num_probes, allowed="2 or more")
    sizes = [float(w.detach().double().square().mean().sqrt()) for w in weights]
    plain, relative = np.zeros(num_probes), np.zeros(num_probes)
    total = 0.0
    for (inputs, labels), share in _with_shares(batches):
        loss = share * loss_of(inputs, labels)
        total += _finite(loss)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        for probe in range(num_probes):
            signs = _signs(weights, seed=seed, probe=probe)
            plain[probe] += _curvature(gradients, weights, signs)
            scaled = [size * v for size, v in zip(sizes, signs, strict=True)]
            relative[probe] += _curvature(gradients, weights, scaled)
    return TraceEstimate(*_mean_and_error(plain), *_mean_and_error(relative), num_probes,
                         sum(w.numel() for w in weights), total)


def epsilon_sharpness(
    network: SegmentedNetwork, batches: Sequence[Batch], *, epsilon: float = 1e-4, steps: int = 10,
    seed: int = 0,
) -> Sharpness:
    """Largest relative rise of the loss in a small box around the weights (Keskar et al. 2017).

        100 * (max_{w' in box} L(w') - L(w)) / (1 + L(w)),   box: |w'_i - w_i| <= epsilon (|w_i|+1)

    in the full space of `flat_weights` (their A = I). The maximum is sought by projected gradient
    ascent: from a point drawn in the box, `steps` steps along the gradient's signs, each 2.5/steps
    of the box's half width, cut back to the box. The largest loss met counts, so the value is a
    lower bound of the maximum. The network is left as it was.

    Raises:
        ConfigError: `epsilon` or `steps` is out of its range, or no clip. ModelError: the loss is
            not finite.
    """
    network = _copy(network)
    return sharpness_of(_network_loss(network), flat_weights(network), batches, epsilon=epsilon,
                        steps=steps, seed=seed)


def sharpness_of(
    loss_of: LossOf, weights: Sequence[Tensor], batches: Sequence[Batch], *,
    epsilon: float = 1e-4, steps: int = 10, seed: int = 0,
) -> Sharpness:
    """As `epsilon_sharpness`, for any `loss_of` that depends on `weights`; moves `weights`."""
    check(epsilon > 0, "epsilon", got=epsilon, allowed="above 0")
    check(steps >= 1, "steps", got=steps, allowed="1 or more")
    centres = [w.detach().clone() for w in weights]
    halves = [epsilon * (w.abs() + 1) for w in centres]
    start, _ = _loss_and_gradients(loss_of, weights, batches)
    generator = torch.Generator().manual_seed(seed)
    offsets = [h * (2 * torch.rand(h.shape, generator=generator).to(h) - 1) for h in halves]
    worst = start
    for step in range(steps + 1):
        with torch.no_grad():
            for w, centre, offset in zip(weights, centres, offsets, strict=True):
                w.copy_(centre + offset)
        loss, gradients = _loss_and_gradients(loss_of, weights, batches)
        worst = max(worst, loss)
        if step < steps:
            offsets = [torch.clamp(y + 2.5 / steps * h * g.sign(), -h, h)
                       for y, h, g in zip(offsets, halves, gradients, strict=True)]
    with torch.no_grad():
        for w, centre in zip(weights, centres, strict=True):
            w.copy_(centre)
    return Sharpness(100 * (worst - start) / (1 + start), start, worst, epsilon, steps)


def _copy(network: SegmentedNetwork) -> SegmentedNetwork:
    """A copy in eval mode whose `flat_weights`, and nothing else, need gradients."""
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    for weight in flat_weights(copied):
        weight.requires_grad_(True)
    return copied


def _network_loss(network: SegmentedNetwork) -> LossOf:
    def loss_of(views: Tensor, labels: Tensor) -> Tensor:
        frames = last_logits(network, views.flatten(0, 1))  # [clips * segments, classes]
        clips = frames.view(*views.shape[:2], -1).mean(dim=1)
        return F.cross_entropy(clips, labels)
    return loss_of


def _loss_and_gradients(
    loss_of: LossOf, weights: Sequence[Tensor], batches: Sequence[Batch]
) -> tuple[float, list[Tensor]]:
    total = 0.0
    sums = [torch.zeros_like(w) for w in weights]
    for (inputs, labels), share in _with_shares(batches):
        loss = share * loss_of(inputs, labels)
        total += _finite(loss)
        gradients = torch.autograd.grad(loss, weights)
        for so_far, gradient in zip(sums, gradients, strict=True):
            so_far += gradient
    return total, sums


def _with_shares(batches: Sequence[Batch]) -> list[tuple[Batch, float]]:
    """Batches with their share of all clips."""
    num_clips = sum(len(labels) for _, labels in batches)
    check(num_clips >= 1, "clips to measure flatness on", got=num_clips, allowed="1 or more")
    return [(batch, len(batch[1]) / num_clips) for batch in batches]


def _finite(loss: Tensor) -> float:
    value = float(loss.item())
    if not np.isfinite(value):
        raise ModelError("the loss of exit 4 is not finite; flatness is not defined.",
                         hint="The network or its input is broken; see `edgepkd eval`.")
    return value


def _curvature(
    gradients: Sequence[Tensor], weights: Sequence[Tensor], along: Sequence[Tensor]
) -> float:
    """v^T H v for v = `along`, from gradients that still have their graph."""
    products = torch.autograd.grad(gradients, weights, along, retain_graph=True, allow_unused=True)
    return sum(float((v * h).sum(dtype=torch.float64))
               for v, h in zip(along, products, strict=True) if h is not None)


def _signs(weights: Sequence[Tensor], *, seed: int, probe: int) -> list[Tensor]:
    """One probe: -1 or +1 for each weight, the same for every batch."""
    rng = np.random.default_rng((seed, probe))
    return [torch.from_numpy(rng.integers(0, 2, tuple(w.shape), np.int8)).to(w) * 2 - 1
            for w in weights]


def _mean_and_error(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
