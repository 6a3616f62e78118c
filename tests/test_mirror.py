"""Tests mirror the tree: whoever looks for the tests of a module knows where they are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.processes import ROOT

STEPS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def has_steps(path: Path) -> bool:
    """True where a module has more than constants and imports."""
    return any(isinstance(node, STEPS) for node in ast.parse(path.read_text("utf-8")).body)


def mirror_of(module: Path) -> Path:
    folder = module.parent.relative_to(ROOT / "edgepkd")
    return ROOT / "tests" / folder / f"test_{module.stem.lstrip('_')}.py"


@pytest.mark.slow
def test_every_module_has_a_test_file_of_its_name() -> None:
    modules = [path for path in sorted((ROOT / "edgepkd").rglob("*.py"))
               if not path.stem.startswith("__") and has_steps(path)]
    assert len(modules) > 150
    missing = [mirror_of(path).relative_to(ROOT).as_posix() for path in modules
               if not mirror_of(path).exists()]
    assert missing == []


def test_every_room_of_the_tests_is_a_room_of_the_package() -> None:
    own = {"bench", "fuzz"}
    rooms = {path.parent.relative_to(ROOT / "tests").as_posix()
             for path in (ROOT / "tests").rglob("test_*.py")} - {"."}
    foreign = {room for room in rooms
                 if room not in own and not (ROOT / "edgepkd" / room).is_dir()}
    assert foreign == set()
