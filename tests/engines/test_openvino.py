"""OpenVINO plans: they answer as the segment does, in FP32 and INT8, and are measured."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from edgepkd.bundle.engines import Precision
from edgepkd.engines.builder import Settings, Shapes
from edgepkd.engines.graph import load, with_precision
from edgepkd.engines.openvino import OpenVinoBuilder
from edgepkd.errors import ConfigError, ModelError
from edgepkd.libraries import openvino
from tests.engines.segments import WIDTH, broken, convolution

SHAPES = Shapes(frame=(WIDTH, 16, 16), min_frames=3, opt_frames=3, max_frames=3)


@pytest.mark.smoke
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_plan_answers_as_the_segment_does(precision: Precision) -> None:
    content = convolution(2, quantized=True)
    plan = OpenVinoBuilder().build(content, precision=precision, shapes=SHAPES,
                                   settings=Settings())
    x = np.random.default_rng(0).standard_normal(SHAPES.batch(3)).astype(np.float32)
    request = openvino.import_segment(plan.content).create_infer_request()
    got = request.infer({"x": x})
    form = content if precision == "int8" else with_precision(content, precision)
    _, logits = ReferenceEvaluator(load(form)).run(None, {"x": x})
    assert got["logits"].shape == (3, 2)
    assert np.abs(got["logits"] - logits).max() < 0.03 * np.abs(logits).max()


@pytest.mark.slow
def test_int8_plans_are_smaller_and_both_are_measured() -> None:
    builder = OpenVinoBuilder()
    plans = {p: builder.build(convolution(2, quantized=True), precision=p, shapes=SHAPES,
                              settings=Settings()).content for p in ("fp32", "int8")}
    assert len(plans["int8"]) < 0.4 * len(plans["fp32"])
    for plan in plans.values():
        ms = builder.measure(plan, shapes=SHAPES)
        assert isinstance(ms, float)
        assert 0 < ms < 1000


def test_settings_of_a_gpu_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"workspace_mb, version_compatible is set"):
        OpenVinoBuilder().build(convolution(2, quantized=True), precision="fp32", shapes=SHAPES,
                                settings=Settings(workspace_mb=1, version_compatible=True))


def test_a_broken_graph_is_named() -> None:
    content = broken(convolution(2, quantized=True), node="stem_relu", op_type="Frobnicate")
    with pytest.raises(ModelError, match=r"OpenVINO refuses the segment: .*Frobnicate"):
        OpenVinoBuilder().build(content, precision="int8", shapes=SHAPES, settings=Settings())
