"""Engines by Torch-TensorRT: the plans and their sidecar, and options that this way has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle.engine_files import read_engines
from edgepkd.engines.build import EnginesBuilt, SegmentBuilt, SegmentStarted
from edgepkd.errors import ConfigError, MissingExtraError
from edgepkd.pipeline import export_torch
from edgepkd.pipeline.export_bundle import ExportConfig
from edgepkd.pipeline.export_torch import export_by_torch, refuse_options
from tests.models.networks import small_network
from tests.runtime.bundles import make_bundle

NETWORKS: Any = {m: small_network(modality=m, num_classes=2)  # type: ignore[arg-type]
                 for m in ("mv", "residual", "iframe")}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand-ins for the library and the builder; what the builder was asked for."""
    asked: list[dict[str, Any]] = []

    def build(segment: Any, **settings: Any) -> bytes:
        asked.append(settings)
        return f"plan {len(asked)}".encode()

    monkeypatch.setattr(export_torch, "require_torch_tensorrt", lambda: None)
    monkeypatch.setattr(export_torch, "build_segment", build)
    return asked


def test_every_segment_is_a_plan_in_one_set(
    tmp_path: Path, built: list[dict[str, Any]]
) -> None:
    bundle = make_bundle(tmp_path)
    config = ExportConfig(bundle.path, "tensorrt", via="torch-tensorrt", precision="fp32",
                          max_frames=7)
    *events, last = export_by_torch(config, bundle, NETWORKS)
    assert [type(event) for event in events] == [SegmentStarted, SegmentBuilt] * 12
    assert isinstance(last, EnginesBuilt)
    assert len(built) == 12
    assert {(one["min_frames"], one["max_frames"], one["precision"]) for one in built} == {
        (1, 7, "fp32")}
    engines = read_engines(bundle.path, "tensorrt")
    assert (engines.via, engines.precision, len(engines.plans)) == ("torch-tensorrt", "fp32", 12)
    assert (last.folder / engines.plans["mv_1"].file).read_bytes() == b"plan 1"


def test_a_target_of_another_library_is_refused(
    tmp_path: Path, built: list[dict[str, Any]]
) -> None:
    bundle = make_bundle(tmp_path)
    with pytest.raises(ConfigError, match="target for torch-tensorrt is 'openvino'"):
        list(export_by_torch(ExportConfig(bundle.path, "openvino"), bundle, NETWORKS))
    assert built == []


def test_without_the_library_the_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match="torch-tensorrt"):
        list(export_by_torch(ExportConfig(tmp_path, "tensorrt"), make_bundle(tmp_path), NETWORKS))


@pytest.mark.parametrize(("settings", "named"), [
    ({"dla": 0}, "--dla"), ({"workspace_mb": 64}, "--workspace-mb"), ({"resume": True}, "--resume"),
    ({"version_compatible": True, "hardware_compatible": True},
     "--version-compatible, --hardware-compatible"),
    ({"require_timing_cache": True}, "--require-timing-cache"),
])
def test_options_of_the_onnx_way_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"options with --via torch-tensorrt is '{named}'"):
        refuse_options(ExportConfig(Path("run"), "tensorrt", **settings))
    refuse_options(ExportConfig(Path("run"), "tensorrt", precision="fp16", max_frames=3))
