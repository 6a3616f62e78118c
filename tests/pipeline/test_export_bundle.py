"""`export` of a bundle as a function: what it takes for one, and which options it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgepkd.errors import BundleError, ConfigError, UsageError
from edgepkd.pipeline.export_bundle import ExportConfig, export_bundle, is_bundle


def test_a_manifest_tells_a_bundle_from_a_run(tmp_path: Path) -> None:
    assert is_bundle(tmp_path), "what is neither is reported as a bundle that is not whole"
    (tmp_path / "run.json").touch()
    assert not is_bundle(tmp_path)
    (tmp_path / "manifest.json").touch()
    assert is_bundle(tmp_path)
    assert is_bundle(Path("x" * 5000))


@pytest.mark.parametrize(("settings", "option"), [
    ({"out": Path("a.edgepkd")}, "--out"), ({"allow_drift": True}, "--allow-drift"),
    ({"static": True}, "--static"), ({"data": Path("data")}, "--data"),
    ({"dataset": "a"}, "--dataset"), ({"via": "torch-tensorrt"}, "--via"),
    ({"data": Path("data"), "static": True}, "--static, --data"),
])
def test_options_of_runs_are_refused(
    tmp_path: Path, settings: dict[str, Any], option: str
) -> None:
    with pytest.raises(UsageError, match=f"^{option} is given with a bundle"):
        list(export_bundle(ExportConfig(tmp_path, "openvino", **settings)))


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        list(export_bundle(ExportConfig(tmp_path, "openvino")))


@pytest.mark.parametrize(("settings", "message"), [
    ({"precision": "fp8"}, "precision is 'fp8'; allowed: .*int8"),
    ({"via": "tvm"}, "via is 'tvm'; allowed: onnx, torch-tensorrt"),
])
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExportConfig(Path("a"), "openvino", **settings)
