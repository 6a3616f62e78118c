"""What doctor says, on machines that are not at hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgepkd.machine import hardware
from edgepkd.pipeline import doctor
from edgepkd.video import jit


def test_this_machine() -> None:
    here = doctor.describe()
    assert here.packages["numpy"] is not None
    assert "CPU" in here.backends["openvino"]
    assert set(here.backends) == {"openvino", "tensorrt", "tensorrt_rtx", "torch-tensorrt"}
    assert here.num_cores >= 1
    assert here.kernels.startswith("kept in /")
    assert any("edgepkd demo" in step for step in here.next_steps)


@pytest.mark.parametrize(("folder", "said", "steps"), [
    (None, "compiled anew at every start, about 5 s", 1),
    ("/tmp/ours/video_1", "kept in /tmp/ours, a temporary folder", 1),
    ("/home/me/.cache/numba/video_1", "kept in /home/me/.cache/numba/video_1", 0),
])
def test_kernels_that_are_not_kept_are_told(
    monkeypatch: pytest.MonkeyPatch, folder: str | None, said: str, steps: int
) -> None:
    monkeypatch.setattr(jit, "cache_folder", lambda function: folder and Path(folder))
    monkeypatch.setattr(jit, "is_temporary", lambda function: folder == "/tmp/ours/video_1")
    kernels, *kernel_steps = doctor._kernels()
    assert kernels.startswith(said)
    assert len(kernel_steps) == steps
    assert all("NUMBA_CACHE_DIR" in step for step in kernel_steps)


def test_next_steps_name_what_is_missing() -> None:
    packages: dict[str, str | None] = dict.fromkeys([*doctor.CORE, "torch"], "1.0")
    works, broken = {"openvino": "CPU (x)"}, {"openvino": "does not work: no such file"}
    assert doctor._next_steps(packages, works, ()) == (
        "To see it answer: edgepkd demo",)
    steps = doctor._next_steps({**packages, "av": None, "torch": None}, broken,
                                ("install TensorRT",))
    text = " ".join(steps)
    for part in ("(av)", "upgrade openvino", "edgepkd[train]", "install TensorRT"):
        assert part in text


def test_a_jetson_whose_tensorrt_is_hidden_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / "site-packages", tmp_path / "dist-packages"]
    for place in places:
        (place / "tensorrt").mkdir(parents=True)
        (place / "tensorrt" / "__init__.py").write_text("raise ImportError")
    monkeypatch.setattr(sys, "path", [*map(str, places), *sys.path])
    assert not any("hides JetPack's" in step for step in doctor.describe().next_steps)
    monkeypatch.setattr(hardware, "jetson", lambda: "NVIDIA Jetson Orin Nano, # R36 (release)")
    assert any(f"hides JetPack's in {places[1]}" in step
               for step in doctor.describe().next_steps)
