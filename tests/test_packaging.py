"""The wheel holds exactly what it should: every module, the recipes, the demo, nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from edgepkd.machine.jetpack import JETPACKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    out = tmp_path_factory.mktemp("wheel")
    # hatchling directly: no isolated environment, so no network in the test
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def tracked(folder: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_wheel_holds_exactly_the_package_and_its_recipes(wheel_names: set[str]) -> None:
    recipes = {f"edgepkd/_recipes/{name}" for name in tracked("export") | tracked("calibration")}
    metadata = {name for name in wheel_names if ".dist-info/" in name}
    assert wheel_names - metadata == tracked("edgepkd") | recipes
    assert {name.split("/", 1)[1] for name in metadata} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"
    }


@pytest.mark.slow
def test_sdist_holds_the_rooms_of_the_checkout(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True, timeout=120)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for room in ("edgepkd", "export", "calibration", "docs", "examples", "tests"):
        assert {name for name in names if name.startswith(f"{room}/")} == tracked(room)


@pytest.mark.slow
def test_recipe_rooms_ship_no_artifact(wheel_names: set[str]) -> None:
    shipped = {name for name in wheel_names if name.startswith("edgepkd/_recipes/")}
    assert shipped
    assert all(name.endswith((".toml", "/README.md")) for name in shipped)


@pytest.mark.slow
def test_demo_bundle_ships_and_is_small(wheel_names: set[str]) -> None:
    bundle = ROOT / "edgepkd" / "_bundles" / "demo.edgepkd"
    folder = bundle.relative_to(ROOT).as_posix() + "/segments/"
    assert len([name for name in wheel_names if name.startswith(folder)]) == 12
    size_mb = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) / 1e6
    assert size_mb <= 32


@pytest.mark.parametrize(("machine", "python", "expected"), [
    ("aarch64", "3.10", "cuda-python<13,>=12.6"), ("aarch64", "3.12", "cuda-python<14,>=13"),
    ("aarch64", "3.11", "cuda-python>=12"), ("aarch64", "3.13", "cuda-python>=12"),
    ("x86_64", "3.10", "cuda-python>=12"), ("x86_64", "3.12", "cuda-python>=12"),
])
def test_the_extras_of_a_gpu_fit_the_machine(machine: str, python: str, expected: str) -> None:
    environment = {"platform_machine": machine, "python_version": python}
    wanted = {extra: _wanted(extra, environment) for extra in
              ("cuda", "tensorrt", "tensorrt-rtx", "torch-tensorrt")}
    own = machine != "aarch64"  # a Jetson has JetPack's
    assert wanted["cuda"] == {expected}
    assert wanted["tensorrt"] == {expected} | ({"tensorrt>=10.3"} if own else set())
    assert wanted["tensorrt-rtx"] == {expected, "tensorrt-rtx>=1.0"}
    assert wanted["torch-tensorrt"] == ({"torch-tensorrt>=2.5"} if own else set())


def test_the_cuda_python_of_a_jetson_is_the_one_that_doctor_names() -> None:
    for pack in JETPACKS.values():
        environment = {"platform_machine": "aarch64", "python_version": pack.python}
        assert _wanted("cuda", environment) == {str(Requirement(pack.cuda_python))}


def _wanted(extra: str, environment: dict[str, str]) -> set[str]:
    """What an extra installs, extras in it followed."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"]
    wanted: set[str] = set()
    for requirement in map(Requirement, extras[extra]):
        if requirement.name == "edgepkd":
            wanted |= {name for inner in requirement.extras for name in _wanted(inner, environment)}
        elif requirement.marker is None or requirement.marker.evaluate(environment):
            wanted.add(f"{requirement.name}{requirement.specifier}")
    return wanted
