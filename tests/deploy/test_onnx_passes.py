"""Passes over the exporter's ONNX: what goes, what is merged, and that answers stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgepkd.deploy import onnx_passes
from edgepkd.errors import ModelError

X = np.random.default_rng(0).normal(size=(1, 1, 4, 4)).astype(np.float32)


def model(*nodes: onnx.NodeProto, output: str = "y", **constants: np.ndarray) -> onnx.ModelProto:
    """x [1, 1, 4, 4] -> y."""
    graph = helper.make_graph(
        list(nodes), "one", [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)


def kinds(graph: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in graph.graph.node]


def answer(graph: onnx.ModelProto) -> np.ndarray:
    return np.asarray(ReferenceEvaluator(graph).run(None, {"x": X})[0])


def one(value: float) -> np.ndarray:
    return np.array([value], np.float32)


def test_what_is_constant_is_computed_now_but_weights_stay_8_bits() -> None:
    graph = model(helper.make_node("Mul", ["a", "b"], ["ab"]),
                  helper.make_node("DequantizeLinear", ["w8", "s"], ["w"]),
                  helper.make_node("Add", ["x", "ab"], ["sum"]),
                  helper.make_node("Mul", ["sum", "w"], ["y"]),
                  a=one(2), b=one(3), s=np.float32(0.5), w8=np.array([4], np.int8))
    before = answer(graph)
    onnx_passes.fold_constants(graph)
    assert kinds(graph) == ["DequantizeLinear", "Add", "Mul"]
    assert np.array_equal(answer(graph), before)
    assert np.allclose(before, (X + 6) * 2)


def test_a_cast_to_its_own_type_goes_and_one_of_a_constant_stays() -> None:
    graph = model(helper.make_node("Cast", ["x"], ["x2"], to=TensorProto.FLOAT),
                  helper.make_node("Cast", ["h"], ["h32"], to=TensorProto.FLOAT),
                  helper.make_node("Mul", ["x2", "h32"], ["y"]), h=np.array([2], np.float16))
    onnx_passes.drop_casts_to_own_type(graph)
    assert kinds(graph) == ["Cast", "Mul"]
    assert np.allclose(answer(graph), 2 * X)


def test_an_uneven_pad_moves_into_the_convolution_after_it() -> None:
    graph = model(
        helper.make_node("Pad", ["x", "amounts"], ["padded"]),
        helper.make_node("Conv", ["padded", "w"], ["y"], pads=[0, 0, 0, 0], kernel_shape=[3, 3]),
        amounts=np.array([0, 0, 0, 1, 0, 0, 1, 2], np.int64), w=np.ones((1, 1, 3, 3), np.float32))
    before = answer(graph)
    onnx_passes.merge_pads(graph)
    (conv,) = graph.graph.node
    assert {a.name: list(a.ints) for a in conv.attribute}["pads"] == [0, 1, 1, 2]
    assert np.allclose(answer(graph), before)


def test_what_computes_the_same_is_computed_once() -> None:
    graph = model(helper.make_node("Mul", ["x", "a"], ["one"]),
                  helper.make_node("Mul", ["x", "b"], ["other"]),
                  helper.make_node("Mul", ["x", "c"], ["third"]),
                  helper.make_node("Add", ["one", "other"], ["sum"]),
                  helper.make_node("Add", ["sum", "third"], ["y"]), a=one(2), b=one(2), c=one(3))
    onnx_passes.merge_equal(graph)
    assert kinds(graph) == ["Mul", "Mul", "Add", "Add"]
    assert np.allclose(answer(graph), 7 * X)


def test_half_weights_come_back_by_a_cast_and_the_rest_stays() -> None:
    graph = model(helper.make_node("Conv", ["x", "w", "bias"], ["y"], kernel_shape=[1, 1]),
                  w=np.full((1, 1, 1, 1), 0.1, np.float32), bias=one(0.1))
    onnx_passes.store_weights_as_half(graph)
    assert kinds(graph) == ["Cast", "Conv"]
    assert {t.name: t.data_type for t in graph.graph.initializer} == {
        "w": TensorProto.FLOAT16, "bias": TensorProto.FLOAT}
    assert np.allclose(answer(graph), X * np.float32(np.float16(0.1)) + np.float32(0.1))


def test_operators_and_weights_that_may_not_be_are_named() -> None:
    with pytest.raises(ModelError, match="segment holds Sigmoid; allowed: Add"):
        onnx_passes.clean(model(helper.make_node("Sigmoid", ["x"], ["y"])))
    with pytest.raises(ModelError, match="Weight a is not finite"):
        onnx_passes.clean(model(helper.make_node("Mul", ["x", "a"], ["y"]), a=one(np.nan)))
