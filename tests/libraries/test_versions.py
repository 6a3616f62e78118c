"""Versions of libraries as they are imported, not as they are installed."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from edgepkd.libraries.versions import library_version


@pytest.mark.parametrize(("said", "version"), [
    ("10.3.0.30", "10.3.0.30"), ("2026.4.1-21-g3a", "2026.4.1")])
def test_the_version_is_without_the_build(
    monkeypatch: pytest.MonkeyPatch, said: str, version: str
) -> None:
    fake = ModuleType("tensorrt")
    fake.__version__ = said  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    assert library_version("tensorrt") == version


def test_openvino_is_imported_quietly_and_known() -> None:
    version = library_version("openvino")
    assert version is not None
    assert version[:3] == "202"
    assert "openvino_telemetry" not in sys.modules


@pytest.mark.parametrize("error", [ImportError("no such"), OSError("libnvinfer.so.10")])
def test_what_cannot_be_imported_has_no_version(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", broken)
    assert library_version("tensorrt_rtx") is None
