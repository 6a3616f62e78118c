"""CUDA is found under either name, and a call that fails says which and why."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from edgepkd.errors import MissingExtraError, ModelError
from edgepkd.libraries.cuda import MODULES, call, open_runtime
from tests.runtime.fake_gpu import FakeCuda


@pytest.mark.parametrize("name", MODULES)
def test_the_runtime_is_found_by_either_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fake = ModuleType(name)
    for known in MODULES:
        monkeypatch.setitem(sys.modules, known, fake if known == name else None)
    assert open_runtime(purpose="") is fake


def test_without_cuda_python_the_purpose_and_the_extra_are_named(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in MODULES:
        monkeypatch.setitem(sys.modules, known, None)
    with pytest.raises(MissingExtraError, match=r"^running engines needs .*cuda-python") as caught:
        open_runtime(purpose="running engines")
    assert "edgepkd[cuda]" in str(caught.value.hint)


def test_a_call_gives_its_value_or_none_where_there_is_none() -> None:
    cuda = FakeCuda()
    address = call(cuda, "cudaMalloc", 16)
    assert address in cuda.memory
    assert call(cuda, "cudaFree", address) is None


@pytest.mark.parametrize("reason", [b"out of memory", "out of memory"])
def test_a_failed_call_is_named_with_the_reason_of_cuda(
    monkeypatch: pytest.MonkeyPatch, reason: bytes | str
) -> None:
    cuda = FakeCuda()
    cuda.fails.add("cudaMalloc")
    monkeypatch.setattr(cuda, "cudaGetErrorString", lambda error: (0, reason))
    with pytest.raises(ModelError, match=r"^cudaMalloc failed: out of memory \(CUDA error 2\)\."):
        call(cuda, "cudaMalloc", 16)


def test_a_library_of_cuda_that_is_missing_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(size: int) -> None:
        raise RuntimeError("Failed to dlopen libcudart.so.13")

    cuda = FakeCuda()
    monkeypatch.setattr(cuda, "cudaMalloc", missing)
    with pytest.raises(ModelError, match=r"cudaMalloc failed: Failed to dlopen libcudart") as error:
        call(cuda, "cudaMalloc", 16)
    assert "edgepkd doctor" in str(error.value.hint)
