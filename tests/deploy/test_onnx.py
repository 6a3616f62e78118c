"""Segments as ONNX: they answer as torch does, are plain, and come out the same each time."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto

from edgepkd.bundle.segment import check_segment
from edgepkd.deploy import onnx_passes
from edgepkd.deploy.onnx import export_network, export_segment
from edgepkd.deploy.onnx_passes import WRITTEN_OPERATORS
from edgepkd.engines.graph import with_precision
from edgepkd.errors import BundleError, ModelError
from edgepkd.libraries import openvino
from edgepkd.models.macs import macs_per_exit
from edgepkd.models.segmented import BACKBONES, BackboneName
from edgepkd.quantize.network import for_export
from tests.deploy.chains import logits_difference
from tests.engines.int8_networks import int8_network
from tests.models.networks import small_network

pytestmark = pytest.mark.slow


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("crop_px", [64, 72])  # 72 makes odd maps: 36, 18, 9, 5, 3
@pytest.mark.parametrize("name", BACKBONES)
def test_exported_chains_answer_as_torch_does(name: BackboneName, crop_px: int) -> None:
    network = small_network(name)
    exported = export_network(network, crop_px=crop_px)
    assert list(exported) == [("mv", k) for k in (1, 2, 3, 4)]
    x = torch.randn(3, 2, crop_px, crop_px)
    differences = logits_difference(network, x, exported=exported)
    for difference, logits in zip(differences, network(x), strict=True):
        assert difference <= 1e-4 * max(1.0, float(logits.detach().abs().max()))


def test_openvino_and_the_reference_evaluator_agree() -> None:
    network = small_network("efficientnet_lite0", modality="iframe")
    exported = export_network(network, crop_px=32, weights="fp16")
    x = torch.randn(1, 3, 32, 32)
    by_openvino = logits_difference(network, x, exported=exported)
    by_reference = logits_difference(network, x, exported=exported, backend="reference")
    assert by_openvino == pytest.approx(by_reference, abs=1e-4)


def test_a_wrong_segment_shows_in_the_difference() -> None:
    network = small_network()
    exported = export_network(network, crop_px=64)
    network.segments[1].head.fc.bias.data.add_(0.5)
    differences = logits_difference(network, torch.randn(1, 2, 64, 64), exported=exported)
    assert differences[1] == pytest.approx(0.5, abs=1e-3)
    assert max(differences[0], *differences[2:]) < 1e-3


@pytest.mark.parametrize("weights", ["fp32", "fp16"])
@pytest.mark.parametrize("name", BACKBONES)
def test_graphs_are_static_and_plain(name: BackboneName, weights: str) -> None:
    network = small_network(name)
    exported = export_network(network, crop_px=72, weights=weights)  # type: ignore[arg-type]
    rows = macs_per_exit(network, crop_px=72)
    for row, content in zip(rows, exported.values(), strict=True):
        graph = onnx.load_from_string(content).graph
        assert {node.op_type for node in graph.node} <= WRITTEN_OPERATORS
        assert ("Cast" in {node.op_type for node in graph.node}) == (weights == "fp16")
        assert [i.name for i in graph.input] == ["x"]
        assert dims(graph.input[0]) == ["n", *row.input_shape]
        outputs = {o.name: dims(o) for o in graph.output}
        assert outputs["logits"] == ["n", 5]
        assert outputs.get("features") == (["n", *row.features_shape] if row.exit < 4 else None)


@pytest.mark.parametrize(("weights", "batch"), [
    ("fp32", None), ("fp16", None), ("int8", None), ("int8", 3)])
@pytest.mark.parametrize("name", BACKBONES)
def test_what_is_exported_may_be_in_a_bundle(
    name: BackboneName, weights: str, batch: int | None
) -> None:
    network = small_network(name)
    if weights == "int8":
        exported = export_network(for_export(int8_network(name)), crop_px=64, batch=batch)
    else:
        exported = export_network(network, crop_px=64, batch=batch,
                                  weights=weights)  # type: ignore[arg-type]
    for row, content in zip(macs_per_exit(network, crop_px=64), exported.values(), strict=True):
        forms = [content]
        if batch is None:
            forms += [with_precision(content, precision)
                      for precision in ("fp32", "fp16")]
        facts: dict[str, Any] = {
            "where": "mv.onnx", "frames": 3, "input_shape": row.input_shape,
            "features_shape": row.features_shape if row.exit < 4 else None}
        for form in forms:
            check_segment(form, **facts, num_labels=5)
            with pytest.raises(BundleError, match="logits"):
                check_segment(form, **facts, num_labels=6)


def test_batch_can_be_fixed_and_opset_is_19() -> None:
    network = small_network()
    content = export_segment(network.segments[0], example_shape=(2, 64, 64), batch=3)
    model = onnx.load_from_string(content)
    assert dims(model.graph.input[0]) == [3, 2, 64, 64]
    assert model.opset_import[0].version == 19


def test_fp16_halves_the_weights_and_moves_the_logits_little() -> None:
    network = small_network("resnet50")
    full = export_network(network, crop_px=64)
    half = export_network(network, crop_px=64, weights="fp16")
    assert sum(map(len, half.values())) < 0.56 * sum(map(len, full.values()))
    for content in half.values():
        graph = onnx.load_from_string(content).graph
        kinds = {t.name: t.data_type for t in graph.initializer}
        sources = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
        for node in graph.node:
            if node.op_type in ("Conv", "Gemm"):
                assert kinds[sources[node.input[1]]] == TensorProto.FLOAT16
                assert kinds[node.input[2]] == TensorProto.FLOAT
    x = torch.randn(2, 2, 64, 64)
    largest = max(float(z.detach().abs().max()) for z in network(x))
    assert 0 < max(logits_difference(network, x, exported=half)) < 0.01 * largest


def test_openvino_folds_the_casts_away() -> None:
    network = small_network()
    content = export_network(network, crop_px=64, weights="fp16")["mv", 1]
    compiled = openvino.compile_segment(content, frames=2)
    kinds = [op.get_rt_info()["layerType"] for op in compiled.get_runtime_model().get_ops()]
    assert "Convolution" in kinds
    assert "Convert" not in kinds


def test_exporting_changes_nothing_and_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = small_network().train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    path = tmp_path / "mv_1.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = export_segment(network.segments[0], example_shape=(2, 64, 64), path=path)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["mv_1.onnx"]
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert capsys.readouterr() == ("", "")


def test_weights_that_fp16_cannot_hold_are_refused() -> None:
    network = small_network()
    network.segments[0].head.fc.weight.data[0, 0] = 1e6
    export_segment(network.segments[0], example_shape=(2, 64, 64))
    with pytest.raises(ModelError, match=r"1e\+06.*65504"):
        export_segment(network.segments[0], example_shape=(2, 64, 64), weights="fp16")


def test_diverged_weights_are_refused() -> None:
    network = small_network()
    network.segments[0].head.fc.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        export_segment(network.segments[0], example_shape=(2, 64, 64))


def test_an_operator_that_is_not_allowed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_passes, "WRITTEN_OPERATORS", WRITTEN_OPERATORS - {"Relu"})
    with pytest.raises(ModelError, match="holds Relu"):
        export_segment(small_network().segments[0], example_shape=(2, 64, 64))


def test_uneven_padding_moves_into_the_convolution() -> None:
    network = small_network("efficientnet_lite0", modality="iframe")
    content = export_segment(network.segments[0], example_shape=(3, 64, 64))
    graph = onnx.load_from_string(content).graph
    stem = next(node for node in graph.node if node.op_type == "Conv")
    pads = next(list(a.ints) for a in stem.attribute if a.name == "pads")
    assert pads == [0, 0, 1, 1]


def test_exports_are_reproducible_and_hold_no_paths() -> None:
    first = export_network(small_network(), crop_px=64, weights="fp16")
    assert export_network(small_network(), crop_px=64, weights="fp16") == first
    for content in first.values():
        assert b".py" not in content
        assert b"site-packages" not in content
