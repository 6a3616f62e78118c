"""Segments' graphs: what could hang, allocate or read elsewhere is refused before a library sees
it, and what edgepkd writes passes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepkd.bundle.reading import read_bundle
from edgepkd.errors import BundleError
from edgepkd.runtime.model import DEMO_BUNDLE
from tests.bundle.graphs import WIDTH, attribute, check, constant, first, node, segment, tensor

ROOT = Path(__file__).resolve().parents[2]


# ---- what passes


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("exit", [1, 2, 3, 4])
def test_sound_segments_pass(exit: int, quantized: bool) -> None:
    check(segment(exit=exit, quantized=quantized), exit=exit)


def test_the_shipped_segments_pass_and_are_checked_when_they_are_read() -> None:
    bundle = read_bundle(DEMO_BUNDLE)
    for entry in bundle.manifest.segments:
        content = bundle.segment_content(entry.modality, entry.exit)
        assert len(content) == bundle.manifest.files[entry.file].bytes


def test_reading_a_bundle_needs_no_onnx() -> None:
    code = ("import sys; from edgepkd.bundle.reading import read_bundle;"
            f"read_bundle({str(DEMO_BUNDLE)!r});"
            "sys.exit(bool({'onnx', 'torch', 'openvino', 'google.protobuf'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


# ---- what does not


def endless_loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body", [helper.make_tensor_value_info("i", TensorProto.INT64, []),
                 helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                 helper.make_tensor_value_info("v", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("w", TensorProto.FLOAT, None)])
    constant(model, "true", np.array(True))
    constant(model, "many", np.array(2**62))
    first(model, "Loop", ["many", "true", "x"], body=body)


def function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function(
        "own", "Relu", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])],
        [helper.make_opsetid("", 19)]))


def external(model: onnx.ModelProto) -> None:
    weight = tensor(model, "w")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../etc/passwd")


def half_external(model: onnx.ModelProto) -> None:
    tensor(model, "w").external_data.add(key="location", value="/dev/zero")


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(
        values=numpy_helper.from_array(np.ones(1, np.float32), "s"),
        indices=numpy_helper.from_array(np.zeros(1, np.int64)), dims=[1 << 40]))


def cycle(model: onnx.ModelProto) -> None:
    node(model, "stem_conv").input[0] = "features"


def unsorted(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def deep(model: onnx.ModelProto) -> None:
    names = ["x", *(f"deep{i}" for i in range(20_000))]
    model.graph.node.extend(helper.make_node("Relu", [a], [b])
                            for a, b in pairwise(names))


def many_channels(model: onnx.ModelProto) -> None:
    """A few bytes of weights that make 2^29 values."""
    constant(model, "one", np.ones((1, 1, 1024, 1024), np.float32))
    constant(model, "rows", np.ones((1, 512, 1, 1), np.float32))
    first(model, "Mul", ["one", "rows"])


def many_alive(model: onnx.ModelProto) -> None:
    """Values that are each allowed, and all needed at the end."""
    constant(model, "one", np.ones((1, 1, 1024, 1024), np.float32))
    constant(model, "rows", np.ones((1, 100, 1, 1), np.float32))
    names = [f"big{i}" for i in range(6)]
    for number, name in enumerate(names):
        model.graph.node.insert(number, helper.make_node("Mul", ["one", "rows"], [name]))
    model.graph.node.append(helper.make_node("Concat", names, ["all"], axis=1))


def much_work(model: onnx.ModelProto) -> None:
    constant(model, "m", np.ones((4096, 4096), np.float32))
    names = ["m", *(f"m{i}" for i in range(60))]
    model.graph.node.extend(helper.make_node("MatMul", [a, "m"], [b])
                            for a, b in pairwise(names))


def size(model: onnx.ModelProto, name: str, **fields: object) -> None:
    """Overwrite fields of a tensor."""
    found = tensor(model, name)
    for key, value in fields.items():
        found.ClearField(key)
        if isinstance(value, list):
            getattr(found, key).extend(value)
        else:
            setattr(found, key, value)


@pytest.mark.slow
@pytest.mark.parametrize(("change", "reason"), [
    # what computes without end, or reads elsewhere
    (endless_loop, r"AttributeProto has the field 6"),
    (lambda m: first(m, "Loop", ["x"]), r"node new: operator is 'Loop'; allowed: Add, "),
    (lambda m: first(m, "If", ["x"]), "operator is 'If'"),
    (lambda m: first(m, "Elu", ["x"]), "operator is 'Elu'"),
    (lambda m: first(m, "Relu", ["x"], domain="own"), "node new: domain is 'own'"),
    (lambda m: m.opset_import.append(helper.make_opsetid("own", 1)), "opset_import is"),
    (function, "ModelProto has the field 25"),
    (external, "tensor w: data is 'in another file'"),
    (half_external, "tensor w: data is 'in another file'"),
    (sparse, "GraphProto has the field 15"),
    (lambda m: m.training_info.add(), "ModelProto has the field 20"),
    # order
    (cycle, "node stem_conv: input is 'features'; allowed: one that was made before it"),
    (unsorted, "input is 'flat'"),
    (lambda m: first(m, "Relu", ["new"]), "input is 'new'"),
    (lambda m: first(m, "Relu", [""]), "node new: input is ''"),
    (lambda m: first(m, "Relu", ["x", "x"]), "node new: number of inputs is 2"),
    (lambda m: node(m, "stem_relu").output.append("twice"), "number of outputs is 2"),
    (lambda m: node(m, "stem_relu").output.__setitem__(0, "conv"), "stem_relu: output is 'conv'"),
    (lambda m: node(m, "stem_conv").output.__setitem__(0, "x"), "stem_conv: output is 'x'"),
    (lambda m: constant(m, "x", np.ones(1, np.float32)), "mv.onnx: x is 'a constant'"),
    (lambda m: m.graph.initializer.append(tensor(m, "w")), "tensor's name is 'w'"),
    # sizes
    (deep, "nodes is 20005; allowed: up to 10000"),
    (many_channels, "node new: values of a clip is 536870912"),
    (many_alive, "values needed at the same time is"),
    (much_work, "multiply-accumulates of a clip is"),
    (lambda m: size(m, "w", dims=[1 << 60, 1, 1, 1]), "tensor w: dims is"),
    (lambda m: size(m, "w", dims=[1 << 16] * 4), "tensor w: dims is"),
    (lambda m: size(m, "w", dims=[-8, -2, 3, 3]), "tensor w: dims is"),
    (lambda m: size(m, "w", dims=[0, 2, 3, 3], raw_data=b""), "tensor w: dims is"),
    (lambda m: size(m, "w", dims=[1] * 9), "tensor w: dims is"),
    (lambda m: size(m, "w", dims=[8, 2, 3, 4]), "tensor w: number of values is 144; allowed: 192"),
    (lambda m: size(m, "w", raw_data=b"12345"), "tensor w: bytes is 5"),
    (lambda m: size(m, "w", data_type=TensorProto.STRING), "tensor w: data_type is 8"),
    (lambda m: size(m, "w", data_type=TensorProto.DOUBLE), "tensor w: data_type is 11"),
    (lambda m: size(m, "w", float_data=[1.0]), "tensor w: data is"),
    (lambda m: tensor(m, "w").ClearField("raw_data"), "tensor w: data is 'missing'"),
    (lambda m: size(m, "w", string_data=[b"x"]), "TensorProto has the field 6"),
    (lambda m: constant(m, "b", np.full(WIDTH, np.nan, np.float32)), "tensor b is 'not finite'"),
    (lambda m: constant(m, "b", np.full(WIDTH, np.inf, np.float32)), "tensor b is 'not finite'"),
    (lambda m: constant(m, "b", np.ones(3, np.float32)), r"shape of bias is \(3,\)"),
    (lambda m: constant(m, "w", np.ones((8, 3, 3, 3), np.float32)), "shape of weights is"),
    # attributes
    (lambda m: attribute(m, "pads", [10**9] * 4), "stem_conv: pads is"),
    (lambda m: attribute(m, "pads", [3, 3, 3, 3]), "pads is .*allowed: less than the window of 3"),
    (lambda m: attribute(m, "pads", [-1, 0, 0, 0]), "pads is"),
    (lambda m: attribute(m, "pads", [1, 1]), "pads is"),
    (lambda m: attribute(m, "pads", [1] * 20), "pads: number of values is 20"),
    (lambda m: attribute(m, "strides", [0, 1]), "strides is"),
    (lambda m: attribute(m, "strides", [-1, 1]), "strides is"),
    (lambda m: attribute(m, "strides", [1 << 62, 1]), "strides is"),
    (lambda m: attribute(m, "dilations", [10**9, 1]), "dilations is"),
    (lambda m: attribute(m, "dilations", [60, 60]), "window is 121; allowed: up to"),
    (lambda m: attribute(m, "group", 0), "group is 0"),
    (lambda m: attribute(m, "group", -2), "group is -2"),
    (lambda m: attribute(m, "group", 3), "shape of weights is"),
    (lambda m: attribute(m, "group", "x"), "group is 'x'"),
    (lambda m: attribute(m, "kernel_shape", [5, 5]), "kernel_shape is"),
    (lambda m: attribute(m, "auto_pad", "SAME_UPPER"), "auto_pad is 'SAME_UPPER'"),
    (lambda m: attribute(m, "own", 1), "stem_conv: attribute is 'own'"),
    (lambda m: node(m, "stem_conv").attribute.append(node(m, "stem_conv").attribute[0]),
     "attribute is '.*'; allowed: each once"),
    (lambda m: node(m, "stem_conv").attribute[0].ClearField("type"), "type is None"),
    (lambda m: attribute(m, "axis", 0, of="head_flat"), "head_flat: axis is 0"),
    (lambda m: attribute(m, "alpha", float("nan"), of="head_fc"), "alpha is nan"),
    (lambda m: attribute(m, "beta", 1e30, of="head_fc"), "beta is"),
    (lambda m: attribute(m, "transB", 1, of="head_fc"), "head_fc: shapes is"),
    (lambda m: first(m, "Cast", ["x"], to=TensorProto.STRING), "new: to is 8"),
    (lambda m: first(m, "MaxPool", ["x"], kernel_shape=[4000, 4000]), "window is 4000"),
    (lambda m: first(m, "MaxPool", ["x"]), "kernel_shape is 'missing'"),
    (lambda m: first(m, "AveragePool", ["b"], kernel_shape=[1, 1]), r"new: shape is \(8,\)"),
    (lambda m: first(m, "Add", ["x", "w"]), "new: shapes is"),
    (lambda m: first(m, "MatMul", ["x", "b"]), "new: shapes is"),
    (lambda m: first(m, "Concat", ["x", "w"], axis=1), "new: shapes is"),
    (lambda m: first(m, "Concat", ["x", "x"]), "new: axis is None"),
    # borders
    (lambda m: m.graph.input.append(m.graph.output[0]), "inputs is"),
    (lambda m: m.graph.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_value", 3),
     "inputs: x: shape is"),
    (lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", 10), "x: type is 10"),
    (lambda m: m.graph.output.pop(), "outputs is 'features'"),
    (lambda m: m.graph.output[0].__setattr__("name", "other"), "outputs is 'logits, other'"),
    (lambda m: m.graph.output[1].type.tensor_type.shape.dim[1].__setattr__("dim_value", 3),
     "outputs: logits: shape is"),
    (lambda m: constant(m, "fw", np.ones((WIDTH, 3), np.float32)), "head_fc: shapes is"),
    (lambda m: node(m, "stem_relu").output.__setitem__(0, "mean2"), "input is 'features'"),
    (lambda m: m.graph.input[0].type.sequence_type.elem_type.tensor_type.__setattr__(
        "elem_type", 1), "TypeProto has the field 4"),
    (lambda m: m.graph.output[0].__setattr__("name", "w" * 1001), "has 1001 bytes"),
    (lambda m: m.ClearField("graph"), "graph is 'missing'"),
    (lambda m: m.ClearField("ir_version"), "ir_version is None"),
    (lambda m: m.opset_import[0].__setattr__("version", 1), "opset_import is"),
])
def test_what_no_segment_needs_is_refused(
    change: Callable[[onnx.ModelProto], object], reason: str
) -> None:
    model = segment()
    change(model)
    with pytest.raises(BundleError, match=reason) as caught:
        check(model)
    assert str(caught.value).startswith("mv.onnx")
    assert len(caught.value.message) < 1000


def test_frames_count() -> None:
    check(segment(), frames=1000)
    with pytest.raises(BundleError, match="values of a clip"):
        check(segment(), frames=1 << 20)


@pytest.mark.slow
def test_changed_segments_are_refused_or_answer() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.bundle.segment_fuzz", "0", "80"],
                          capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = re.findall(r"'([^']+)': (\d+)", done.stdout)
    assert dict(outcomes).keys() >= {"refused by the bundle", "answered"}
    memory = re.search(r"slowest (\d+\.\d) s, (\d+) MB", done.stdout)
    assert memory is not None
    assert float(memory[1]) < 10
    assert int(memory[2]) < 1500
