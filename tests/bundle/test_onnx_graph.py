"""ONNX is read as plain values, however tensors are stored, and what is none is refused."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from edgepkd.bundle.onnx_graph import read_graph
from edgepkd.bundle.segment import check_segment
from edgepkd.errors import BundleError
from tests.bundle.graphs import check, segment
from tests.runtime.bundles import make_segments


@pytest.mark.parametrize("typed", [False, True])
def test_tensors_may_be_stored_by_value(typed: bool) -> None:
    model = segment(quantized=True)
    for each in model.graph.initializer:
        array = numpy_helper.to_array(each)
        each.CopyFrom(helper.make_tensor(each.name, each.data_type, array.shape,
                                         array.ravel() if typed else array.tobytes(),
                                         raw=not typed))
    check(model)


@pytest.mark.parametrize("content", [
    b"", b"not a network", b"\x08", b'<?xml version="1.0"?><net name="x" version="11"/>',
    b"\x08\x09" * 1000, b"\xff" * 1000])
def test_what_is_no_onnx_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"mv\.onnx"):
        check(content)


def test_every_prefix_is_refused() -> None:
    content = make_segments()["mv", 4]
    for length in range(len(content)):
        with pytest.raises(BundleError, match=r"mv\.onnx"):
            check_segment(content[:length], where="mv.onnx", frames=2, input_shape=(2, 4, 4),
                          features_shape=None, num_labels=2)


def test_a_graph_is_read_as_it_was_written() -> None:
    graph = read_graph(segment().SerializeToString(), where="mv.onnx")
    written = segment().graph
    assert [node.operator for node in graph.nodes] == [node.op_type for node in written.node]
    assert set(graph.inputs) == {"x"}
    assert graph.inputs["x"].shape == (None, 2, 32, 32)
    assert set(graph.outputs) == {"features", "logits"}
    for tensor in written.initializer:
        read = graph.constants[tensor.name]
        assert read.shape == tuple(tensor.dims)
        assert np.array_equal(read.data.reshape(read.shape), numpy_helper.to_array(tensor))
