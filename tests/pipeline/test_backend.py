"""Which runner computes the segments: engines that fit, the CPU else, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.bundle import Bundle
from edgepkd.errors import BundleError, ConfigError
from edgepkd.pipeline import RunConfig, open_runner
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from edgepkd.runtime.tensorrt_runner import TensorRtRunner
from tests.runtime.bundles import make_bundle
from tests.runtime.fake_gpu import TARGET, add_engines, install


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path)


def test_without_engines_auto_is_the_cpu_and_there_is_nothing_to_say(bundle: Bundle) -> None:
    runner, choice = open_runner(bundle, RunConfig("x"))
    assert isinstance(runner, OpenVinoRunner)
    assert choice is None


def test_auto_takes_engines_that_fit(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    add_engines(bundle)
    runner, choice = open_runner(bundle, RunConfig("x"))
    assert isinstance(runner, TensorRtRunner)
    assert choice is not None
    assert (choice.backend, "this machine" in choice.reason) == (TARGET, True)
    assert isinstance(open_runner(bundle, RunConfig("x", backend="openvino"))[0], OpenVinoRunner)


def test_auto_passes_foreign_engines_by_and_says_why(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch)
    add_engines(bundle, compute_capability="7.2")
    runner, choice = open_runner(bundle, RunConfig("x"))
    assert isinstance(runner, OpenVinoRunner)
    assert choice is not None
    assert choice.backend == "openvino"
    assert "7.2" in choice.reason
    with pytest.raises(BundleError, match=r"7\.2"):
        open_runner(bundle, RunConfig("x", backend=TARGET))
    assert trt.deserialised == []


def test_engines_that_are_not_there_are_an_error_with_the_command(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no engines for 'jetson-thor'") as caught:
        open_runner(bundle, RunConfig("x", backend="jetson-thor"))
    assert "--target jetson-thor" in str(caught.value.hint)


def test_a_backend_that_is_a_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="backend"):
        RunConfig("x", backend="../elsewhere")
