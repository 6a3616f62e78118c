"""How far a chain of exported segments is from the network that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from edgepkd.config import NUM_EXITS, Modality
from edgepkd.deploy.parity import SegmentChain
from edgepkd.models.segmented import SegmentedNetwork

Exported = Mapping[tuple[Modality, int], bytes]


@torch.no_grad()
def logits_difference(
    network: SegmentedNetwork, x: Tensor, *, exported: Exported,
    backend: Literal["openvino", "reference"] = "openvino",
) -> tuple[float, ...]:
    """Largest absolute difference of logits per exit for frames [N, C, H, W].

    'reference' is onnx's slow, obvious evaluator.
    """
    modality = network.spec.modality
    answers = (SegmentChain(exported, modality, frames=len(x))(x.numpy())
               if backend == "openvino" else reference_chain(exported, modality, x.numpy()))
    return tuple(float(abs(mine - logits.numpy()).max())
                 for mine, logits in zip(answers, network.eval()(x), strict=True))


def reference_chain(exported: Exported, modality: Modality, x: np.ndarray) -> list[np.ndarray]:
    """Logits of the four exits."""
    answers = []
    for k in range(1, NUM_EXITS + 1):
        evaluator = ReferenceEvaluator(exported[modality, k])
        made = dict(zip(evaluator.output_names, evaluator.run(None, {"x": x}), strict=True))
        answers.append(made["logits"])
        x = made.get("features", x)
    return answers
