"""`export` of a run as a function: where the bundle goes, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle.manifest import MANIFEST
from edgepkd.errors import BundleError, ConfigError, DataError, EdgepkdError, MissingExtraError
from edgepkd.pipeline.export_bundle import ExportConfig
from edgepkd.pipeline.export_run import bundle_path, export_run


def test_the_bundle_lies_beside_the_run_unless_asked_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bundle_path(ExportConfig(tmp_path / "a", "onnx")) == tmp_path / "a.edgepkd"
    named = ExportConfig(tmp_path / "a", "onnx", out=tmp_path / "b.edgepkd")
    assert bundle_path(named) == tmp_path / "b.edgepkd"
    (tmp_path / "a.b" / "c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a.b")
    assert bundle_path(ExportConfig(Path(), "onnx")) == tmp_path / "a.b.edgepkd"
    monkeypatch.chdir(Path("c"))
    assert bundle_path(ExportConfig(Path(".."), "onnx")) == tmp_path / "a.b.edgepkd"


@pytest.mark.parametrize(("settings", "error", "message"), [
    ({"target": "jetson-nano-9"}, ConfigError, "jetson-nano-9"),
    ({"target": "onnx"}, DataError, "is no training run"),
    ({"target": "tensorrt", "via": "torch-tensorrt", "dla": 0}, ConfigError, "--dla"),
    ({"target": "tensorrt", "via": "torch-tensorrt"}, MissingExtraError, "torch-tensorrt"),
])
def test_what_cannot_be_done_is_said_before_any_work(
    tmp_path: Path, settings: dict[str, Any], error: type[EdgepkdError], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(export_run(ExportConfig(tmp_path / "run", **settings)))
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_of_that_name_stays(tmp_path: Path) -> None:
    (tmp_path / "run.edgepkd").mkdir()
    (tmp_path / "run.edgepkd" / MANIFEST).touch()
    with pytest.raises(BundleError, match=r"run\.edgepkd exists already.*--force"):
        list(export_run(ExportConfig(tmp_path / "run", "onnx")))
