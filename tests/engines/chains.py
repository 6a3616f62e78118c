"""How far a chain of exported segments is from the network that it came from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgepkd.config import Modality
from edgepkd.deploy.parity import Backend, SegmentChain
from edgepkd.models.segmented import SegmentedNetwork


@torch.no_grad()
def logits_difference(
    network: SegmentedNetwork, x: Tensor, *, exported: Mapping[tuple[Modality, int], bytes],
    backend: Backend = "openvino",
) -> tuple[float, ...]:
    """Largest absolute difference of logits per exit for frames [N, C, H, W]."""
    answers = SegmentChain(exported, network.spec.modality, backend=backend)(x.numpy())
    return tuple(float(abs(mine - logits.numpy()).max())
                 for mine, logits in zip(answers, network.eval()(x), strict=True))
