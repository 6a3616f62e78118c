from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.bundle import Bundle
from edgepkd.errors import BundleError, UsageError
from edgepkd.runtime.backends import open_runner
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from edgepkd.runtime.tensorrt_runner import TensorRtRunner
from tests.runtime.bundles import make_bundle
from tests.runtime.fake_gpu import TARGET, add_engines, install


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path)


def test_without_a_gpu_auto_is_the_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgepkd import hardware

    monkeypatch.setattr(hardware, "has_gpu", lambda: False)
    add_engines(bundle)
    assert isinstance(open_runner(bundle, "auto"), OpenVinoRunner)


def test_auto_takes_engines_that_fit(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    assert isinstance(open_runner(bundle, "auto"), OpenVinoRunner), "no engines yet"
    add_engines(bundle)
    assert isinstance(open_runner(bundle, "auto"), TensorRtRunner)
    assert isinstance(open_runner(bundle, "openvino"), OpenVinoRunner)


def test_auto_passes_foreign_engines_by_and_the_name_does_not(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    add_engines(bundle, compute_capability="7.2")
    assert isinstance(open_runner(bundle, "auto"), OpenVinoRunner)
    with pytest.raises(BundleError, match=r"7\.2"):
        open_runner(bundle, TARGET)


def test_engines_that_are_not_there_are_an_error_with_the_command(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="allowed: auto, openvino") as caught:
        open_runner(bundle, "jetson-thor")
    assert "--target jetson-thor" in str(caught.value.hint)
