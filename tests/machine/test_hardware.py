"""Machines that are not at hand: what is read of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepkd.machine import hardware
from edgepkd.machine.hardware import Gpu


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(hardware.shutil, "which", lambda name, path: f"/usr/bin/{name}")
    monkeypatch.setattr(hardware.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout=text))


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "release").write_text("# R36 (release), REVISION: 4.3\n# more\n")
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano\0")
    monkeypatch.setattr(hardware, "TEGRA_RELEASE", tmp_path / "release")
    monkeypatch.setattr(hardware, "DEVICE_TREE_MODEL", tmp_path / "model")
    return tmp_path


def test_gpus_come_from_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "NVIDIA H200, 580.65, 143771 MiB, 9.0\n\nOrin (nvgpu), N/A, [N/A], [N/A]\n")
    assert hardware.gpus() == (Gpu("NVIDIA H200", "580.65", 143771, "9.0"),
                               Gpu("Orin (nvgpu)", None, None, None))
    assert str(hardware.gpus()[0]) == (
        "NVIDIA H200, driver 580.65, 143771 MiB, compute capability 9.0")
    assert hardware.compute_capability() == "9.0"


def test_a_broken_nvidia_smi_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **settings: Any) -> None:
        raise hardware.subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(hardware.shutil, "which", lambda name, path: f"/usr/bin/{name}")
    monkeypatch.setattr(hardware.subprocess, "run", fails)
    assert hardware.gpus() == ()
    assert hardware.cuda_version() is None


@pytest.mark.parametrize("place", ["", ".", "bin", "..", "{here}"])
def test_programs_of_the_current_folder_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    for folder in ("here", "here/bin", "."):
        (tmp_path / folder).mkdir(exist_ok=True, parents=True)
        program = tmp_path / folder / "nvidia-smi"
        program.write_text("#!/bin/sh\necho Fake, 1, 2 MiB, 8.7\n")
        program.chmod(0o755)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", f"{place.format(here=tmp_path / 'here')}:/nonexistent")
    found = hardware.gpus()
    assert (len(found) == 1) == (place == "{here}"), "only where PATH names it in full"
    monkeypatch.setenv("PATH", "")
    assert hardware.gpus() == ()


def test_a_jetson_and_its_gpu(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "Orin (nvgpu), N/A, [N/A], [N/A]\n")
    assert hardware.jetson() == "NVIDIA Jetson Orin Nano, # R36 (release), REVISION: 4.3"
    assert hardware.compute_capability() == "8.7"
    assert hardware.has_gpu()
    monkeypatch.setattr(hardware, "TEGRA_RELEASE", board / "absent")
    assert hardware.jetson() is None
    assert hardware.compute_capability() is None


def test_cuda_is_the_toolkits_or_the_drivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "CUDA_VERSION", tmp_path / "version.json")
    answer(monkeypatch, "| Driver Version: 580.65   CUDA Version: 13.0 |")
    assert hardware.cuda_version() == "13.0"
    (tmp_path / "version.json").write_text('{"cuda": {"version": "12.6.11"}}')
    assert hardware.cuda_version() == "12.6.11"


def test_memory_in_mib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  8192 kB\nMemFree: 1 kB\nMemAvailable: 3072 kB\n")
    monkeypatch.setattr(hardware, "MEMORY_INFO", tmp_path / "meminfo")
    assert hardware.available_memory_mb() == 3
    monkeypatch.setattr(hardware, "MEMORY_INFO", tmp_path / "absent")
    assert hardware.available_memory_mb() is None


@pytest.mark.smoke
def test_this_machine_has_a_cpu_and_memory() -> None:
    assert hardware.cpu()
    assert (hardware.available_memory_mb() or 0) > 10


@pytest.mark.parametrize(("text", "sets"), [
    ("model name : x\nflags\t\t: fpu sse4_2 avx2 fma svm avx512_vnni\nbugs :\nflags : no\n",
     ("avx2", "avx512_vnni", "fma", "sse4_2")),
    ("processor\t: 0\nFeatures\t: fp asimd crc32 asimddp sve\n", ("asimd", "asimddp", "sve")),
    ("flags : fpu\n", ()),
])
def test_what_a_cpu_computes_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, sets: tuple[str, ...]
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(hardware, "CPU_INFO", tmp_path / "cpuinfo")
    assert hardware.instruction_sets() == sets


def test_a_cpu_that_the_kernel_does_not_describe_goes_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "CPU_INFO", tmp_path / "absent")
    monkeypatch.setattr(hardware.platform, "processor", lambda: "M9")
    assert hardware.instruction_sets() == ("M9",)


@pytest.mark.parametrize(("machine", "flags", "overflows"), [
    ("x86_64", "sse4_2 avx2 fma", True), ("x86_64", "avx2 avx_vnni", False),
    ("AMD64", "avx2 avx512_vnni", False), ("x86_64", None, True), ("aarch64", None, False)])
def test_cpus_that_add_bytes_in_16_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str | None,
    overflows: bool,
) -> None:
    info = tmp_path / "cpuinfo"
    if flags is not None:
        info.write_text(f"model name : x\nflags : {flags}\n")
    monkeypatch.setattr(hardware, "CPU_INFO", info)
    monkeypatch.setattr(hardware.platform, "machine", lambda: machine)
    assert hardware.overflows_bytes() == overflows


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: {1, 4, 5}, raising=False)
    monkeypatch.setattr(hardware.os, "cpu_count", lambda: 8)
    assert hardware.num_cores() == 3
    monkeypatch.delattr(hardware.os, "sched_getaffinity")
    assert hardware.num_cores() == 8
