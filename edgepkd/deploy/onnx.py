"""Segments as ONNX: one small graph each, BatchNorm folded, heads pool-first.

Inputs and outputs are named as in a bundle: `x` in; `features` and `logits` out, the last segment
only `logits`. No shape arithmetic, no BatchNormalization, no adaptive pooling is left
(`onnx_passes.WRITTEN_OPERATORS`). A segment that ModelOpt's quantisers are in (`edgepkd.quantize`)
becomes an INT8 graph, any other a float one.
"""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from edgepkd.config import Modality
from edgepkd.deploy.onnx_passes import clean, store_weights_as_half
from edgepkd.engines import graph
from edgepkd.engines.graph import FEATURES, INPUT, LOGITS
from edgepkd.files import write_atomically
from edgepkd.models.fold import fold_batch_norm
from edgepkd.models.heads import ClassifierHead, ICHead, as_pool_first
from edgepkd.models.segmented import Segment, SegmentedNetwork

WeightFormat = Literal["fp32", "fp16"]
OPSET = 19  # the first whose QuantizeLinear takes FP16; TensorRT 10.3 reads up to 20


class _LogitsOnly(nn.Module):
    """The last segment: nothing needs its features."""

    def __init__(self, segment: Segment) -> None:
        super().__init__()
        self.segment = segment

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.segment(x)[1]
        return logits


def export_segment(
    segment: Segment,
    *,
    example_shape: tuple[int, int, int],
    path: Path | None = None,
    weights: WeightFormat = "fp32",
    batch: int | None = None,
) -> bytes:
    """ONNX of one segment in eval mode, for inputs [N, *example_shape]; also written to `path`.

    Channels, height and width are fixed; N is free, or fixed to `batch`. `weights` is how float
    weights are stored; 8-bit ones stay 8-bit. The segment stays as it was.

    Raises:
        ModelError: a weight is not finite or does not fit FP16, or an operator slipped in that
            is not allowed.
    """
    model = clean(graph.load(_trace(segment, example_shape, batch=batch)))
    if weights == "fp16":
        store_weights_as_half(model)
    content = graph.save(model)
    if path is not None:
        write_atomically(path, content)
    return content


def export_network(
    network: SegmentedNetwork,
    *,
    crop_px: int = 224,
    weights: WeightFormat = "fp32",
    batch: int | None = None,
) -> dict[tuple[Modality, int], bytes]:
    """ONNX of every segment, keyed by (modality, exit 1..4), for frames of crop_px x crop_px.

    Raises:
        ModelError: as `export_segment`.
    """
    exported: dict[tuple[Modality, int], bytes] = {}
    shape = (network.spec.num_channels, crop_px, crop_px)
    for index, segment in enumerate(network):
        exported[network.spec.modality, index + 1] = export_segment(
            segment, example_shape=shape, weights=weights, batch=batch
        )
        shape = _features_shape(segment, shape)
    return exported


def _features_shape(segment: Segment, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    trunk = copy.deepcopy(segment.trunk).eval()
    with torch.no_grad():
        _, channels, height, width = trunk(torch.zeros(1, *shape)).shape
    return channels, height, width


def _trace(segment: Segment, shape: tuple[int, int, int], *, batch: int | None) -> bytes:
    """The exporter's own ONNX of a deployable copy of `segment`."""
    deployable = fold_batch_norm(_pool_first(segment)).float().cpu().requires_grad_(False)
    last = isinstance(deployable.head, ClassifierHead)
    outputs = [LOGITS] if last else [FEATURES, LOGITS]
    model = _LogitsOnly(deployable).eval() if last else deployable
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Sizes are constants here on purpose, and the TorchScript exporter is the one that
        # ModelOpt's quantised graphs go through.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.zeros(batch or 2, *shape),), cast(Any, buffer), dynamo=False,
            opset_version=OPSET, input_names=[INPUT], output_names=outputs,
            dynamic_axes=None if batch else {name: {0: "n"} for name in (INPUT, *outputs)},
        )
    return buffer.getvalue()


def _pool_first(segment: Segment) -> Segment:
    if not isinstance(segment.head, ICHead):
        return segment
    return Segment(segment.trunk, as_pool_first(segment.head))
