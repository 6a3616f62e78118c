"""TensorRT is opened in one way, and what it complains of is in the message."""

from __future__ import annotations

import importlib
import platform

import pytest

from edgepkd.errors import MissingExtraError
from edgepkd.libraries.tensorrt import ErrorLog, TensorRt, open_library
from tests.engines.fake_tensorrt import FakeTensorRt, Severity


def absent(name: str) -> None:
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize(("library", "on_jetson", "hint"), [
    ("tensorrt", False, "edgepkd[tensorrt]"), ("tensorrt", True, "python3-libnvinfer"),
    ("tensorrt_rtx", True, "edgepkd[tensorrt-rtx]")])
def test_a_missing_library_names_the_purpose_and_where_to_get_it(
    monkeypatch: pytest.MonkeyPatch, library: TensorRt, on_jetson: bool, hint: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"^building engines needs the package") as caught:
        open_library(library, purpose="building engines", on_jetson=on_jetson)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize("error", [
    OSError("libnvinfer.so.10: cannot open shared object file"),
    ImportError("libnvinfer.so.10 is of another architecture")])
def test_a_library_without_its_shared_objects_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(MissingExtraError, match=r"imported: libnvinfer\.so\.10") as caught:
        open_library("tensorrt", purpose="", on_jetson=True)
    assert "edgepkd doctor" in str(caught.value.hint)


def test_errors_are_kept_for_the_message_once_and_warnings_are_not() -> None:
    log = ErrorLog(FakeTensorRt("10.3.0"))
    assert log.take() == "it gives no reason."
    log.logger.log(Severity.WARNING, "slow")
    log.logger.log(Severity.ERROR, " no memory \n")
    log.logger.log(Severity.INTERNAL_ERROR, "assertion failed")
    assert log.take() == "no memory; assertion failed"
    assert log.take() == "it gives no reason."
    log.logger.log(Severity.ERROR, "of the build before")
    log.clear()
    assert log.take() == "it gives no reason."
