"""Forms of a stored segment for engines: every type explicit, borders in FP32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgepkd.engines import graph
from edgepkd.errors import ModelError
from edgepkd.models.segmented import BackboneName
from tests.engines.int8_networks import frames, int8_segments
from tests.engines.onnx_parts import constants, nodes
from tests.models.networks import small_network


def run(content: bytes, x: np.ndarray) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(content)
    outputs = dict(zip(evaluator.output_names, evaluator.run(None, {"x": x}), strict=True))
    return np.asarray(outputs["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_forms_hold_no_quantiser_and_the_8_bit_weights(precision: str) -> None:
    for content in int8_segments().values():
        made = graph.with_precision(content, precision)  # type: ignore[arg-type]
        assert not graph.is_quantized(made)
        kind = np.dtype(np.float32 if precision == "fp32" else np.float16)
        assert {v.dtype for v in constants(made).values() if v.dtype != np.int64} == {kind}
        stored = sorted(v.size for v in constants(content).values() if v.dtype == np.int8
                        and v.ndim > 1)
        weights = [constants(made)[n.input[1]] for n in nodes(made, "Conv") + nodes(made, "Gemm")]
        assert sorted(w.size for w in weights) == stored


@pytest.mark.slow
def test_the_fp32_form_is_the_dequantised_network() -> None:
    x = frames(count=1).numpy()
    form = graph.with_precision(int8_segments()["mv", 1], "fp32")
    weights = small_network()
    with torch.no_grad():
        logits = weights.segments[0](torch.from_numpy(x))[1].numpy()
    assert abs(run(form, x) - logits).max() <= 0.05 * abs(logits).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_the_int8_form_computes_the_rest_in_fp16_behind_fp32_borders(name: BackboneName) -> None:
    content = int8_segments(name)["mv", 1]
    made = onnx.load_from_string(graph.with_precision(content, "int8"))
    onnx.checker.check_model(made, full_check=True)
    assert {v.name: v.type.tensor_type.elem_type for v in (*made.graph.input, *made.graph.output)
            } == dict.fromkeys(("x", "features", "logits"), TensorProto.FLOAT)
    kinds = {t.data_type for t in made.graph.initializer}
    assert TensorProto.FLOAT not in kinds
    assert {TensorProto.INT8, TensorProto.FLOAT16} <= kinds
    x = frames(count=1).numpy()
    gap = abs(run(made.SerializeToString(), x) - run(content, x)).max()
    assert gap <= 0.1 * abs(run(content, x)).max()


def test_weights_stored_as_fp16_are_widened_for_fp32() -> None:
    from edgepkd.deploy.onnx import export_segment

    content = export_segment(small_network().segments[0], example_shape=(2, 64, 64),
                             weights="fp16")
    made = graph.with_precision(content, "fp32")
    assert graph.operators(made)["Cast"] == 0
    x = frames(count=1).numpy()
    np.testing.assert_allclose(run(made, x), run(content, x), rtol=1e-5, atol=1e-5)


def test_int8_of_a_float_segment_is_refused() -> None:
    from edgepkd.deploy.onnx import export_segment

    content = export_segment(small_network().segments[0], example_shape=(2, 64, 64))
    with pytest.raises(ModelError, match="float"):
        graph.with_precision(content, "int8")


def tiny_conv(weight_scale: float) -> bytes:
    """x -> Q/DQ -> Conv with 8-bit weights and one output channel -> logits."""
    constant = numpy_helper.from_array
    tensors = [constant(np.full((1, 1, 1, 1), 100, np.int8), "w"),
               constant(np.array([weight_scale], np.float32), "ws"),
               constant(np.zeros(1, np.int8), "wz"), constant(np.float32(0.1), "s"),
               constant(np.int8(0), "z")]
    made = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
            helper.make_node("Conv", ["d", "wd"], ["logits"])]
    value = helper.make_tensor_value_info
    body = helper.make_graph(made, "tiny", [value("x", TensorProto.FLOAT, ["n", 1, 1, 1])],
                             [value("logits", TensorProto.FLOAT, ["n", 1, 1, 1])], tensors)
    return bytes(helper.make_model(body, opset_imports=[helper.make_opsetid("", 19)],
                                   ir_version=9).SerializeToString())


@pytest.mark.parametrize("scale", [1e-2, 1e-5])
def test_scales_too_small_for_fp16_keep_the_weights(scale: float) -> None:
    form = graph.with_precision(tiny_conv(scale), "int8")
    assert min(v.min() for v in constants(form).values() if v.dtype == np.float16) >= 2.0**-14
    x = np.full((1, 1, 1, 1), 1.0, np.float32)
    # 100 steps of 1e-5 are 16.4 of 2^-14
    assert run(form, x) == pytest.approx(100 * scale, rel=0.03)


def test_what_is_no_onnx_is_an_error() -> None:
    with pytest.raises(ModelError, match="no ONNX file"):
        graph.operators(b"\xff\xff not a graph")
