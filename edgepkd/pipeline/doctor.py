"""What this machine has: for `edgepkd doctor`, and for numbers that carry their conditions."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

from edgepkd._optional import OPTIONAL, installed_version
from edgepkd._version import __version__
from edgepkd.bundle import trust
from edgepkd.libraries import openvino
from edgepkd.machine import hardware, jetpack

CORE = ("numpy", "numba", "av", "onnx", "openvino", "typer", "rich", "pillow")


@dataclass(frozen=True)
class Machine:
    """A machine as edgepkd sees it; None where there is nothing to see."""

    edgepkd: str
    python: str
    platform: str
    cpu: str
    num_cores: int
    packages: dict[str, str | None]
    """Version of every package edgepkd knows, None if not installed."""
    extras: dict[str, str]
    """Which extra brings an optional package."""
    backends: dict[str, str]
    """Backend -> its devices, or why it does not work."""
    kernels: str
    """Where the compiled decoding kernels are kept, or that they are not."""
    engines: str
    """Where it is noted which engines were built here, or that it is not."""
    gpus: tuple[str, ...]
    jetson: str | None
    """Board and L4T release of a Jetson."""
    next_steps: tuple[str, ...]


def describe() -> Machine:
    """Look at this machine; asks nvidia-smi, imports OpenVINO and TensorRT if they are here."""
    packages = {name: installed_version(name) for name in CORE}
    packages |= {distribution: installed_version(distribution)
                 for _, distribution in OPTIONAL.values()}
    extras = {distribution: extra for extra, distribution in OPTIONAL.values()}
    gpus, jetson = tuple(map(str, hardware.gpus())), hardware.jetson()
    has_gpu, versions = bool(gpus or jetson), jetpack.engine_versions()
    backends = {
        "openvino": _openvino_devices(),
        **jetpack.engine_backends(versions, has_gpu=has_gpu,
                                  has_cuda_python=packages["cuda-python"] is not None),
        "torch-tensorrt": jetpack.torch_tensorrt_note(
            packages["torch"], packages["torch-tensorrt"]),
    }
    engine_steps = jetpack.engine_steps(
        packages, versions, has_gpu=has_gpu, jetson=jetson, python=platform.python_version(),
        foreign=jetpack.foreign_tensorrt(sys.path) if jetson else None)
    kernels, *kernel_steps = _kernels()
    return Machine(
        edgepkd=__version__, python=platform.python_version(), platform=platform.platform(),
        cpu=hardware.cpu(),
        num_cores=hardware.num_cores(),
        packages=packages, extras=extras, backends=backends, kernels=kernels,
        engines=_engines(), gpus=gpus, jetson=jetson,
        next_steps=_next_steps(packages, backends, (*kernel_steps, *engine_steps)),
    )


def _openvino_devices() -> str:
    try:
        core = openvino.core()
        devices = [f"{device} ({core.get_property(device, 'FULL_DEVICE_NAME')})"
                   for device in core.available_devices]
    except (ImportError, RuntimeError) as error:
        return f"does not work: {error}"
    return ", ".join(devices) or "does not work: it finds no device"


def _engines() -> str:
    place = trust.place()
    if place is None:
        return ("not noted: this user has no private folder for it, so engines are used with"
                " --trust-engines")
    return f"those built here are noted in {place}"


def _kernels() -> tuple[str, ...]:
    """Where the compiled kernels are kept, and what to do if that is nowhere that lasts."""
    try:
        from edgepkd.video import _kernels as kernels
        from edgepkd.video import jit
    except ImportError as error:
        return (f"do not work: {error}",)
    step = ("To start in less than a second instead of about 5, keep the compiled kernels: set "
            "NUMBA_CACHE_DIR to a folder that lasts and that only you can write to.")
    folder = jit.cache_folder(kernels.accumulate)
    if folder is None:
        return ("compiled anew at every start, about 5 s: there is no folder that this user, and"
                " no other, can write to", step)
    if jit.is_temporary(kernels.accumulate):
        return f"kept in {folder.parent}, a temporary folder", step
    return (f"kept in {folder}",)


def _next_steps(
    packages: dict[str, str | None], backends: dict[str, str], engine_steps: tuple[str, ...]
) -> tuple[str, ...]:
    missing = [name for name in CORE if packages[name] is None]
    steps = [f"Core packages are missing ({', '.join(missing)}): pip install --force-reinstall"
             " edgepkd"] if missing else []
    if backends["openvino"].startswith("does not work"):
        steps.append("No backend works: pip install --upgrade openvino, then `edgepkd doctor`.")
    if packages["torch"] is None:
        steps.append("To train, quantise or export a run: pip install 'edgepkd[train]'")
    steps.extend(engine_steps)
    return (*steps, "To see it answer: edgepkd demo") if not missing else tuple(steps)
