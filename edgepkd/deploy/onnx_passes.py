"""Passes that make of the exporter's ONNX what a segment may hold: plain operators and constants.

What is left then is walked once more when a bundle is read (`bundle.segment`), which also takes
what others may have written.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

from edgepkd.engines.graph import (
    DEQUANTIZE,
    QUANTIZE,
    append_constant,
    as_half,
    evaluate,
    infer_shapes,
    made_by,
    remove_unused,
    replace_uses,
    values_of,
)
from edgepkd.errors import ModelError

WRITTEN_OPERATORS = frozenset({
    "Add", "Cast", "Clip", "Conv", DEQUANTIZE, "Flatten", "Gemm", "GlobalAveragePool", "MatMul",
    "MaxPool", "Mul", QUANTIZE, "Relu",
})
"""All operators that a segment of edgepkd's own holds."""


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph as the exporter leaves it -> one of `WRITTEN_OPERATORS` alone, constants folded.

    Raises:
        ModelError: another operator is left, or a weight is not finite.
    """
    fold_constants(model)
    drop_casts_to_own_type(model)
    merge_pads(model)
    merge_equal(model)
    remove_unused(model)
    inferred = infer_shapes(model)
    check(inferred)
    return inferred


def fold_constants(model: onnx.ModelProto) -> None:
    """Replace every node whose inputs are all constant by its value; the exporter leaves some.

    Weights become 8-bit initialisers so; their DequantizeLinear stays.
    """
    graph, values = model.graph, values_of(model)
    for node in list(graph.node):
        if node.op_type != DEQUANTIZE and all(n in values or not n for n in node.input):
            for name, value in zip(node.output, evaluate(node, values), strict=True):
                values[name] = value
                append_constant(graph, name, value)
            graph.node.remove(node)


def drop_casts_to_own_type(model: onnx.ModelProto) -> None:
    """The exporter casts FP32 activations to FP32 where a quantiser stands."""
    graph, values = model.graph, values_of(model)
    for node in [n for n in graph.node if n.op_type == "Cast" and n.input[0] not in values]:
        if node.attribute[0].i == TensorProto.FLOAT:  # all activations are FP32 here
            replace_uses(graph, node.output[0], node.input[0])
            graph.node.remove(node)


def merge_pads(model: onnx.ModelProto) -> None:
    """Move each zero Pad into the Conv after it, which can pad unevenly in ONNX, not in torch.

    A quantiser between them lets zeros pass: its zero point is 0.
    """
    graph, values = model.graph, values_of(model)
    makers = made_by(graph)
    for conv in [node for node in graph.node if node.op_type == "Conv"]:
        first = conv
        while (above := makers.get(first.input[0])) and above.op_type in (QUANTIZE, DEQUANTIZE):
            first = above
        pad = makers.get(first.input[0])
        if pad is None or pad.op_type != "Pad":
            continue
        # The amounts: begin of n, c, h, w, then end of n, c, h, w.
        amounts = [int(v) for v in values[pad.input[1]]]
        attribute = next(a for a in conv.attribute if a.name == "pads")
        assert not any(attribute.ints)
        del attribute.ints[:]
        attribute.ints.extend([*amounts[2:4], *amounts[6:8]])
        replace_uses(graph, pad.output[0], pad.input[0])
        graph.node.remove(pad)


def merge_equal(model: onnx.ModelProto) -> None:
    """One node for all that compute the same: a tensor with several users is quantised once."""
    graph = model.graph
    _merge_equal_constants(graph)
    seen: dict[tuple[object, ...], str] = {}
    for node in list(graph.node):
        if len(node.output) != 1:
            continue
        attributes = tuple(a.SerializeToString() for a in node.attribute)
        key = (node.op_type, *node.input, *attributes)
        first = seen.setdefault(key, node.output[0])
        if first != node.output[0] and node.output[0] not in {o.name for o in graph.output}:
            replace_uses(graph, node.output[0], first)
            graph.node.remove(node)


def _merge_equal_constants(graph: onnx.GraphProto) -> None:
    seen: dict[tuple[object, ...], str] = {}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        first = seen.setdefault((array.dtype, array.shape, array.tobytes()), tensor.name)
        if first != tensor.name:
            replace_uses(graph, tensor.name, first)


def store_weights_as_half(model: onnx.ModelProto) -> None:
    """Store float Conv and Gemm weights as FP16 with a Cast; all else stays.

    Raises:
        ModelError: a weight does not fit FP16.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    names = dict.fromkeys(n.input[1] for n in graph.node
                          if n.op_type in ("Conv", "Gemm") and n.input[1] in tensors)
    for index, name in enumerate(names):
        half = as_half(numpy_helper.to_array(tensors[name]), name)
        tensors[name].CopyFrom(numpy_helper.from_array(half, name))
        replace_uses(graph, name, f"{name}.fp32")
        graph.node.insert(index, helper.make_node("Cast", [name], [f"{name}.fp32"],
                                                  to=TensorProto.FLOAT))


def check(model: onnx.ModelProto) -> None:
    """Refuse operators that are not allowed, and weights that are not finite.

    Raises:
        ModelError: names them.
    """
    unknown = sorted({node.op_type for node in model.graph.node} - WRITTEN_OPERATORS)
    if unknown:
        raise ModelError(
            f"The exported segment holds {', '.join(unknown)}; allowed: "
            f"{', '.join(sorted(WRITTEN_OPERATORS))}.")
    for tensor in model.graph.initializer:
        if not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise ModelError(f"Weight {tensor.name} is not finite; training may have diverged.")
    checker.check_model(model)
