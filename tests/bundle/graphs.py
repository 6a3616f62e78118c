"""A sound segment, small ways to change it, and the check that it must pass."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgepkd.bundle.segment import check_segment
from tests.engines.segments import convolution

WIDTH, FRAMES = 8, 3


def segment(*, exit: int = 1, quantized: bool = False) -> onnx.ModelProto:
    """x [n, 2, 32, 32] -> features [n, 8, 16, 16] and logits [n, 2]."""
    return onnx.load_from_string(convolution(exit, quantized=quantized, width=WIDTH))


def check(model: onnx.ModelProto | bytes, *, exit: int = 1, frames: int = FRAMES) -> None:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    side = 32 >> (exit - 1)
    check_segment(
        content, where="mv.onnx", frames=frames, num_labels=2,
        input_shape=(2 if exit == 1 else WIDTH, side, side),
        features_shape=(WIDTH, side // 2, side // 2) if exit < 4 else None)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def attribute(model: onnx.ModelProto, key: str, value: object, *, of: str = "stem_conv") -> None:
    """Set an attribute of a node."""
    found = node(model, of)
    kept = [a for a in found.attribute if a.name != key]
    del found.attribute[:]
    found.attribute.extend([*kept, helper.make_attribute(key, value)])


def constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    """Set an initialiser, or add it."""
    made = numpy_helper.from_array(value, name)
    for old in model.graph.initializer:
        if old.name == name:
            old.CopyFrom(made)
            return
    model.graph.initializer.append(made)


def first(model: onnx.ModelProto, operator: str, inputs: list[str], **attributes: object) -> None:
    """Put a node in front."""
    model.graph.node.insert(0, helper.make_node(operator, inputs, ["new"], "new", **attributes))
