"""Plans are timed on a GPU that is not there: what is called, and why it could not be done."""

from __future__ import annotations

import sys

import pytest

from edgepkd.engines.builder import Shapes
from edgepkd.engines.tensorrt import TensorRtBuilder
from edgepkd.engines.tensorrt_clock import CALLS, WARM_UP_CALLS, median_ms
from edgepkd.errors import ModelError
from edgepkd.libraries import cuda as cuda_library
from edgepkd.libraries.tensorrt import ErrorLog
from edgepkd.machine import hardware
from tests.engines.fake_tensorrt import FakeTensorRt
from tests.runtime.bundles import make_segments
from tests.runtime.fake_gpu import FakeCuda, FakeTrt, install

Fakes = tuple[FakeTrt, FakeCuda]
PLAN = make_segments()["mv", 1]
SHAPES = Shapes(frame=(2, 32, 32), min_frames=1, opt_frames=3, max_frames=8)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return install(monkeypatch)


@pytest.mark.slow
def test_every_call_is_waited_for_and_all_memory_is_given_back(fakes: Fakes) -> None:
    trt, cuda = fakes
    assert 0 < median_ms(trt, ErrorLog(trt).logger, PLAN, (3, 2, 32, 32)) < 1000
    assert trt.enqueued == [3] * (WARM_UP_CALLS + CALLS)
    assert cuda.calls["cudaStreamSynchronize"] == WARM_UP_CALLS + CALLS
    assert cuda.calls["cudaMalloc"] == cuda.calls["cudaMemset"] == cuda.calls["cudaFree"] == 3
    assert cuda.calls["cudaStreamDestroy"] == 1


def test_what_fails_is_named_and_the_memory_is_given_back(fakes: Fakes) -> None:
    trt, cuda = fakes
    cuda.fails.add("cudaStreamSynchronize")
    with pytest.raises(ModelError, match="cudaStreamSynchronize failed: out of memory"):
        median_ms(trt, ErrorLog(trt).logger, PLAN, (3, 2, 32, 32))
    assert cuda.calls["cudaMalloc"] == cuda.calls["cudaFree"] == 3


@pytest.mark.slow
def test_a_builder_says_in_a_note_why_it_could_not_measure(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, cuda = fakes
    builder = TensorRtBuilder(FakeTensorRt("10.3.0"))
    builder._trt = trt  # it runs plans
    monkeypatch.setattr(hardware, "has_gpu", lambda: False)
    assert builder.measure(PLAN, shapes=SHAPES) == "no NVIDIA GPU here"
    monkeypatch.setattr(hardware, "has_gpu", lambda: True)
    assert isinstance(builder.measure(PLAN, shapes=SHAPES), float)
    cuda.fails.add("cudaMalloc")
    assert builder.measure(PLAN, shapes=SHAPES) == (
        "cudaMalloc failed: out of memory (CUDA error 2)")
    trt.refuses = True
    assert builder.measure(PLAN, shapes=SHAPES) == "the plan does not load here"
    monkeypatch.setattr(cuda_library, "MODULES", ("cuda.bindings.runtime",))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    assert builder.measure(PLAN, shapes=SHAPES) == "cuda-python is not installed"
