"""The ONNX graph of a segment, and its forms for engines; no torch.

A segment is stored once. Float: FP32 throughout, or Conv and Gemm weights as FP16 with a Cast.
INT8: weights as 8-bit initialisers behind a DequantizeLinear (one scale a channel), activations
through QuantizeLinear and DequantizeLinear (one scale a tensor), all zero points 0.
`with_precision` makes from it what a strongly typed engine is built from.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgepkd.bundle.engines import Precision
from edgepkd.errors import ModelError

if TYPE_CHECKING:
    import onnx


INPUT, FEATURES, LOGITS = "x", "features", "logits"
"""Tensors at the borders of a segment; the last one has no features."""
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
SMALLEST_HALF = 2.0**-14
"""Least normal number of FP16: a smaller scale would lose its digits, or be 0."""

Array = NDArray[Any]


def load(content: bytes) -> onnx.ModelProto:
    """The graph in `content`.

    Raises:
        ModelError: it is no ONNX.
    """
    from google.protobuf.message import DecodeError
    from onnx import load_from_string

    try:
        model: onnx.ModelProto = load_from_string(content)
    except DecodeError as error:
        raise ModelError(f"the segment is no ONNX file: {error}.",
                         hint="Copy or build the bundle again.") from error
    return model


def save(model: onnx.ModelProto) -> bytes:
    """Bytes of a graph."""
    return bytes(model.SerializeToString())


def operators(content: bytes) -> Counter[str]:
    """How often each operator occurs."""
    return Counter(node.op_type for node in load(content).graph.node)


def is_quantized(content: bytes) -> bool:
    """Whether the segment holds quantised tensors."""
    return QUANTIZE in operators(content)


# ---- forms for engines


def with_precision(content: bytes, precision: Precision) -> bytes:
    """The segment as an engine of `precision` computes it, every type explicit; x, features and
    logits stay FP32.

    fp32: what is quantised is dequantised. fp16: the same in FP16. int8: quantised, and what stays
    float in FP16. Weights of a quantised segment are the 8-bit ones in all three.

    Raises:
        ModelError: int8 is asked of a float segment, or a weight does not fit FP16.
    """
    model = load(content)
    if precision == "int8":
        if not any(node.op_type == QUANTIZE for node in model.graph.node):
            raise ModelError("the segment is float; int8 needs a quantised one.",
                             hint="Quantise the run first: edgepkd quantize RUN")
    else:
        _strip_quantization(model)
    _widen_stored_half(model)
    if precision != "fp32":
        _to_half(model)
    return save(infer_shapes(model))


def _strip_quantization(model: onnx.ModelProto) -> None:
    """Every DequantizeLinear gives way to the float tensor it stands for."""
    graph, values = model.graph, values_of(model)
    makers = made_by(graph)
    for node in [n for n in graph.node if n.op_type == DEQUANTIZE]:
        source = makers.get(node.input[0])
        if source is not None and source.op_type == QUANTIZE:
            replace_uses(graph, node.output[0], source.input[0])
        else:
            append_constant(graph, node.output[0], evaluate(node, values)[0])
        graph.node.remove(node)
    for node in [n for n in graph.node if n.op_type == QUANTIZE]:
        graph.node.remove(node)
    remove_unused(model)


def _widen_stored_half(model: onnx.ModelProto) -> None:
    """Weights stored as FP16 become FP32 again, and their Cast goes."""
    graph, values = model.graph, values_of(model)
    for node in [n for n in graph.node if n.op_type == "Cast" and n.input[0] in values]:
        append_constant(graph, node.output[0], evaluate(node, values)[0])
        graph.node.remove(node)
    remove_unused(model)


def _to_half(model: onnx.ModelProto) -> None:
    """All float tensors as FP16 but x, features and logits, which get a Cast."""
    from onnx import TensorProto, helper, numpy_helper

    _raise_small_scales(model)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            half = as_half(numpy_helper.to_array(tensor), tensor.name)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in graph.input:
        inner = f"{value.name}.fp16"
        replace_uses(graph, value.name, inner)
        graph.node.insert(0, helper.make_node("Cast", [value.name], [inner], f"{value.name}_cast",
                                              to=TensorProto.FLOAT16))
    for value in graph.output:
        inner = f"{value.name}.fp16"
        for node in graph.node:
            _rename(node.output, value.name, inner)
        replace_uses(graph, value.name, inner)
        graph.node.append(helper.make_node("Cast", [inner], [value.name], f"{value.name}_cast",
                                           to=TensorProto.FLOAT))


def as_half(array: Array, name: str) -> Array:
    """The weights `name` as FP16.

    Raises:
        ModelError: one of them does not fit.
    """
    with np.errstate(over="ignore"):
        half: Array = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise ModelError(
            f"Weight {name} reaches {float(np.abs(array).max()):.3g} after folding BatchNorm; "
            "allowed for FP16: finite and below 65504.", hint="Use FP32 for this segment.")
    return half


def _raise_small_scales(model: onnx.ModelProto) -> None:
    """Scales that FP16 cannot hold are raised, and the 8-bit weights behind them made anew."""
    from onnx import numpy_helper

    graph, values = model.graph, values_of(model)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in (QUANTIZE, DEQUANTIZE):
            continue
        scale = values[node.input[1]]
        raised = np.maximum(scale, np.float32(SMALLEST_HALF))
        if (raised == scale).all():
            continue
        if node.op_type == DEQUANTIZE and node.input[0] in values:
            weights = values[node.input[0]]
            shape = [-1] + [1] * (weights.ndim - 1) if scale.ndim else []
            shrunk = np.rint(weights * (scale / raised).reshape(shape)).astype(np.int8)
            tensors[node.input[0]].CopyFrom(numpy_helper.from_array(shrunk, node.input[0]))
        tensors[node.input[1]].CopyFrom(numpy_helper.from_array(raised, node.input[1]))


# ---- passes over a graph


def remove_unused(model: onnx.ModelProto) -> None:
    """Drop Identity nodes, and constants that nothing uses."""
    graph = model.graph
    for node in [n for n in graph.node if n.op_type == "Identity"]:
        replace_uses(graph, node.output[0], node.input[0])
        if node.output[0] not in {output.name for output in graph.output}:
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Static shapes everywhere; the exporter gives up on them behind an uneven Pad."""
    from onnx import shape_inference

    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred: onnx.ModelProto = shape_inference.infer_shapes(model, strict_mode=True)
    del inferred.graph.value_info[:]  # any reader can infer these again
    return inferred


def values_of(model: onnx.ModelProto) -> dict[str, Array]:
    """The constants of a graph by name."""
    from onnx import numpy_helper

    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def made_by(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Each tensor that is computed -> the node that makes it."""
    return {output: node for node in graph.node for output in node.output}


def evaluate(node: onnx.NodeProto, values: dict[str, Array]) -> list[Array]:
    """The outputs of a node whose inputs are all constant."""
    from onnx.reference import ReferenceEvaluator

    feeds = {name: values[name] for name in node.input if name}
    return list(ReferenceEvaluator(node).run(None, feeds))


def append_constant(graph: onnx.GraphProto, name: str, value: Array) -> None:
    """Add a constant under a name that nothing has."""
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def replace_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let all nodes that take `old` take `new`."""
    for node in graph.node:
        _rename(node.input, old, new)


def _rename(names: Any, old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new
