"""The wheel holds exactly what it should: every module, the recipes, the demo, nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


def test_wheel_holds_exactly_the_package_and_its_recipes(wheel_names: set[str]) -> None:
    recipes = {f"edgepkd/_recipes/{name}" for name in tracked("export") | tracked("calibration")}
    metadata = {name for name in wheel_names if ".dist-info/" in name}
    assert wheel_names - metadata == tracked("edgepkd") | recipes
    assert {name.split("/", 1)[1] for name in metadata} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"
    }


def test_recipe_rooms_ship_no_artifact(wheel_names: set[str]) -> None:
    shipped = {name for name in wheel_names if name.startswith("edgepkd/_recipes/")}
    assert shipped
    assert all(name.endswith((".toml", "/README.md")) for name in shipped)


def test_demo_bundle_ships_and_is_small(wheel_names: set[str]) -> None:
    bundle = ROOT / "edgepkd" / "_bundles" / "demo.edgepkd"
    folder = bundle.relative_to(ROOT).as_posix() + "/segments/"
    assert len([name for name in wheel_names if name.startswith(folder)]) == 12
    size_mb = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) / 1e6
    assert size_mb <= 32
