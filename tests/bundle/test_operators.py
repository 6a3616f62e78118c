"""Operators: what each makes of its inputs, what that costs, and what none takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edgepkd.bundle.onnx_graph import FLOAT, Node
from edgepkd.bundle.operators import OPERATORS, Made, Tensor
from edgepkd.deploy.onnx_passes import WRITTEN_OPERATORS
from edgepkd.errors import BundleError
from tests.bundle.graphs import WIDTH, attribute, check, constant, node, segment


def test_all_that_edgepkd_writes_is_known() -> None:
    assert OPERATORS.keys() > WRITTEN_OPERATORS


@pytest.mark.parametrize(("change", "reason"), [
    (lambda m: constant(m, "xs", np.array(0, np.float32)), "quantize_x: scale is"),
    (lambda m: constant(m, "xs", np.array(-1, np.float32)), "quantize_x: scale is"),
    (lambda m: constant(m, "xs", np.ones(3, np.float32)), "quantize_x: shape of scale is"),
    (lambda m: constant(m, "xz", np.array(0, np.int32)), "quantize_x: type of zero point is 6"),
    (lambda m: constant(m, "xz", np.zeros(2, np.int8)), "shape of zero point is"),
    (lambda m: constant(m, "wz", np.zeros(WIDTH, np.uint8)), "dequantize_w: type of input 3 is 2"),
    (lambda m: attribute(m, "axis", 4, of="dequantize_w"), "axis is 4"),
    (lambda m: attribute(m, "axis", 1, of="dequantize_w"), "shape of scale is"),
    (lambda m: attribute(m, "block_size", 2, of="dequantize_w"), "block_size is 2"),
    (lambda m: node(m, "stem_conv").input.__setitem__(1, "w8"), "type of input 2 is 3"),
    (lambda m: node(m, "dequantize_x").input.__setitem__(0, "x"), "type of input 1 is 1"),
    (lambda m: node(m, "quantize_x").input.__setitem__(1, "x"), "quantize_x: scale is"),
])
def test_wrong_quantisers_are_refused(
    change: Callable[[onnx.ModelProto], object], reason: str
) -> None:
    model = segment(quantized=True)
    change(model)
    with pytest.raises(BundleError, match=reason):
        check(model)


def made(operator: str, *shapes: tuple[int, ...], **attributes: Any) -> Made:
    """What `operator` makes of FP32 tensors of these shapes."""
    one = Node("the node", operator, tuple("abc"[:len(shapes)]), ("out",), attributes)
    return OPERATORS[operator].made(one, [Tensor(shape, FLOAT) for shape in shapes])


@pytest.mark.parametrize(("operator", "shapes", "attributes"), [
    ("Conv", [(3, 2, 33, 17), (8, 2, 3, 5)], {"strides": (2, 3), "pads": (1, 2, 0, 1)}),
    ("Conv", [(1, 4, 9, 9), (8, 2, 3, 3), (8,)], {"group": 2, "dilations": (2, 1)}),
    ("MaxPool", [(2, 3, 7, 8)], {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1}),
    ("AveragePool", [(2, 3, 7, 8)], {"kernel_shape": (2, 3), "pads": (1, 1, 1, 1)}),
    ("GlobalAveragePool", [(2, 3, 7, 8)], {}), ("Flatten", [(2, 3, 7, 8)], {"axis": 1}),
    ("Gemm", [(2, 3), (3, 5), (5,)], {}), ("Gemm", [(2, 3), (5, 3)], {"transB": 1}),
    ("MatMul", [(4, 1, 2, 3), (6, 3, 5)], {}), ("Add", [(2, 1, 5), (3, 1)], {}),
    ("Concat", [(2, 3, 4), (2, 5, 4)], {"axis": -2}), ("Relu", [(2, 3)], {}),
])
def test_shapes_are_those_that_onnx_finds(
    operator: str, shapes: list[tuple[int, ...]], attributes: dict[str, Any]
) -> None:
    inputs = [helper.make_tensor_value_info("abc"[index], FLOAT, shape)
              for index, shape in enumerate(shapes)]
    graph = helper.make_graph(
        [helper.make_node(operator, [value.name for value in inputs], ["out"], **attributes)],
        "one", inputs, [helper.make_tensor_value_info("out", FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0]
    expected = tuple(size.dim_value for size in inferred.type.tensor_type.shape.dim)
    assert made(operator, *shapes, **attributes).shape == expected


@pytest.mark.parametrize(("operator", "shapes", "attributes", "work"), [
    ("Conv", [(3, 2, 8, 8), (4, 2, 3, 3)], {}, 3 * 4 * 6 * 6 * 2 * 9),
    ("Conv", [(3, 4, 8, 8), (4, 1, 3, 3)], {"group": 4}, 3 * 4 * 6 * 6 * 9),
    ("MaxPool", [(2, 3, 8, 8)], {"kernel_shape": (2, 2), "strides": (2, 2)}, 2 * 3 * 4 * 4 * 4),
    ("Gemm", [(2, 3), (3, 5)], {}, 2 * 3 * 5), ("MatMul", [(4, 2, 3), (3, 5)], {}, 4 * 2 * 3 * 5),
    ("Relu", [(2, 3)], {}, 0)])
def test_work_is_counted_in_multiply_accumulates(
    operator: str, shapes: list[tuple[int, ...]], attributes: dict[str, Any], work: int
) -> None:
    assert made(operator, *shapes, **attributes).work == work


@pytest.mark.parametrize(("operator", "shapes", "attributes", "reason"), [
    ("Conv", [(3, 2, 8, 8), (4, 3, 3, 3)], {}, "shape of weights"),
    ("Conv", [(3, 2, 8, 8), (4, 2, 9, 9)], {}, "window is 9; allowed: up to 8"),
    ("MaxPool", [(1, 1, 8, 8)], {"kernel_shape": (2, 2), "pads": (2, 0, 0, 0)}, "pads is"),
    ("Gemm", [(2, 3), (4, 5)], {}, "fit together"), ("Add", [(2, 3), (4,)], {}, "fit together"),
    ("Concat", [(2, 3), (3, 3)], {"axis": 1}, "equal but along the axis"),
    ("Concat", [(2, 3), (2, 3)], {"axis": 2}, "axis is 2")])
def test_shapes_that_do_not_fit_are_refused(
    operator: str, shapes: list[tuple[int, ...]], attributes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BundleError, match=f"^the node: .*{reason}"):
        made(operator, *shapes, **attributes)
