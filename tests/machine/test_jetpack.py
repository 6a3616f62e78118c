"""What goes with what, on machines that are not at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.libraries.versions import Library
from edgepkd.machine import jetpack

ORIN = "NVIDIA Jetson Orin Nano Developer Kit, # R36 (release), REVISION: 4.3, GCID: 1"
THOR = "NVIDIA Jetson AGX Thor Developer Kit, # R38 (release), REVISION: 2.0, GCID: 1"
XAVIER = "NVIDIA Jetson AGX Xavier, # R35 (release), REVISION: 4.1, GCID: 1"
CUDA: dict[str, str | None] = {"cuda-python": "12.8.0"}
TRT_10_3: dict[Library, str | None] = {"tensorrt": "10.3.0"}


@pytest.mark.parametrize(("jetson", "name"), [
    (ORIN, "JetPack 6"), (THOR, "JetPack 7.0 or 7.1"), (XAVIER, None), (None, None),
    (ORIN.replace("R36", "R39"), "JetPack 7.2"),
])
def test_jetpack_comes_from_the_release(jetson: str | None, name: str | None) -> None:
    found = jetpack.jetpack(jetson)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(("versions", "has_gpu", "has_cuda", "expected"), [
    ({}, True, True, ("not installed", "not installed")),
    ({"tensorrt": None}, True, True, ("does not work: ", "not installed")),
    ({"tensorrt": "10.3.0", "tensorrt_rtx": "1.7.1"}, False, True,
     ("10.3.0; builds no engines, runs none: no GPU", "1.7.1; builds engines, runs none: no GPU")),
    ({"tensorrt": "10.3.0", "tensorrt_rtx": "1.7.1"}, True, True,
     ("10.3.0; builds engines, runs them", "1.7.1; builds engines, runs them")),
    ({"tensorrt": "10.3.0"}, True, False,
     ("10.3.0; builds engines, runs none without cuda-python", "not installed")),
])
def test_what_each_library_can_do(
    versions: dict[Library, str | None], has_gpu: bool, has_cuda: bool, expected: tuple[str, str]
) -> None:
    said = jetpack.engine_backends(versions, has_gpu=has_gpu, has_cuda_python=has_cuda)
    assert list(said) == ["tensorrt", "tensorrt_rtx"]
    assert all(text.startswith(start) for text, start in zip(said.values(), expected, strict=True))


@pytest.mark.parametrize(("torch", "torch_tensorrt", "expected"), [
    ("2.13.0+cu130", None, "torch-tensorrt==2.13.*"),
    (None, None, "takes torch 2.N only"),
    ("2.13.0", "2.14.0", "does not work: 2.14.0 takes torch 2.14.* only, here is 2.13.0"),
    (None, "2.14.0", "here is none"),
    ("2.14.1+cu130", "2.14.0", "2.14.0, with torch 2.14.1+cu130"),
])
def test_torch_tensorrt_pins_are_explained(
    torch: str | None, torch_tensorrt: str | None, expected: str
) -> None:
    assert expected in jetpack.torch_tensorrt_note(torch, torch_tensorrt)


@pytest.mark.parametrize(("packages", "versions", "jetson", "python", "expected"), [
    ({}, {}, None, "3.11.9", ["edgepkd[tensorrt]", "edgepkd[cuda]"]),
    ({}, {}, ORIN, "3.10.12",
     ["JetPack 6 brings TensorRT 10.3: sudo apt-get", "cuda-python>=12.6,<13"]),
    (CUDA, {}, ORIN, "3.12.3", ["python3.10 -m venv", "brings TensorRT 10.3"]),
    (CUDA, {"tensorrt": "11.4.1"}, ORIN, "3.10.12", ["pip uninstall tensorrt"]),
    (CUDA, TRT_10_3, THOR, "3.12.3", ["pip uninstall tensorrt"]),
    ({}, {"tensorrt": "10.13.3"}, THOR, "3.12.3", ["cuda-python>=13,<14"]),
    (CUDA, TRT_10_3, ORIN, "3.10.12", ["--target jetson-orin-nano"]),
    (CUDA, {"tensorrt_rtx": "1.7.1"}, None, "3.11.9", ["--target tensorrt-rtx"]),
    (CUDA, TRT_10_3, XAVIER, "3.10.12", ["not one that edgepkd makes engines on"]),
])
def test_next_steps_for_a_gpu(
    packages: dict[str, str | None], versions: dict[Library, str | None], jetson: str | None,
    python: str, expected: list[str],
) -> None:
    steps = jetpack.engine_steps(packages, versions, has_gpu=True, jetson=jetson, python=python)
    assert len(steps) == len(expected)
    assert all(part in step for part, step in zip(expected, steps, strict=True))
    assert jetpack.engine_steps(packages, versions, has_gpu=False, jetson=None,
                                python=python) == ()


def packages(folder: Path, *names: str, module: bool = True) -> str:
    """A folder of packages as pip or apt leaves it, with TensorRT in it."""
    folder.mkdir(parents=True)
    if module:
        (folder / "tensorrt").mkdir()
        (folder / "tensorrt" / "__init__.py").touch()
    for name in names:
        (folder / f"{name.replace('-', '_')}-11.0.0.dist-info").mkdir()
        (folder / f"{name.replace('-', '_')}-11.0.0.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 11.0.0\n")
    return str(folder)


def test_a_tensorrt_in_the_environment_hides_the_systems(tmp_path: Path) -> None:
    own = packages(tmp_path / "edge/lib/python3.10/site-packages", "tensorrt_cu12", "tensorrt",
                   "tensorrt-cu12-bindings", "tensorrt-rtx", "numpy")
    system = packages(tmp_path / "usr/lib/python3.10/dist-packages", "tensorrt")
    found = jetpack.foreign_tensorrt(["", "/nowhere", own, system])
    assert found == jetpack.ForeignTensorrt(
        Path(own), ("tensorrt", "tensorrt-cu12", "tensorrt-cu12-bindings"), Path(system))
    (step,) = jetpack.engine_steps(CUDA, TRT_10_3, has_gpu=True, jetson=ORIN, python="3.10.12",
                                   foreign=found)
    assert step == (f"The tensorrt in {own} hides JetPack's in {system}: python -m pip uninstall "
                    "tensorrt tensorrt-cu12 tensorrt-cu12-bindings, then `edgepkd doctor`")


def test_one_that_pip_installed_as_root_hides_the_systems_too(tmp_path: Path) -> None:
    local = packages(tmp_path / "usr/local/lib/python3.10/dist-packages", "tensorrt-cu12")
    system = packages(tmp_path / "usr/lib/python3.10/dist-packages", "tensorrt")
    found = jetpack.foreign_tensorrt([local, system])
    assert found is not None
    assert (found.place, found.hidden) == (Path(local), Path(system))


def test_one_in_the_environment_alone_is_not_jetpacks(tmp_path: Path) -> None:
    stub = packages(tmp_path / "edge/lib/python3.10/site-packages", "tensorrt", module=False)
    found = jetpack.foreign_tensorrt([stub, "/nowhere"])
    assert found == jetpack.ForeignTensorrt(Path(stub), ("tensorrt",), None)
    (step,) = jetpack.engine_steps(CUDA, {}, has_gpu=True, jetson=ORIN, python="3.10.12",
                                   foreign=found)
    assert "is not JetPack's" in step
    assert "pip uninstall tensorrt, then" in step


def test_the_systems_own_is_no_foreign_one(tmp_path: Path) -> None:
    system = packages(tmp_path / "usr/lib/python3.10/dist-packages", "tensorrt")
    rtx = packages(tmp_path / "edge/lib/python3.10/site-packages", "tensorrt-rtx", module=False)
    assert jetpack.foreign_tensorrt([rtx, system]) is None
    assert jetpack.foreign_tensorrt([system]) is None
    container = packages(tmp_path / "usr/local/lib/python3.12/dist-packages", "tensorrt")
    assert jetpack.foreign_tensorrt([container]) is None
    assert jetpack.foreign_tensorrt([str(tmp_path)]) is None
