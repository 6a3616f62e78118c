"""TensorRT and CUDA without a GPU: plans are ONNX files, device memory is memory of the process.

Both modules count what they are asked, and fail where a test tells them to.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from edgepkd.bundle.engine_match import this_machine
from edgepkd.bundle.engines import BuiltOn, EngineSet, PlanRecord, engines_folder
from edgepkd.bundle.reading import Bundle
from tests.stored_engines import store

VERSION = "10.3.0"
TARGET = "jetson-orin-nano"
FLOAT = "DataType.FLOAT"


class Kinds:
    cudaMemcpyHostToDevice = "to device"
    cudaMemcpyDeviceToHost = "to host"


class FakeCuda(ModuleType):
    """`cuda.bindings.runtime`: every call answers (error, values...)."""

    cudaMemcpyKind = Kinds

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.calls: Counter[str] = Counter()
        self.fails: set[str] = set()
        self.to_host: list[int] = []
        """Bytes of each copy back to the host."""
        self.memory: dict[int, Any] = {}

    def _result(self, name: str, *values: Any) -> tuple[Any, ...]:
        self.calls[name] += 1
        return (2 if name in self.fails else 0, *values)

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:
        return 0, b"out of memory"

    def _allocate(self, name: str, size: int) -> tuple[Any, ...]:
        block = (ctypes.c_byte * size)()
        address = ctypes.addressof(block)
        self.memory[address] = block
        return self._result(name, address)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._allocate("cudaMalloc", size)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        return self._allocate("cudaMallocHost", size)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        return self._result("cudaFree")

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        return self._result("cudaFreeHost")

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        return self._result("cudaStreamCreate", 7)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        return self._result("cudaStreamDestroy")

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        return self._result("cudaStreamSynchronize")

    def cudaMemset(self, address: int, value: int, size: int) -> tuple[Any, ...]:
        ctypes.memset(address, value, size)
        return self._result("cudaMemset")

    def cudaMemcpyAsync(
        self, to: int, source: int, size: int, kind: str, stream: int
    ) -> tuple[Any, ...]:
        if kind == Kinds.cudaMemcpyDeviceToHost:
            self.to_host.append(size)
        ctypes.memmove(to, source, size)
        return self._result("cudaMemcpyAsync")


class FakeTrt(ModuleType):
    """`tensorrt`, as far as it runs plans."""

    __version__ = VERSION
    float32 = FLOAT

    def __init__(self) -> None:
        super().__init__("tensorrt")
        self.deserialised: list[int] = []
        self.enqueued: list[int] = []
        """Frames of each call."""
        self.refuses = False
        fake = self

        class ILogger:
            class Severity:
                ERROR, INTERNAL_ERROR, WARNING = "error", "internal", "warning"

            def __init__(self) -> None: ...

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def deserialize_cuda_engine(self, content: bytes) -> Any:
                fake.deserialised.append(len(content))
                if fake.refuses:
                    self.logger.log("error", "plan is corrupt")
                    return None
                return Engine(fake, content)

        self.ILogger, self.Runtime = ILogger, Runtime


class Engine:
    def __init__(self, fake: FakeTrt, content: bytes) -> None:
        self.fake, self.evaluator = fake, ReferenceEvaluator(content)
        proto = self.evaluator.proto_
        self.shapes = {v.name: tuple(d.dim_value or -1 for d in v.type.tensor_type.shape.dim)
                       for v in (*proto.graph.input, *proto.graph.output)}
        self.num_io_tensors = len(self.shapes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def get_tensor_dtype(self, name: str) -> str:
        return FLOAT

    def create_execution_context(self) -> Any:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.addresses = engine, {}
        self.shape: tuple[int, ...] = ()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.shape[0], *self.engine.shapes[name][1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.engine.fake.enqueued.append(self.shape[0])
        x = _at(self.addresses["x"], self.shape)
        evaluator = self.engine.evaluator
        for name, value in zip(evaluator.output_names, evaluator.run(None, {"x": x}),
                               strict=True):
            _at(self.addresses[name], value.shape)[...] = value
        return True


def _at(address: int, shape: tuple[int, ...]) -> np.ndarray:
    block = (ctypes.c_float * int(np.prod(shape))).from_address(address)
    return np.ctypeslib.as_array(block).reshape(shape)


def install(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeTrt, FakeCuda]:
    """Both modules in place of the real ones, on a machine with one GPU."""
    import sys

    from edgepkd.machine import hardware

    trt, cuda = FakeTrt(), FakeCuda()
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    gpu = hardware.Gpu("Orin (nvgpu)", None, None, "8.7")
    monkeypatch.setattr(hardware, "gpus", lambda: (gpu,))
    monkeypatch.setattr(hardware, "compute_capability", lambda: "8.7")
    return trt, cuda


def add_engines(bundle: Bundle, **changes: Any) -> Path:
    """Engines of every segment for TARGET, built on this machine but for `changes` of BuiltOn."""
    folder = engines_folder(bundle.path, TARGET)
    folder.mkdir(parents=True)
    plans = {}
    for entry in bundle.manifest.segments:
        content = (bundle.path / entry.file).read_bytes()
        name = entry.name
        (folder / f"{name}.engine").write_bytes(content)
        plans[name] = PlanRecord(
            file=f"{name}.engine", sha256=hashlib.sha256(content).hexdigest(), bytes=len(content),
            source=entry.file, source_sha256=bundle.manifest.files[entry.file].sha256,
            precision="fp16", min_frames=1, opt_frames=2, max_frames=2, build_s=0.1)
    here = this_machine("tensorrt", VERSION)
    values = {**here.__dict__, **changes}
    store(folder, EngineSet(target=TARGET, built_on=BuiltOn(**values), precision="fp16",
                                    plans=plans))
    return folder
