"""Passes over the ONNX graph of a segment, and its forms for engines; no torch.

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
ALLOWED_OPS = frozenset({
    "Add", "Cast", "Clip", "Conv", DEQUANTIZE, "Flatten", "Gemm", "GlobalAveragePool", "MatMul",
    "MaxPool", "Mul", QUANTIZE, "Relu",
})
"""All operators that a segment may hold."""

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
    graph, values = model.graph, _values(model)
    made_by = _made_by(graph)
    for node in [n for n in graph.node if n.op_type == DEQUANTIZE]:
        source = made_by.get(node.input[0])
        if source is not None and source.op_type == QUANTIZE:
            _replace_uses(graph, node.output[0], source.input[0])
        else:
            _append_constant(graph, node.output[0], _evaluate(node, values)[0])
        graph.node.remove(node)
    for node in [n for n in graph.node if n.op_type == QUANTIZE]:
        graph.node.remove(node)
    remove_unused(model)


def _widen_stored_half(model: onnx.ModelProto) -> None:
    """Weights stored as FP16 become FP32 again, and their Cast goes."""
    graph, values = model.graph, _values(model)
    for node in [n for n in graph.node if n.op_type == "Cast" and n.input[0] in values]:
        _append_constant(graph, node.output[0], _evaluate(node, values)[0])
        graph.node.remove(node)
    remove_unused(model)


def _to_half(model: onnx.ModelProto) -> None:
    """All float tensors as FP16 but x, features and logits, which get a Cast."""
    from onnx import TensorProto, helper, numpy_helper

    _raise_small_scales(model)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            half = _half(numpy_helper.to_array(tensor), tensor.name)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in graph.input:
        inner = f"{value.name}.fp16"
        _replace_uses(graph, value.name, inner)
        graph.node.insert(0, helper.make_node("Cast", [value.name], [inner], f"{value.name}_cast",
                                              to=TensorProto.FLOAT16))
    for value in graph.output:
        inner = f"{value.name}.fp16"
        for node in graph.node:
            _rename(node.output, value.name, inner)
        _replace_uses(graph, value.name, inner)
        graph.node.append(helper.make_node("Cast", [inner], [value.name], f"{value.name}_cast",
                                           to=TensorProto.FLOAT))


def _half(array: Array, name: str) -> Array:
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

    graph, values = model.graph, _values(model)
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


# ---- passes of the export


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph as the exporter leaves it -> one that holds only `ALLOWED_OPS`, constants folded.

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
    graph, values = model.graph, _values(model)
    for node in list(graph.node):
        if node.op_type != DEQUANTIZE and all(n in values or not n for n in node.input):
            for name, value in zip(node.output, _evaluate(node, values), strict=True):
                values[name] = value
                _append_constant(graph, name, value)
            graph.node.remove(node)


def drop_casts_to_own_type(model: onnx.ModelProto) -> None:
    """The exporter casts FP32 activations to FP32 where a quantiser stands."""
    from onnx import TensorProto

    graph, values = model.graph, _values(model)
    for node in [n for n in graph.node if n.op_type == "Cast" and n.input[0] not in values]:
        if node.attribute[0].i == TensorProto.FLOAT:  # all activations are FP32 here
            _replace_uses(graph, node.output[0], node.input[0])
            graph.node.remove(node)


def merge_pads(model: onnx.ModelProto) -> None:
    """Move each zero Pad into the Conv after it, which can pad unevenly in ONNX, not in torch.

    A quantiser between them lets zeros pass: its zero point is 0.
    """
    graph, values = model.graph, _values(model)
    made_by = _made_by(graph)
    for conv in [node for node in graph.node if node.op_type == "Conv"]:
        first = conv
        while (above := made_by.get(first.input[0])) and above.op_type in (QUANTIZE, DEQUANTIZE):
            first = above
        pad = made_by.get(first.input[0])
        if pad is None or pad.op_type != "Pad":
            continue
        # The amounts: begin of n, c, h, w, then end of n, c, h, w.
        amounts = [int(v) for v in values[pad.input[1]]]
        attribute = next(a for a in conv.attribute if a.name == "pads")
        assert not any(attribute.ints)
        del attribute.ints[:]
        attribute.ints.extend([*amounts[2:4], *amounts[6:8]])
        _replace_uses(graph, pad.output[0], pad.input[0])
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
            _replace_uses(graph, node.output[0], first)
            graph.node.remove(node)


def _merge_equal_constants(graph: onnx.GraphProto) -> None:
    from onnx import numpy_helper

    seen: dict[tuple[object, ...], str] = {}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        first = seen.setdefault((array.dtype, array.shape, array.tobytes()), tensor.name)
        if first != tensor.name:
            _replace_uses(graph, tensor.name, first)


def remove_unused(model: onnx.ModelProto) -> None:
    """Drop Identity nodes, and constants that nothing uses."""
    graph = model.graph
    for node in [n for n in graph.node if n.op_type == "Identity"]:
        _replace_uses(graph, node.output[0], node.input[0])
        if node.output[0] not in {output.name for output in graph.output}:
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)


def store_weights_as_half(model: onnx.ModelProto) -> None:
    """Store float Conv and Gemm weights as FP16 with a Cast; all else stays.

    Raises:
        ModelError: a weight does not fit FP16.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    names = dict.fromkeys(n.input[1] for n in graph.node
                          if n.op_type in ("Conv", "Gemm") and n.input[1] in tensors)
    for index, name in enumerate(names):
        half = _half(numpy_helper.to_array(tensors[name]), name)
        tensors[name].CopyFrom(numpy_helper.from_array(half, name))
        _replace_uses(graph, name, f"{name}.fp32")
        graph.node.insert(index, helper.make_node("Cast", [name], [f"{name}.fp32"],
                                                  to=TensorProto.FLOAT))


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Static shapes everywhere; the exporter gives up on them behind an uneven Pad."""
    from onnx import shape_inference

    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred: onnx.ModelProto = shape_inference.infer_shapes(model, strict_mode=True)
    del inferred.graph.value_info[:]  # any reader can infer these again
    return inferred


def check(model: onnx.ModelProto) -> None:
    """Refuse operators that are not allowed, and weights that are not finite.

    Raises:
        ModelError: names them.
    """
    from onnx import checker, numpy_helper

    unknown = sorted({node.op_type for node in model.graph.node} - ALLOWED_OPS)
    if unknown:
        raise ModelError(
            f"The exported segment holds {', '.join(unknown)}; allowed: "
            f"{', '.join(sorted(ALLOWED_OPS))}.")
    for tensor in model.graph.initializer:
        if not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise ModelError(f"Weight {tensor.name} is not finite; training may have diverged.")
    checker.check_model(model)


# ---- small parts


def _values(model: onnx.ModelProto) -> dict[str, Array]:
    from onnx import numpy_helper

    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def _made_by(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in graph.node for output in node.output}


def _evaluate(node: onnx.NodeProto, values: dict[str, Array]) -> list[Array]:
    from onnx.reference import ReferenceEvaluator

    feeds = {name: values[name] for name in node.input if name}
    return list(ReferenceEvaluator(node).run(None, feeds))


def _append_constant(graph: onnx.GraphProto, name: str, value: Array) -> None:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def _replace_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        _rename(node.input, old, new)


def _rename(names: Any, old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new
