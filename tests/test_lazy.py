"""Packages whose names come with their first use: the names that run are those that are typed."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from edgepkd._lazy import lazy_names
from tests.processes import ROOT

LAZY = sorted(path for path in (ROOT / "edgepkd").rglob("__init__.py")
              if "lazy_names" in path.read_text("utf-8"))


def test_there_are_such_packages() -> None:
    assert [path.parent.name for path in LAZY] == ["edgepkd", "video"]


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.parent.name)
def test_the_table_that_runs_and_the_imports_for_types_agree(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call)
               and isinstance(node.func, ast.Name) and node.func.id == "lazy_names"]
    runs = ast.literal_eval(call.args[1])
    typed = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgepkd"):
            for alias in node.names:
                submodule = (ROOT / node.module.replace(".", "/") / alias.name)
                is_module = submodule.with_suffix(".py").exists() or submodule.is_dir()
                typed[alias.name] = f"{node.module}.{alias.name}" if is_module else node.module
    del typed["lazy_names"]
    package = import_module(".".join(path.parent.relative_to(ROOT).parts))
    assert runs == typed
    assert sorted(runs) == sorted(package.__all__) == dir(package)
    for name in runs:
        assert getattr(package, name) is not None


def test_a_name_is_imported_when_it_is_asked_for() -> None:
    get, names = lazy_names("json", {"decoder": "json.decoder", "Fraction": "fractions"})
    assert names() == ["Fraction", "decoder"]
    assert get("Fraction")(1, 2) == 0.5
    assert get("decoder").__name__ == "json.decoder"
    with pytest.raises(AttributeError, match="module 'json' has no attribute 'loads'"):
        get("loads")
