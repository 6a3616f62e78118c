"""Tiny bundles for the tests: real ONNX segments that tell left from right by motion vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgepkd.bundle.manifest import (
    CascadeEntry,
    Manifest,
    PolicyEntry,
    PolicyTable,
    SegmentEntry,
    SegmentKey,
    WiseTable,
    segment_file,
)
from edgepkd.bundle.reading import Bundle
from edgepkd.bundle.writing import write_bundle
from edgepkd.cascade import Order, WiseWeights, order_key
from edgepkd.config import MODALITIES, ClipSpec, DecodeSpec, InputSpec, Modality

LABELS = ("left", "right")
CROP_PX = 32
ORDERS: tuple[Order, ...] = (
    ("mv", "residual", "iframe"), ("iframe", "mv", "residual"), ("mv",), ("iframe",),
)


def motion_gain(scale: float, *, num_fields: int = 1) -> np.ndarray:
    """[2 channels a field, 2 labels] weights: mean x motion to the right speaks for 'right'."""
    return np.tile(np.array([[-scale, scale], [0, 0]], np.float32) / num_fields, (num_fields, 1))


def make_inputs(*, stack: bool = False) -> dict[Modality, InputSpec]:
    """Two frames a modality; with `stack` both motion fields in one pass."""
    return {m: InputSpec(m, num_segments=2, resize_px=CROP_PX, crop_px=CROP_PX,
                         stack=stack and m == "mv") for m in MODALITIES}


def segment_onnx(modality: Modality, exit: int, weight: np.ndarray, bias: np.ndarray) -> bytes:
    """One segment: x -> average pool 2x2 -> features; x -> global average -> linear -> logits."""
    channels, side = len(weight), CROP_PX >> (exit - 1)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(LABELS)])]
    if exit < 4:
        nodes.append(helper.make_node("AveragePool", ["x"], ["features"], kernel_shape=[2, 2],
                                      strides=[2, 2]))
        outputs.insert(0, helper.make_tensor_value_info(
            "features", TensorProto.FLOAT, ["n", channels, side // 2, side // 2]))
    graph = helper.make_graph(
        nodes, f"{modality}_{exit}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, side, side])],
        outputs,
        [numpy_helper.from_array(weight.astype(np.float32), "w"),
         numpy_helper.from_array(bias.astype(np.float32), "b")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def make_manifest(*, stack: bool = False, **changes: object) -> Manifest:
    """A manifest that fits `make_segments`."""
    inputs = make_inputs(stack=stack)
    values: dict[str, object] = {
        "name": "tiny", "labels": LABELS, "inputs": inputs,
        "clip": ClipSpec(clip_frames=24, stride_frames=24), "decode": DecodeSpec(),
        "cascade": CascadeEntry(ORDERS[0]),
        "segments": tuple(
            SegmentEntry(m, k, segment_file(m, k),
                         (inputs[m].num_channels, CROP_PX >> (k - 1), CROP_PX >> (k - 1)),
                         (inputs[m].num_channels, CROP_PX >> k, CROP_PX >> k) if k < 4 else None,
                         gmac=0.001 * k)
            for m in MODALITIES for k in range(1, 5)),
        "provenance": {"made_by": "tests"},
    }
    return Manifest(**{**values, **changes})  # type: ignore[arg-type]


def make_segments(
    *, motion_scale: float = 40.0, stack: bool = False
) -> dict[SegmentKey, bytes]:
    """ONNX of all 12 segments; only those of `mv` know anything."""
    zeros, gain = np.zeros(len(LABELS)), motion_gain(motion_scale, num_fields=2 if stack else 1)
    return {
        (m, k): segment_onnx(m, k, gain if m == "mv" else np.zeros((3, len(LABELS))), zeros)
        for m in MODALITIES for k in range(1, 5)
    }


def make_wise() -> WiseTable:
    """Every exit's own logits and nothing else, for all ORDERS."""
    table = {}
    for order in ORDERS:
        count = len(WiseWeights.ones(order).vectors)
        table[order_key(order)] = tuple((0.0,) * k + (1.0,) for k in range(count))
    return table


def make_policy(*, threshold: float = 0.9) -> PolicyTable:
    """The same threshold everywhere, temperature 1, for all ORDERS."""
    return {order: PolicyEntry((1.0,) * len(vectors), (threshold,) * len(vectors))
            for order, vectors in make_wise().items()}


def make_bundle(
    folder: Path, *, motion_scale: float = 40.0, threshold: float = 0.9, stack: bool = False
) -> Bundle:
    """Write tiny.edgepkd into `folder`."""
    return write_bundle(
        folder / "tiny.edgepkd", manifest=make_manifest(stack=stack), wise=make_wise(),
        policy=make_policy(threshold=threshold), model_card="# tiny\n",
        segments=make_segments(motion_scale=motion_scale, stack=stack))
