"""Segments as ONNX: one small static graph each, BatchNorm folded, heads pool-first.

Inputs and outputs are named as in a bundle (design.md 5): `x` in; `features` and `logits` out, the
last segment only `logits`. Only the operators of `ALLOWED_OPS` occur: no shape arithmetic, no
BatchNormalization, no adaptive pooling. With FP16 weights every Conv and Gemm weight is stored as
FP16 and cast to FP32 where it is used; runtimes fold that cast when they load the graph.
"""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from edgepkd._optional import require
from edgepkd.config import Modality
from edgepkd.errors import ModelError
from edgepkd.files import write_atomically
from edgepkd.models.fold import fold_batch_norm
from edgepkd.models.heads import ClassifierHead, ICHead, PoolFirstHead, convert_head
from edgepkd.models.segmented import Segment, SegmentedNetwork

if TYPE_CHECKING:
    import onnx

WeightFormat = Literal["fp32", "fp16"]
OPSET = 17
ALLOWED_OPS = frozenset({
    "Add", "Cast", "Clip", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool",
    "Mul", "Relu",
})
"""All operators that an exported segment may hold."""

INPUT, FEATURES, LOGITS = "x", "features", "logits"


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

    Channels, height and width are fixed; N is free, or fixed to `batch`. The segment stays as
    it was.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: a weight is not finite or does not fit FP16, or an operator slipped in that
            is not allowed.
    """
    require("onnx", purpose="Export to ONNX")
    model = _load_onnx(_trace(segment, example_shape, batch=batch))
    _fold_constants(model)
    _merge_pads(model)
    _prune(model)
    if weights == "fp16":
        _store_weights_as_fp16(model)
    model = _infer_shapes(model)
    _check(model)
    content = bytes(model.SerializeToString())
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
        MissingExtraError, ModelError: as `export_segment`.
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
    trunk = copy.deepcopy(segment.trunk).to("meta").eval()
    with torch.no_grad():
        _, channels, height, width = trunk(torch.empty(1, *shape, device="meta")).shape
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
        # quantised graphs go through (design.md 4.6).
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
    return Segment(segment.trunk, convert_head(segment.head, PoolFirstHead))


def _load_onnx(content: bytes) -> onnx.ModelProto:
    from onnx import load_from_string

    model: onnx.ModelProto = load_from_string(content)
    return model


def _initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _fold_constants(model: onnx.ModelProto) -> None:
    """Replace every node whose inputs are all constant by its value; the exporter leaves some."""
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    values = {name: numpy_helper.to_array(t) for name, t in _initializers(model).items()}
    for node in list(graph.node):
        if all(name in values or not name for name in node.input):
            feeds = {name: values[name] for name in node.input if name}
            outputs = ReferenceEvaluator(node).run(None, feeds)
            for name, value in zip(node.output, outputs, strict=True):
                values[name] = value
                graph.initializer.append(numpy_helper.from_array(value, name))
            graph.node.remove(node)


def _merge_pads(model: onnx.ModelProto) -> None:
    """Move each zero Pad into the Conv after it, which can pad unevenly in ONNX, not in torch."""
    from onnx import numpy_helper

    initializers = _initializers(model)
    made_by = {output: node for node in model.graph.node for output in node.output}
    for conv in [node for node in model.graph.node if node.op_type == "Conv"]:
        pad = made_by.get(conv.input[0])
        if pad is None or pad.op_type != "Pad":
            continue
        # The amounts: begin of n, c, h, w, then end of n, c, h, w.
        amounts = [int(v) for v in numpy_helper.to_array(initializers[pad.input[1]])]
        attribute = next(a for a in conv.attribute if a.name == "pads")
        assert not any(attribute.ints)
        del attribute.ints[:]
        attribute.ints.extend([*amounts[2:4], *amounts[6:8]])
        conv.input[0] = pad.input[0]
        model.graph.node.remove(pad)


def _prune(model: onnx.ModelProto) -> None:
    """Drop Identity nodes and constants that nothing uses."""
    graph = model.graph
    for node in [n for n in graph.node if n.op_type == "Identity"]:
        for user in graph.node:
            for index, name in enumerate(user.input):
                if name == node.output[0]:
                    user.input[index] = node.input[0]
        if node.output[0] not in {output.name for output in graph.output}:
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)


def _store_weights_as_fp16(model: onnx.ModelProto) -> None:
    """Store Conv and Gemm weights as FP16 with a Cast; biases and pooling matrices stay FP32."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    initializers = _initializers(model)
    consumers = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
    casts = []
    for node in consumers:
        name = node.input[1]
        array = numpy_helper.to_array(initializers[name])
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise ModelError(
                f"Weight {name} reaches {float(np.abs(array).max()):.3g} after folding BatchNorm; "
                "allowed for FP16: finite and below 65504.",
                hint="Export with FP32 weights.",
            )
        initializers[name].CopyFrom(numpy_helper.from_array(half, name))
        node.input[1] = f"{name}.fp32"
        casts.append(helper.make_node("Cast", [name], [f"{name}.fp32"], to=TensorProto.FLOAT))
    for index, node in enumerate(casts):
        model.graph.node.insert(index, node)


def _infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Static shapes everywhere; the exporter gives up on them behind an uneven Pad."""
    from onnx import shape_inference

    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred: onnx.ModelProto = shape_inference.infer_shapes(model, strict_mode=True)
    del inferred.graph.value_info[:]  # any reader can infer these again
    return inferred


def _check(model: onnx.ModelProto) -> None:
    import numpy as np
    from onnx import checker, numpy_helper

    strangers = sorted({node.op_type for node in model.graph.node} - ALLOWED_OPS)
    if strangers:
        raise ModelError(
            f"The exported segment holds {', '.join(strangers)}; allowed: "
            f"{', '.join(sorted(ALLOWED_OPS))}."
        )
    for tensor in model.graph.initializer:
        if not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise ModelError(f"Weight {tensor.name} is not finite; training may have diverged.")
    checker.check_model(model)
