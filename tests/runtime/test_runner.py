"""The contract of runners: each prepares, runs and closes alike, whatever it stands on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Position
from edgepkd.errors import ModelError
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from edgepkd.runtime.runner import SegmentRunner
from edgepkd.runtime.tensorrt_runner import TensorRtRunner
from tests.runtime.bundles import make_bundle
from tests.runtime.fake_gpu import TARGET, add_engines, install
from tests.runtime.fake_runner import FakeRunner
from tests.runtime.openvino_engines import TARGET as OPENVINO
from tests.runtime.openvino_engines import add_openvino_engines

X = np.ones((2, 2, 32, 32), np.float32)


def _tensorrt(bundle: Bundle) -> SegmentRunner:
    add_engines(bundle)
    return TensorRtRunner(bundle, TARGET)


def _openvino_engines(bundle: Bundle) -> SegmentRunner:
    add_openvino_engines(bundle)
    return OpenVinoRunner(bundle, target=OPENVINO)


@pytest.fixture(params=[OpenVinoRunner, _openvino_engines, _tensorrt,
                        lambda bundle: FakeRunner({}, num_classes=2)],
                ids=["openvino", "openvino engines", "tensorrt", "fake"])
def runner(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SegmentRunner:
    if request.param is _tensorrt:
        install(monkeypatch)
    make: Callable[[Bundle], SegmentRunner] = request.param
    return make(make_bundle(tmp_path))


@pytest.mark.slow
def test_a_chain_hands_features_on_and_gives_logits_of_each_frame(runner: SegmentRunner) -> None:
    features: object = X
    for k in range(1, 5):
        runner.prepare(Position("mv", k))
        features, logits = runner.run(Position("mv", k), features)
        assert (logits.dtype, logits.shape) == (np.float32, (2, 2))
    assert runner.backend


@pytest.mark.slow
def test_a_segment_that_was_not_prepared_is_loaded_when_it_runs(runner: SegmentRunner) -> None:
    _, first = runner.run(Position("mv", 1), X)
    _, again = runner.run(Position("mv", 1), X)
    assert np.array_equal(first, again)


@pytest.mark.slow
def test_closing_twice_is_harmless_and_use_after_it_a_clear_error(runner: SegmentRunner) -> None:
    features, _ = runner.run(Position("mv", 1), X)
    runner.close()
    runner.close()
    for use in (lambda: runner.prepare(Position("mv", 1)),
                lambda: runner.run(Position("mv", 1), X),
                lambda: runner.run(Position("mv", 2), features)):
        with pytest.raises(ModelError, match=r"runner on .* is closed") as caught:
            use()
        assert "edgepkd.load" in str(caught.value.hint)


@pytest.mark.slow
def test_a_runner_that_did_nothing_closes_too(runner: SegmentRunner) -> None:
    runner.close()
    with pytest.raises(ModelError, match="is closed"):
        runner.prepare(Position("mv", 1))
