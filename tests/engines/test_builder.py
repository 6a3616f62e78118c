"""The border to what compiles: builders are found by name, and forms have the types asked for."""

from __future__ import annotations

import importlib
from typing import get_args

import onnx
import pytest
from onnx import helper

from edgepkd.engines.builder import BUILDERS, Shapes, open_builder, typed_form
from edgepkd.errors import ModelError
from edgepkd.libraries.versions import Library
from tests.engines.builders import SPEC, FakeBuilder
from tests.engines.segments import convolution


def test_every_library_has_a_builder_that_is_there() -> None:
    assert set(BUILDERS) == set(get_args(Library))
    for spec in BUILDERS.values():
        module, _, name = spec.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_a_builder_is_made_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPKD_TEST_FOLDER", "/nowhere")
    assert type(open_builder(SPEC)).__name__ == FakeBuilder.__name__


def test_a_batch_is_so_many_frames() -> None:
    assert Shapes((2, 32, 32), 1, 2, 3).batch(5) == (5, 2, 32, 32)


def test_a_form_has_explicit_types() -> None:
    model = onnx.load_from_string(typed_form(convolution(1, quantized=True, width=4), "fp16"))
    assert "QuantizeLinear" not in {node.op_type for node in model.graph.node}
    assert onnx.TensorProto.FLOAT16 in {each.data_type for each in model.graph.initializer}


def test_a_graph_that_contradicts_itself_is_one_error() -> None:
    model = onnx.load_from_string(convolution(1, quantized=False, width=4))
    last = model.graph.node[-1]
    model.graph.node.append(helper.make_node("Add", [last.output[0], "x"], ["impossible"]))
    with pytest.raises(ModelError, match=r"^the segment contradicts itself: .*Add"):
        typed_form(model.SerializeToString(), "fp32")
