"""How long one call of a TensorRT plan takes on the GPU of this machine."""

from __future__ import annotations

from contextlib import ExitStack
from math import prod
from statistics import median
from time import perf_counter
from typing import Any

from edgepkd.errors import ModelError
from edgepkd.libraries.cuda import call, open_runtime

WARM_UP_CALLS = 20
CALLS = 200
BYTES = 4
"""All inputs and outputs of a segment are FP32."""


def median_ms(trt: Any, logger: Any, plan: bytes, batch: tuple[int, ...]) -> float:
    """Median of launch and wait for input `x` of shape `batch`.

    Raises:
        MissingExtraError: cuda-python is not installed.
        ModelError: the plan does not load here, or a call of CUDA or TensorRT fails.
    """
    cuda = open_runtime(purpose="measuring engines")
    runtime = trt.Runtime(logger)
    runtime.engine_host_code_allowed = True  # its own runtime, in a plan made here a moment ago
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ModelError("the plan does not load here.")
    context = engine.create_execution_context()
    context.set_input_shape("x", batch)
    with ExitStack() as stack:
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            size = prod(context.get_tensor_shape(name)) * BYTES
            address = call(cuda, "cudaMalloc", size)
            stack.callback(cuda.cudaFree, address)
            call(cuda, "cudaMemset", address, 0, size)
            context.set_tensor_address(name, int(address))
        stream = call(cuda, "cudaStreamCreate")
        stack.callback(cuda.cudaStreamDestroy, stream)
        times = [_call_s(cuda, context, stream) for _ in range(WARM_UP_CALLS + CALLS)]
    return median(times[WARM_UP_CALLS:]) * 1e3


def _call_s(cuda: Any, context: Any, stream: Any) -> float:
    start = perf_counter()
    if not context.execute_async_v3(int(stream)):
        raise ModelError("TensorRT could not start the segment.")
    call(cuda, "cudaStreamSynchronize", stream)
    return perf_counter() - start
