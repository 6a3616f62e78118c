"""What the machine is: CPU, memory, NVIDIA GPUs, Jetson board; asks only the system."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgepkd import plain_json

TEGRA_RELEASE = Path("/etc/nv_tegra_release")
DEVICE_TREE_MODEL = Path("/proc/device-tree/model")
MEMORY_INFO = Path("/proc/meminfo")
CPU_INFO = Path("/proc/cpuinfo")
CUDA_VERSION = Path("/usr/local/cuda/version.json")

# Flags in /proc/cpuinfo that say which instructions networks may be compiled to, on x86 and ARM.
VECTOR_FLAGS = ("sse4_", "avx", "amx", "fma", "f16c", "asimd", "fphp", "sve", "i8mm", "bf16")

# Boards whose nvidia-smi, where there is one, does not say it.
JETSON_COMPUTE_CAPABILITY = {"Thor": "11.0", "Orin": "8.7", "Xavier": "7.2"}


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU; None where the driver does not say."""

    name: str
    driver: str | None
    memory_mb: int | None
    compute_capability: str | None
    """Such as '8.9'."""

    def __str__(self) -> str:
        return ", ".join([
            self.name, f"driver {self.driver or 'unknown'}",
            f"{self.memory_mb} MiB" if self.memory_mb else "unified memory",
            f"compute capability {self.compute_capability or 'unknown'}"])


def overflows_bytes() -> bool:
    """Whether this CPU adds two products of bytes in 16 bits: x86 without VNNI or AMX.

    OpenVINO then answers wrongly, and says nothing, where weights use all 8 bits.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return not {"avx_vnni", "avx512_vnni", "amx_int8"} & set(text.split())


def instruction_sets() -> tuple[str, ...]:
    """What this CPU computes networks with, sorted: 'avx2', 'avx512_vnni', 'asimddp' …

    The name of the CPU where the kernel does not list them.
    """
    for line in _lines(CPU_INFO):
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return tuple(sorted(flag for flag in flags.split() if flag.startswith(VECTOR_FLAGS)))
    return (cpu(),)


def gpus() -> tuple[Gpu, ...]:
    """Every NVIDIA GPU that nvidia-smi lists; empty if there is none, or no driver."""
    text = _nvidia_smi("--query-gpu=name,driver_version,memory.total,compute_cap",
                       "--format=csv,noheader")
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, *rest = (part.strip() for part in line.split(","))
        driver, memory, capability = (*rest, "", "", "")[:3]
        found.append(Gpu(
            name=name, driver=driver if driver[:1].isdigit() else None,
            memory_mb=int(memory.split()[0]) if memory[:1].isdigit() else None,
            compute_capability=capability if capability[:1].isdigit() else None))
    return tuple(found)


def jetson() -> str | None:
    """Board and L4T release of a Jetson, None on any other machine."""
    if not TEGRA_RELEASE.is_file():
        return None
    release = TEGRA_RELEASE.read_text(encoding="utf-8", errors="replace").splitlines()[:1]
    model = (DEVICE_TREE_MODEL.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
             if DEVICE_TREE_MODEL.is_file() else "Jetson")
    return ", ".join([model, *release])


def compute_capability() -> str | None:
    """Of the first GPU, such as '8.7'; None where there is none to see."""
    listed = next((gpu.compute_capability for gpu in gpus()), None)
    board = jetson() or ""
    return listed or next((capability for name, capability in JETSON_COMPUTE_CAPABILITY.items()
                           if name in board), None)


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is here, a Jetson's own included."""
    return jetson() is not None or bool(gpus())


def cuda_version() -> str | None:
    """Of the toolkit in /usr/local/cuda, else the newest that the driver runs; None without."""
    try:
        return str(plain_json.loads(CUDA_VERSION.read_text(encoding="utf-8"))["cuda"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        shown = re.search(r"CUDA Version:\s*([\d.]+)", _nvidia_smi())
        return shown[1] if shown else None


def cpu() -> str:
    """Name of the CPU."""
    names = [line.split(":", 1)[1].strip() for line in _lines(CPU_INFO)
             if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def num_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory_mb() -> int | None:
    """Memory that programs can still get without swapping, in MiB; a Jetson's GPU uses the same."""
    sizes = [line.split()[1] for line in _lines(MEMORY_INFO) if line.startswith("MemAvailable:")]
    return int(sizes[0]) // 1024 if sizes else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _nvidia_smi(*arguments: str) -> str:
    # Without the parts of PATH that mean the current folder: what lies there is not run.
    places = [place for place in os.environ.get("PATH", os.defpath).split(os.pathsep)
              if os.path.isabs(place)]
    program = shutil.which("nvidia-smi", path=os.pathsep.join(places)) if places else None
    if program is None:
        return ""
    try:
        asked = subprocess.run([program, *arguments], capture_output=True, text=True,
                               timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout
