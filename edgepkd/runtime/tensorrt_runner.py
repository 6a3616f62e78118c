"""Segments on an NVIDIA GPU through the plans in `engines/<target>/`; no torch.

One code for `tensorrt` and `tensorrt_rtx`. A plan that was built for another machine is refused by
what its sidecar says, before the library sees a byte of it.
"""

from __future__ import annotations

import ctypes
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from edgepkd.bundle.engine_files import read_engines, read_plan
from edgepkd.bundle.engine_match import (
    NO_GPU,
    TRUST_HINT,
    mismatches,
    rebuild_hint,
    refuse_uncovered,
    this_machine,
)
from edgepkd.bundle.engines import VERSION_COMPATIBLE, EngineSet, PlanRecord
from edgepkd.bundle.manifest import SegmentEntry
from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Position
from edgepkd.errors import BundleError, ModelError
from edgepkd.libraries import cuda
from edgepkd.libraries.tensorrt import ErrorLog, open_library
from edgepkd.machine import hardware
from edgepkd.runtime.runner import Array, Features, closed
from edgepkd.text import command

ON_THE_CPU = "Run `edgepkd doctor`; on the CPU the bundle runs with --backend openvino."
BYTES = 4
"""Inputs and outputs of a segment are FP32 in every plan."""


@dataclass(frozen=True)
class DeviceFeatures:
    """Activations on the GPU: float32 [frames, C, H, W] at `address`."""

    made_by: Position
    address: int
    frames: int


@dataclass(frozen=True)
class _Loaded:
    """A plan that is ready; buffers are as long as its longest batch."""

    context: Any
    names: dict[str, str]
    """What a bundle calls a tensor -> what the plan calls it."""
    x: int | None
    """Address of the input; None where it is the features of the segment before."""
    features: int | None
    logits: int
    host_logits: Array
    """Pinned, [max_frames, classes]."""


class TensorRtRunner:
    """Deserialises a plan when its segment is first asked for; one stream for all.

    Features stay on the GPU as DeviceFeatures; only logits are copied back.
    """

    def __init__(self, bundle: Bundle, target: str, *, trust_engines: bool = False) -> None:
        """Make a runner for the engines of `target` in `bundle`; loads none of them.

        `trust_engines`: also engines that `edgepkd export` has not built here for this user, and
        plans that bring code of their own for the host (version-compatible ones).

        Raises:
            BundleError: there are none, they do not belong to this machine or bundle, or are not to
                be trusted: names every reason, and the command that builds them anew.
            MissingExtraError: TensorRT or cuda-python is not installed.
            ModelError: CUDA does not work here.
        """
        self._bundle, self._engines = bundle, read_engines(bundle.path, target)
        self._rebuild = rebuild_hint(bundle.path, self._engines)
        self._trt: Any = _open_library(self._engines)
        version = str(self._trt.__version__).split("-")[0]
        here = this_machine(self._engines.built_on.library, version)
        reasons = mismatches(self._engines, bundle.manifest, here)
        if reasons:
            raise BundleError(f"the engines for {target!r} do not fit: {'; '.join(reasons)}.",
                              hint=ON_THE_CPU if reasons == (NO_GPU,) else self._rebuild)
        refuse_uncovered(bundle.path, self._engines, trusted=trust_engines)
        _refuse_host_code(self._engines, trusted=trust_engines)
        self._cuda: Any = cuda.open_runtime(purpose="running TensorRT engines")
        self._log = ErrorLog(self._trt)
        self._runtime = _open_runtime(self._trt, self._log.logger, self._engines)
        self._loaded: dict[Position, _Loaded] = {}
        memory = ExitStack()
        self._free_memory = weakref.finalize(self, memory.close)
        self._memory = memory
        self._stream = self._call("cudaStreamCreate")
        memory.callback(self._cuda.cudaStreamDestroy, self._stream)
        self.backend = f"{here.library} {version} {here.gpu or here.jetson or 'GPU'}"

    def prepare(self, position: Position) -> None:
        """Read, verify and deserialise the plan of `position`, once.

        Raises:
            BundleError: the plan is missing or not the one that the sidecar describes.
            ModelError: the library refuses it, its tensors are not the manifest's, the GPU's
                memory is full, or the runner is closed.
        """
        if not self._free_memory.alive:
            raise closed(self.backend)
        if position in self._loaded:
            return
        record = self._engines.plans[str(position)]
        entry = self._bundle.manifest.segment(position.modality, position.exit)
        content = read_plan(self._bundle.path, self._engines, str(position))
        engine = self._runtime.deserialize_cuda_engine(content)
        context = engine.create_execution_context() if engine is not None else None
        if context is None:
            raise ModelError(f"{self.backend} cannot load {record.file}: {self._log.take()}",
                             hint=self._rebuild)
        names = self._tensor_names(engine, entry, record)
        self._loaded[position] = self._with_buffers(position, context, names, entry, record)

    def run(self, position: Position, x: Array | Features) -> tuple[Features, Array]:
        """Run one segment, loading it first if `prepare` was not called.

        Raises:
            BundleError: as `prepare`.
            ModelError: `x` does not fit, CUDA or TensorRT fails, or the runner is closed.
        """
        self.prepare(position)
        loaded, frames = self._loaded[position], self._check_input(position, x)
        entry = self._bundle.manifest.segment(position.modality, position.exit)
        if isinstance(x, DeviceFeatures):
            address = x.address
        else:
            assert loaded.x is not None
            address, host = loaded.x, np.ascontiguousarray(x, np.float32)
            self._copy(address, host.ctypes.data, host.nbytes, "cudaMemcpyHostToDevice")
        self._enqueue(position, loaded, address, (frames, *entry.input_shape))
        logits = loaded.host_logits[:frames]
        self._copy(logits.ctypes.data, loaded.logits, logits.nbytes, "cudaMemcpyDeviceToHost")
        self._call("cudaStreamSynchronize", self._stream)
        features = None if loaded.features is None else DeviceFeatures(
            position, loaded.features, frames)
        return features, logits.copy()

    def close(self) -> None:
        """Free engines, contexts, the stream and all memory of the GPU; harmless if done before."""
        if not self._free_memory.alive:
            return
        # A call that failed half-way may have left work behind, which still uses the memory. What
        # this answers does not matter: it is over either way.
        self._cuda.cudaStreamSynchronize(self._stream)
        self._loaded.clear()
        self._free_memory()
        self._runtime = None

    # ---- loading

    def _tensor_names(self, engine: Any, entry: SegmentEntry, record: PlanRecord) -> dict[str, str]:
        """Where x, features and logits are in the plan; refuses shapes that would not fit."""
        shapes = {"x": entry.input_shape, "logits": (len(self._bundle.manifest.labels),)}
        if entry.features_shape is not None:
            shapes["features"] = entry.features_shape
        names = {name: name for name in shapes}
        if self._engines.via == "torch-tensorrt":  # it numbers outputs and cannot be told names
            outputs = [name for name in ("features", "logits") if name in shapes]
            names |= {name: f"output{index}" for index, name in enumerate(outputs)}
        found = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
        if found != set(names.values()):
            raise ModelError(f"{record.file} has the tensors {', '.join(sorted(found))};"
                             f" allowed: {', '.join(sorted(names.values()))}.", hint=self._rebuild)
        for name, shape in shapes.items():
            got = tuple(engine.get_tensor_shape(names[name]))[1:]
            kind = engine.get_tensor_dtype(names[name])
            if got != shape or kind != self._trt.float32:
                raise ModelError(f"{record.file}: {name} is {kind} {got} a frame; allowed:"
                                 f" {self._trt.float32} {shape}.", hint=self._rebuild)
        return names

    def _with_buffers(self, position: Position, context: Any, names: dict[str, str],
                      entry: SegmentEntry, record: PlanRecord) -> _Loaded:
        frames, classes = record.max_frames, len(self._bundle.manifest.labels)
        pinned = self._call("cudaMallocHost", frames * classes * BYTES)
        self._memory.callback(self._cuda.cudaFreeHost, pinned)
        host = np.ctypeslib.as_array(
            (ctypes.c_float * (frames * classes)).from_address(int(pinned)))
        return _Loaded(
            context, names,
            x=self._malloc(frames, entry.input_shape) if position.exit == 1 else None,
            features=self._malloc(frames, entry.features_shape) if entry.features_shape else None,
            logits=self._malloc(frames, (classes,)),
            host_logits=host.reshape(frames, classes))

    def _malloc(self, frames: int, shape: tuple[int, ...]) -> int:
        address = self._call("cudaMalloc", frames * prod(shape) * BYTES)
        self._memory.callback(self._cuda.cudaFree, address)
        return int(address)

    # ---- running

    def _check_input(self, position: Position, x: Array | Features) -> int:
        """Number of frames in `x`, which must fit the segment and its plan."""
        record = self._engines.plans[str(position)]
        entry = self._bundle.manifest.segment(position.modality, position.exit)
        if isinstance(x, DeviceFeatures):
            frames = x.frames
            fits = (x.made_by.modality, x.made_by.exit + 1) == (position.modality, position.exit)
            got = f"features of {x.made_by}"
        else:
            assert isinstance(x, np.ndarray)
            shape = x.shape
            frames, got = (shape or (0,))[0], f"an array {shape}"
            fits = position.exit == 1 and shape[1:] == entry.input_shape
        if not fits:
            wanted = (f"[n, {', '.join(map(str, entry.input_shape))}]" if position.exit == 1
                      else f"the features of {position.modality}_{position.exit - 1}")
            raise ModelError(f"segment {position} got {got}; allowed: {wanted}.")
        if not record.min_frames <= frames <= record.max_frames:
            raise ModelError(
                f"segment {position} got {frames} frames; its engine was built for"
                f" {record.min_frames} to {record.max_frames}.",
                hint="Build engines for more: " + command(
                    "edgepkd", "export", self._bundle.path, "--target", self._engines.target,
                    "--batch", str(frames), "--force"))
        return frames

    def _enqueue(
        self, position: Position, loaded: _Loaded, x: int, shape: tuple[int, ...]
    ) -> None:
        context, addresses = loaded.context, {"x": x, "logits": loaded.logits}
        if loaded.features is not None:
            addresses["features"] = loaded.features
        started = context.set_input_shape(loaded.names["x"], shape) and all(
            context.set_tensor_address(loaded.names[name], address)
            for name, address in addresses.items())
        if not (started and context.execute_async_v3(int(self._stream))):
            raise ModelError(f"segment {position} failed in {self.backend}: {self._log.take()}")

    def _copy(self, to: int, source: int, num_bytes: int, kind: str) -> None:
        self._call("cudaMemcpyAsync", to, source, num_bytes,
                   getattr(self._cuda.cudaMemcpyKind, kind), self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        return cuda.call(self._cuda, name, *arguments)


def _refuse_host_code(engines: EngineSet, *, trusted: bool) -> None:
    if engines.flags.get(VERSION_COMPATIBLE) and not trusted:
        raise BundleError(
            f"the engines for {engines.target!r} are version-compatible: they bring code that runs"
            " on this computer.", hint=f"{TRUST_HINT}.")


def _open_library(engines: EngineSet) -> Any:
    library, target = engines.built_on.library, engines.target
    if library == "openvino":
        raise BundleError(f"the engines for {target!r} are OpenVINO's; allowed: TensorRT's.",
                          hint="To run on the CPU: --backend openvino")
    return open_library(library, purpose=f"running the engines for {target!r}",
                        on_jetson=hardware.jetson() is not None)


def _open_runtime(trt: Any, logger: Any, engines: EngineSet) -> Any:
    runtime = trt.Runtime(logger)
    if engines.flags.get(VERSION_COMPATIBLE):
        runtime.engine_host_code_allowed = True  # trusted: such a plan brings its own runtime
    if engines.flags.get("dla") is not None:
        runtime.DLA_core = engines.flags["dla"]
    return runtime
