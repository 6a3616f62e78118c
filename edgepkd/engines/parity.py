"""Does a chain of exported segments answer as the network it came from?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from edgepkd._optional import require
from edgepkd.config import Modality
from edgepkd.engines.onnx import FEATURES, INPUT, LOGITS
from edgepkd.models.segmented import SegmentedNetwork

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]

Backend = Literal["openvino", "reference"]


def logits_difference(
    network: SegmentedNetwork,
    x: Tensor,
    *,
    exported: Mapping[tuple[Modality, int], bytes],
    backend: Backend = "openvino",
) -> tuple[float, ...]:
    """Largest absolute difference of logits per exit, torch against the exported chain.

    `x` is [N, C, H, W] of the size exported for. Each exported segment gets the features of the
    exported one before it, as on a device. 'reference' is onnx's slow, obvious evaluator.

    Raises:
        MissingExtraError: onnx is not installed ('reference' only).
    """
    was_training = network.training
    with torch.no_grad():
        expected = [logits.numpy() for logits in network.eval()(x)]
    network.train(was_training)
    features: Array = x.numpy()
    differences = []
    for index, logits in enumerate(expected):
        run = _compile(exported[network.spec.modality, index + 1], backend)
        outputs = run(features)
        differences.append(float(abs(outputs[LOGITS] - logits).max()))
        features = outputs.get(FEATURES, features)
    return tuple(differences)


def _compile(content: bytes, backend: Backend) -> Callable[[Any], dict[str, Any]]:
    return _openvino(content) if backend == "openvino" else _reference(content)


def _openvino(content: bytes) -> Callable[[Any], dict[str, Any]]:
    import openvino

    core = openvino.Core()
    # The CPU plugin may otherwise choose bfloat16 where the machine has it.
    compiled = core.compile_model(
        core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    def run(x: Any) -> dict[str, Any]:
        results = compiled({INPUT: x})
        return {output.any_name: results[output] for output in compiled.outputs}

    return run


def _reference(content: bytes) -> Callable[[Any], dict[str, Any]]:
    require("onnx", purpose="The reference evaluator")
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(content)

    def run(x: Any) -> dict[str, Any]:
        return dict(zip(evaluator.output_names, evaluator.run(None, {INPUT: x}), strict=True))

    return run
