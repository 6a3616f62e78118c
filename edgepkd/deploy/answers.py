"""What the forms of a cascade answer to clips: networks in torch, exported segments on OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgepkd.config import Inputs, Modality
from edgepkd.deploy.parity import SegmentChain, Segments
from edgepkd.logits.clip_logits import ModalityLogits
from edgepkd.models.segmented import Networks
from edgepkd.training.backbone import clip_logits
from edgepkd.training.cache import ClipArrays
from edgepkd.training.views import test_view

FP32, FAKE_QUANT, DEPLOYED = "torch FP32", "torch INT8", "OpenVINO"
"""Forms of a cascade in a parity report."""


def torch_answers(
    networks: Networks, inputs: Inputs, clips: Sequence[ClipArrays]
) -> ModalityLogits:
    """Logits of the networks for the test views of `clips`: [N, 4, classes] each."""
    return {m: clip_logits(network, clips, spec=inputs[m]).double().numpy()
            for m, network in networks.items()}


def deployed_answers(
    segments: Segments, inputs: Inputs, clips: Sequence[ClipArrays]
) -> ModalityLogits:
    """Logits of the exported segments on OpenVINO: [N, 4, classes] each."""
    answers: dict[Modality, Any] = {}
    for modality in dict.fromkeys(m for m, _ in segments):
        spec = inputs[modality]
        chain = SegmentChain(segments, modality, frames=spec.num_passes)
        answers[modality] = np.stack([chain.clip_logits(test_view(clip, spec).numpy())
                                      for clip in clips])
    return answers
