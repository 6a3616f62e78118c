"""INT8 segments as they are exported: what is quantised once, and that they answer as in torch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from edgepkd.deploy.onnx_passes import WRITTEN_OPERATORS
from edgepkd.deploy.parity import SegmentChain
from edgepkd.engines import graph
from edgepkd.models.segmented import BACKBONES, BackboneName
from tests.engines.int8_networks import frames, int8_network, int8_segments
from tests.engines.onnx_parts import constants, nodes

pytestmark = pytest.mark.slow


def makers(content: bytes) -> dict[str, onnx.NodeProto]:
    return {n.output[0]: n for n in onnx.load_from_string(content).graph.node}


@pytest.mark.parametrize("name", BACKBONES)
def test_weights_are_stored_in_8_bits_a_scale_a_channel(name: BackboneName) -> None:
    for content in int8_segments(name).values():
        values, made_by = constants(content), makers(content)
        weighted = nodes(content, "Conv") + nodes(content, "Gemm")
        assert weighted
        for node in weighted:
            weights = made_by[node.input[1]]
            assert weights.op_type == "DequantizeLinear"
            stored, scale, zero = (values[n] for n in weights.input)
            assert stored.dtype == np.int8
            assert scale.shape == (stored.shape[0],)
            assert not zero.any()
            assert np.abs(stored).max() <= 64  # weight_bits 7
            activation = made_by[node.input[0]]
            assert activation.op_type == "DequantizeLinear"
            assert made_by[activation.input[0]].op_type == "QuantizeLinear"
            assert values[activation.input[1]].shape == ()


def test_both_inputs_of_a_residual_add_are_quantised() -> None:
    made_by = makers(int8_segments()["mv", 2])
    adds = nodes(int8_segments()["mv", 2], "Add")
    assert len(adds) == 2
    for node in adds:
        assert [made_by[name].op_type for name in node.input] == ["DequantizeLinear"] * 2


def test_a_tensor_with_three_users_is_quantised_once() -> None:
    content = int8_segments()["mv", 2]  # x: convolution, downsampling convolution
    assert sum("x" in n.input for n in nodes(content, "QuantizeLinear")) == 1
    inputs = [(n.input[0], n.input[1]) for n in nodes(content, "QuantizeLinear")]
    assert len(set(inputs)) == len(inputs)


@pytest.mark.parametrize("name", BACKBONES)
def test_no_shape_arithmetic_is_left_and_every_constant_is_folded(name: BackboneName) -> None:
    for content in int8_segments(name).values():
        assert set(graph.operators(content)) <= WRITTEN_OPERATORS
        values = constants(content)
        foldable = [n for n in onnx.load_from_string(content).graph.node
                    if n.op_type != "DequantizeLinear" and all(i in values for i in n.input)]
        assert foldable == []
        assert graph.operators(content)["Cast"] == 0


def test_uneven_padding_passes_the_quantiser() -> None:
    stem = nodes(int8_segments("efficientnet_lite0", modality="iframe")["iframe", 1], "Conv")[0]
    assert next(list(a.ints) for a in stem.attribute if a.name == "pads") == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_each_segment_answers_as_its_quantised_network_does(name: BackboneName) -> None:
    from onnx.reference import ReferenceEvaluator

    x = frames(count=1)
    for segment, content in zip(int8_network(name), int8_segments(name).values(), strict=True):
        with torch.no_grad():
            features, logits = segment(x)
        evaluator = ReferenceEvaluator(content)
        found = dict(zip(evaluator.output_names, evaluator.run(None, {"x": x.numpy()}),
                         strict=True))
        # A value half-way between two steps may be rounded either way, and moves others from there
        # on: few differ much, and all of them little on average.
        scale = max(1.0, float(logits.abs().max()))
        assert abs(found["logits"] - logits.numpy()).mean() <= 0.05 * scale
        if "features" in found:
            gap = abs(found["features"] - features.numpy()).mean()
            assert gap <= 0.02 * float(features.abs().mean())
        x = features


def test_openvino_does_not_overflow_with_seven_bit_weights() -> None:
    x = frames(count=2)
    with torch.no_grad():
        expected = int8_network()(x)
    answers = SegmentChain(int8_segments(), "mv", frames=len(x))(x.numpy())
    for mine, logits in zip(answers, expected, strict=True):
        assert abs(mine - logits.numpy()).max() <= 0.1 * max(1.0, float(logits.abs().max()))
