"""What doctor says, on machines that are not at hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepkd.runtime import machine


def test_this_machine() -> None:
    here = machine.describe()
    assert here.packages["numpy"] is not None
    assert "CPU" in here.backends["openvino"]
    assert here.num_cores >= 1
    assert any("edgepkd demo" in step for step in here.next_steps)


def test_gpus_come_from_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "NVIDIA H200, 580.65, 143771 MiB, 9.0"
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine.subprocess, "run",
                        lambda *a, **k: SimpleNamespace(stdout=f"{line}\n\n"))
    assert machine._gpus() == (line,)


def test_a_broken_nvidia_smi_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **settings: Any) -> None:
        raise machine.subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine.subprocess, "run", fails)
    assert machine._gpus() == ()


def test_a_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "release").write_text("# R36 (release), REVISION: 4.3\n# more\n")
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano\0")
    monkeypatch.setattr(machine, "TEGRA_RELEASE", tmp_path / "release")
    monkeypatch.setattr(machine, "DEVICE_TREE_MODEL", tmp_path / "model")
    assert machine._jetson() == "NVIDIA Jetson Orin Nano, # R36 (release), REVISION: 4.3"
    monkeypatch.setattr(machine, "TEGRA_RELEASE", tmp_path / "absent")
    assert machine._jetson() is None


def test_next_steps_name_what_is_missing() -> None:
    packages: dict[str, str | None] = dict.fromkeys([*machine.CORE, "torch"], "1.0")
    works, broken = {"openvino": "CPU (x)"}, {"openvino": "does not work: no such file"}
    assert machine._next_steps(packages, works, has_gpu=False) == (
        "To see it answer: edgepkd demo",)
    steps = machine._next_steps({**packages, "av": None, "torch": None}, broken, has_gpu=True)
    text = " ".join(steps)
    for part in ("(av)", "upgrade openvino", "edgepkd[train]", "A GPU is here"):
        assert part in text
