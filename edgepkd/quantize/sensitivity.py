"""What each layer alone loses in INT8, and which layers had better stay float.

One layer after the other is quantised, all others are float, and the logits are compared with those
of the float network: a forward pass a layer over a few frames.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgepkd.config import Modality
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.quantize.correction import correct_biases, layer_means
from edgepkd.quantize.fidelity import divergence, sqnr_db
from edgepkd.quantize.network import folded, quantizers
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
    quantized: SegmentedNetwork, frames: Sequence[Tensor], *,
    network: SegmentedNetwork | None = None,
) -> tuple[LayerSensitivity, ...]:
    """Every quantised layer of `quantized`, the worst first.

    `frames` are batches [N, C, H, W]. With `network`, the float one that `quantized` was made from,
    biases are corrected for each layer alone (see `quantize.correction`); without, they are taken
    as they are, and float is `quantized` with its quantisers at rest.
    """
    probed = copy.deepcopy(quantized).eval()
    layers: dict[str, list[Any]] = {}
    for name, quantizer in list(quantizers(probed)):
        layers.setdefault(name.rpartition(".")[0], []).append(quantizer)
        quantizer.disable()
    if network is not None:
        probed.load_state_dict(folded(network).state_dict(), strict=False)
    batch = torch.cat(list(frames)).to(next(probed.parameters()).device)
    means = layer_means(probed, batch) if network is not None else None
    reference, found = _stacked(probed(batch)), []
    for layer, own in layers.items():
        for quantizer in own:
            quantizer.enable()
        logits = (probed(batch) if means is None
                  else correct_biases(copy.deepcopy(probed), batch, means=means))
        found.append(_compare(layer, reference, _stacked(logits)))
        for quantizer in own:
            quantizer.disable()
    return tuple(sorted(found, key=lambda one: (one.worst_sqnr_db, one.layer)))


def worth_float(
    layers: Iterable[LayerSensitivity], *, min_sqnr_db: float = MIN_SQNR_DB
) -> tuple[str, ...]:
    """Names of layers that had better stay float: below `min_sqnr_db` at some exit."""
    return tuple(one.layer for one in layers if one.worst_sqnr_db < min_sqnr_db)


def keep_float_option(layers: Mapping[Modality, Sequence[str]]) -> str:
    """What to give to `edgepkd quantize` so that `layers` of each network stay float."""
    names = [f"{modality}:{name}" for modality, own in layers.items() for name in own]
    return command("--set", f"quantizer.keep_float={json.dumps(names)}")


def _stacked(logits: Sequence[Tensor]) -> Tensor:
    """[4, frames, classes], float64."""
    return torch.stack(list(logits)).double().cpu()


def _compare(layer: str, reference: Tensor, quantized: Tensor) -> LayerSensitivity:
    """Of logits [4, frames, classes]."""
    return LayerSensitivity(
        layer, sqnr_db=tuple(sqnr_db(*pair) for pair in zip(reference, quantized, strict=True)),
        kl_last=divergence(reference[-1], quantized[-1]))


def _or_infinity(decibels: float | None) -> float:
    return math.inf if decibels is None else decibels
