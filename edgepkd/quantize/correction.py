"""Biases that take back what quantising shifts on average (Nagel et al. 2019, section 4.2).

Rounding moves the mean of a layer's output, most where a channel has few weights, as in depthwise
convolutions. Layer by layer in the order of execution, with inputs that are quantised and corrected
already,

    bias += E[float output] - E[quantised output]

channel by channel, over frames and positions. Nothing is added to the graph: engines keep biases in
float, or in INT32 with a fine step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from edgepkd.models.segmented import SegmentedNetwork

MAX_FRAMES = 256
"""Frames that shifts are averaged over, at most: they run as one batch, in memory."""


class FrameSample:
    """Keeps up to MAX_FRAMES of the frames that pass, evenly spread; a forward pre-hook."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []
        self._seen, self._stride = 0, 1

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Look at a batch [N, C, H, W]."""
        for frame in inputs[0]:
            if self._seen % self._stride == 0:
                self._kept.append(frame)
            self._seen += 1
            if len(self._kept) > MAX_FRAMES:
                self._kept, self._stride = self._kept[::2], 2 * self._stride

    def frames(self) -> Tensor:
        """[N, C, H, W]."""
        return torch.stack(self._kept)


@torch.no_grad()
def layer_means(network: nn.Module, frames: Tensor) -> Mapping[str, Tensor]:
    """Mean output of every convolution and linear layer, a value a channel.

    `frames` [N, C, H, W] are one batch.
    """
    means: dict[str, Tensor] = {}
    with _watched(network, partial(_remember, means)):
        network(frames)
    return means


@torch.no_grad()
def correct_biases(
    quantized: SegmentedNetwork, frames: Tensor, *, means: Mapping[str, Tensor]
) -> list[Tensor]:
    """Correct the biases of `quantized` in place; returns its logits of `frames` after it.

    `means` are the `layer_means` of the same frames without quantisers. Layers that stay float are
    corrected, too, for the shift of their inputs.
    """
    with _watched(quantized, partial(_correct, means)):
        return quantized.forward(frames)


def _remember(means: dict[str, Tensor], name: str, layer: nn.Module, _: object,
              output: Tensor) -> None:
    means[name] = _channel_means(output)


def _correct(means: Mapping[str, Tensor], name: str, layer: nn.Conv2d | nn.Linear, _: object,
             output: Tensor) -> Tensor:
    shift = means[name] - _channel_means(output)
    assert layer.bias is not None  # folding gives one to every convolution
    layer.bias += shift
    return output + shift.view(-1, *[1] * (output.dim() - 2))


def _channel_means(output: Tensor) -> Tensor:
    """[N, C] or [N, C, H, W] -> [C]."""
    return output.mean(dim=[0, *range(2, output.dim())])


@contextmanager
def _watched(network: nn.Module, hook: Callable[..., Tensor | None]) -> Iterator[None]:
    """Call `hook(name, layer, inputs, output)` behind every convolution and linear layer."""
    handles = [module.register_forward_hook(partial(hook, name))
               for name, module in network.named_modules()
               if isinstance(module, (nn.Conv2d, nn.Linear))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
