"""What each layer alone loses in INT8, and which layers had better stay float.

One layer after the other is quantised, all others are float, and the logits are compared with those
of the float network: a forward pass a layer over a few frames.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.quantize.network import quantizers
from edgepkd.text import command

MIN_SQNR_DB = 20.0
"""A layer below this at any exit had better stay float. There its noise alone is a tenth of the
spread of the logits, 1 % in power. Noise powers of layers add up, so a network of thirty layers
must average 35 dB to be as good as that one: such a layer spoils what all others save."""


@dataclass(frozen=True)
class LayerSensitivity:
    """What the quantisers of one layer, of its inputs and weights, do to the logits."""

    layer: str
    """Its name, as in `QuantSpec.keep_float`."""
    sqnr_db: tuple[float | None, ...]
    """Signal to noise of the logits of exits 1..4; None: not touched. Logits are taken without
    their mean over the classes, which no answer depends on."""
    kl_last: float
    """Kullback-Leibler divergence of exit 4's answer from the float one's, mean over frames,
    nats."""

    @property
    def worst_exit(self) -> int:
        """1..4: where it does most harm, which need not be the first exit that it reaches."""
        return 1 + min(range(len(self.sqnr_db)), key=lambda k: _or_infinity(self.sqnr_db[k]))

    @property
    def worst_sqnr_db(self) -> float:
        """At `worst_exit`; infinite where it makes no difference at all."""
        return _or_infinity(self.sqnr_db[self.worst_exit - 1])


@torch.no_grad()
def measure_sensitivity(
    network: SegmentedNetwork, frames: Sequence[Tensor]
) -> tuple[LayerSensitivity, ...]:
    """Every quantised layer of `network`, the worst first.

    `frames` are batches [N, C, H, W]; float is `network` with its quantisers at rest.
    """
    probed = copy.deepcopy(network).eval()
    layers: dict[str, list[Any]] = {}
    for name, quantizer in list(quantizers(probed)):
        layers.setdefault(name.rpartition(".")[0], []).append(quantizer)
        quantizer.disable()
    reference = _logits(probed, frames)
    found = []
    for layer, own in layers.items():
        for quantizer in own:
            quantizer.enable()
        found.append(_compare(layer, reference, _logits(probed, frames)))
        for quantizer in own:
            quantizer.disable()
    return tuple(sorted(found, key=lambda one: (one.worst_sqnr_db, one.layer)))


def worth_float(
    layers: Iterable[LayerSensitivity], *, min_sqnr_db: float = MIN_SQNR_DB
) -> tuple[str, ...]:
    """Names of layers that had better stay float: below `min_sqnr_db` at some exit."""
    return tuple(one.layer for one in layers if one.worst_sqnr_db < min_sqnr_db)


def keep_float_option(layers: Sequence[str]) -> str:
    """What to give to `edgepkd quantize` so that `layers` stay float."""
    return command("--set", f"quantizer.keep_float={json.dumps(list(layers))}")


def _logits(network: SegmentedNetwork, frames: Sequence[Tensor]) -> Tensor:
    """[4, frames, classes], float64."""
    device = next(network.parameters()).device
    parts = [torch.stack(network(batch.to(device))) for batch in frames]
    return torch.cat(parts, dim=1).double().cpu()


def _compare(layer: str, reference: Tensor, quantized: Tensor) -> LayerSensitivity:
    centred = reference - reference.mean(dim=-1, keepdim=True)
    noise = quantized - quantized.mean(dim=-1, keepdim=True) - centred
    kl = F.kl_div(quantized[-1].log_softmax(-1), reference[-1].log_softmax(-1),
                  log_target=True, reduction="batchmean")
    return LayerSensitivity(
        layer, sqnr_db=tuple(_decibels(signal, error) for signal, error in zip(
            centred.square().sum(dim=(1, 2)).tolist(), noise.square().sum(dim=(1, 2)).tolist(),
            strict=True)),
        kl_last=max(0.0, float(kl)))


def _or_infinity(decibels: float | None) -> float:
    return math.inf if decibels is None else decibels


def _decibels(signal: float, noise: float) -> float | None:
    if noise == 0:
        return None
    return 10 * math.log10(max(signal, sys.float_info.min) / noise)  # JSON knows no infinity
