"""What this machine has: for `edgepkd doctor`, and for numbers that carry their conditions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgepkd import __version__
from edgepkd._optional import OPTIONAL, installed_version

CORE = ("numpy", "numba", "av", "openvino", "typer", "rich", "pillow")
TEGRA_RELEASE = Path("/etc/nv_tegra_release")
DEVICE_TREE_MODEL = Path("/proc/device-tree/model")


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
    gpus: tuple[str, ...]
    jetson: str | None
    """Board and L4T release of a Jetson."""
    next_steps: tuple[str, ...]


def describe() -> Machine:
    """Look at this machine; starts nvidia-smi if there is one, and imports OpenVINO."""
    packages = {name: installed_version(name) for name in CORE}
    packages |= {distribution: installed_version(distribution)
                 for _, distribution in OPTIONAL.values()}
    extras = {distribution: extra for extra, distribution in OPTIONAL.values()}
    backends, gpus, jetson = {"openvino": _openvino_devices()}, _gpus(), _jetson()
    return Machine(
        edgepkd=__version__, python=platform.python_version(), platform=platform.platform(),
        cpu=_cpu(), num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        packages=packages, extras=extras, backends=backends, gpus=gpus, jetson=jetson,
        next_steps=_next_steps(packages, backends, has_gpu=bool(gpus or jetson)),
    )


def _openvino_devices() -> str:
    try:
        import openvino

        core = openvino.Core()
        devices = [f"{device} ({core.get_property(device, 'FULL_DEVICE_NAME')})"
                   for device in core.available_devices]
    except (ImportError, RuntimeError) as error:
        return f"does not work: {error}"
    return ", ".join(devices) or "does not work: it finds no device"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> tuple[str, ...]:
    """Name, driver, memory and compute capability of each NVIDIA GPU; empty if there is none."""
    if shutil.which("nvidia-smi") is None:
        return ()
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap",
             "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in asked.stdout.splitlines() if line.strip())


def _jetson() -> str | None:
    if not TEGRA_RELEASE.is_file():
        return None
    release = TEGRA_RELEASE.read_text(encoding="utf-8", errors="replace").splitlines()[:1]
    model = (DEVICE_TREE_MODEL.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
             if DEVICE_TREE_MODEL.is_file() else "Jetson")
    return ", ".join([model, *release])


def _next_steps(
    packages: dict[str, str | None], backends: dict[str, str], *, has_gpu: bool
) -> tuple[str, ...]:
    missing = [name for name in CORE if packages[name] is None]
    steps = [f"Core packages are missing ({', '.join(missing)}): pip install --force-reinstall"
             " edgepkd"] if missing else []
    if backends["openvino"].startswith("does not work"):
        steps.append("No backend works: pip install --upgrade openvino, then `edgepkd doctor`.")
    if packages["torch"] is None:
        steps.append("To train or to export a model: pip install 'edgepkd[train]'")
    if has_gpu:
        steps.append("A GPU is here; this version of edgepkd runs its networks on the CPU"
                     " (OpenVINO). Training uses the GPU through torch.")
    return (*steps, "To see it answer: edgepkd demo") if not missing else tuple(steps)
