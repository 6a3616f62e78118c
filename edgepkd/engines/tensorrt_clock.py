"""How long one call of a TensorRT plan takes on the GPU of this machine."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from math import prod
from statistics import median
from time import perf_counter
from typing import Any

WARM_UP_CALLS = 20
CALLS = 200
BYTES = 4
"""All inputs and outputs of a segment are FP32."""


def median_ms(trt: Any, logger: Any, plan: bytes, batch: tuple[int, ...]) -> float | str:
    """Median of launch and wait for input `x` of shape `batch`; or why it cannot be measured."""
    cuda = _cuda_runtime()
    if cuda is None:
        return "cuda-python is not installed"
    runtime = trt.Runtime(logger)
    runtime.engine_host_code_allowed = True  # its own runtime, in a plan made here a moment ago
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return "the plan does not load here"
    context = engine.create_execution_context()
    context.set_input_shape("x", batch)
    with ExitStack() as stack:
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            size = prod(context.get_tensor_shape(name)) * BYTES
            pointer = _checked(cuda, cuda.cudaMalloc(size))
            stack.callback(cuda.cudaFree, pointer)
            _checked(cuda, cuda.cudaMemset(pointer, 0, size))
            context.set_tensor_address(name, int(pointer))
        stream = _checked(cuda, cuda.cudaStreamCreate())
        stack.callback(cuda.cudaStreamDestroy, stream)
        times = [_call_s(cuda, context, stream) for _ in range(WARM_UP_CALLS + CALLS)]
    return median(times[WARM_UP_CALLS:]) * 1e3


def _cuda_runtime() -> Any:
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _call_s(cuda: Any, context: Any, stream: Any) -> float:
    start = perf_counter()
    if not context.execute_async_v3(int(stream)):
        raise RuntimeError("TensorRT could not start the segment")
    _checked(cuda, cuda.cudaStreamSynchronize(stream))
    return perf_counter() - start


def _checked(cuda: Any, answer: tuple[Any, ...]) -> Any:
    """The value of a CUDA call, which gives (error, value)."""
    error, *value = answer
    if int(error) != 0:
        raise RuntimeError(f"CUDA: {cuda.cudaGetErrorString(error)[1]!r}")
    return value[0] if value else None
