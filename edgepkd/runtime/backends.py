"""Which runner computes the segments of a bundle."""

from __future__ import annotations

from edgepkd import hardware
from edgepkd.bundle import Bundle
from edgepkd.bundle.engines import (
    Library,
    engine_targets,
    library_version,
    mismatches,
    read_engines,
    this_machine,
)
from edgepkd.errors import BundleError, UsageError
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from edgepkd.runtime.runner import SegmentRunner
from edgepkd.runtime.tensorrt_runner import TensorRtRunner

OPENVINO, AUTO = "openvino", "auto"
GPU_LIBRARIES: tuple[Library, ...] = ("tensorrt", "tensorrt_rtx")


def open_runner(bundle: Bundle, backend: str, *, threads: int | None = None) -> SegmentRunner:
    """The runner of `backend`: 'openvino', 'auto', or a target that the bundle has engines for.

    Raises:
        UsageError: the bundle has no such engines. BundleError: they belong to another machine.
        MissingExtraError: the library that runs them is not installed.
    """
    target = fitting_target(bundle) if backend == AUTO else backend
    if target in (None, OPENVINO):
        return OpenVinoRunner(bundle, threads=threads)
    there = engine_targets(bundle.path)
    if target not in there:
        raise UsageError(
            f"backend is {target!r}; allowed: auto, openvino"
            f"{''.join(f', {name}' for name in there if name != OPENVINO)}.",
            hint=f"Build the engines first: edgepkd export {bundle.path} --target {target}")
    return TensorRtRunner(bundle, target)


def fitting_target(bundle: Bundle) -> str | None:
    """The first target whose engines were built for this very GPU, library and bundle, if any."""
    if not hardware.has_gpu():
        return None
    for target in engine_targets(bundle.path):
        try:
            engines = read_engines(bundle.path, target)
        except BundleError:
            continue
        library = engines.built_on.library
        version = library_version(library) if library in GPU_LIBRARIES else None
        if version and not mismatches(engines, bundle.manifest, this_machine(library, version)):
            return target
    return None
