"""Small bundles of one network whose segments hold convolutions, float or quantised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgepkd.bundle.manifest import CascadeEntry, SegmentEntry, segment_file
from edgepkd.bundle.reading import Bundle
from edgepkd.bundle.writing import write_bundle
from edgepkd.config import InputSpec
from tests.runtime.bundles import LABELS, make_manifest, make_policy, make_wise

CROP_PX, WIDTH, FRAMES = 32, 192, 3


def convolution(exit: int, *, quantized: bool, width: int = WIDTH) -> bytes:
    """x -> 3x3 convolution, stride 2 -> ReLU -> features; -> average -> linear -> logits."""
    random = np.random.default_rng(exit)
    channels, side = (2 if exit == 1 else width), CROP_PX >> (exit - 1)
    weight = random.standard_normal((width, channels, 3, 3)).astype(np.float32) / 30
    constants = {"b": np.zeros(width, np.float32),
                 "fw": random.standard_normal((width, len(LABELS))).astype(np.float32),
                 "fb": np.zeros(len(LABELS), np.float32)}
    nodes, conv_x, conv_w = [], "x", "w"
    if quantized:
        scale = np.abs(weight).max((1, 2, 3)) / 127
        constants |= {"w8": np.rint(weight / scale[:, None, None, None]).astype(np.int8),
                      "ws": scale, "wz": np.zeros(width, np.int8),
                      "xs": np.float32(0.03), "xz": np.int8(0)}
        nodes = [helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["x8"], "quantize_x"),
                 helper.make_node("DequantizeLinear", ["x8", "xs", "xz"], ["xq"], "dequantize_x"),
                 helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["wq"], "dequantize_w",
                                  axis=0)]
        conv_x, conv_w = "xq", "wq"
    else:
        constants["w"] = weight
    relu = "features" if exit < 4 else "last"
    nodes += [
        helper.make_node("Conv", [conv_x, conv_w, "b"], ["conv"], "stem_conv", strides=[2, 2],
                         pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["conv"], [relu], "stem_relu"),
        helper.make_node("GlobalAveragePool", [relu], ["mean"], "head_mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], "head_flat"),
        helper.make_node("Gemm", ["flat", "fw", "fb"], ["logits"], "head_fc"),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(LABELS)])]
    if exit < 4:
        outputs.insert(0, helper.make_tensor_value_info(
            "features", TensorProto.FLOAT, ["n", width, side // 2, side // 2]))
    graph = helper.make_graph(
        nodes, f"mv_{exit}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, side, side])],
        outputs, [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def broken(content: bytes, *, node: str, **changes: object) -> bytes:
    """`content` with node `node` changed: `op_type=...`, or an attribute."""
    model = onnx.load_from_string(content)
    found = next(n for n in model.graph.node if n.name == node)
    for name, value in changes.items():
        if name == "op_type":
            found.op_type = str(value)
        else:
            found.attribute.extend([helper.make_attribute(name, value)])
    return model.SerializeToString()


def conv_bundle(
    folder: Path, *, quantized: bool = True, name: str = "conv",
    segments: dict[int, bytes] | None = None, width: int = WIDTH,
) -> Bundle:
    """Four segments of `mv`; `segments` replaces some of them, by exit."""
    contents = {k: convolution(k, quantized=quantized, width=width) for k in range(1, 5)}
    contents |= segments or {}
    entries = tuple(SegmentEntry(
        "mv", k, segment_file("mv", k),
        (2 if k == 1 else width, CROP_PX >> (k - 1), CROP_PX >> (k - 1)),
        (width, CROP_PX >> k, CROP_PX >> k) if k < 4 else None, gmac=0.001)
        for k in range(1, 5))
    manifest = make_manifest(
        inputs={"mv": InputSpec("mv", num_segments=FRAMES, resize_px=CROP_PX, crop_px=CROP_PX)},
        cascade=CascadeEntry(("mv",)), segments=entries)
    return write_bundle(
        folder / f"{name}.edgepkd", manifest=manifest, wise={"mv": make_wise()["mv"]},
        policy={"mv": make_policy()["mv"]}, model_card="# conv\n",
        segments={("mv", k): content for k, content in contents.items()})
