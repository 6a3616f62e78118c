"""No module of the package needs itself: imports form no cycle, wherever they are written.

Imports in functions and those for types alone count too: what two modules know of each other
belongs in one of them, or in a third.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.processes import ROOT

Graph = dict[str, set[str]]


def modules_of(package: Path) -> dict[str, Path]:
    """Every module of a package by its name; a folder's `__init__` has the name of the folder."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[str]:
    """Each name that an import statement anywhere in `tree` takes, from the root on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")
                above = above[: len(above) - node.level + int(is_package)]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def import_graph(package: Path) -> Graph:
    """Module -> the modules of the package that it imports.

    `from a.b import c` is an import of the module `a.b.c` where there is one, else of `a.b`. That
    the `__init__` of `a.b` runs first is no edge: else each that names its modules were a cycle.
    """
    modules = modules_of(package)
    graph: Graph = {}
    for name, path in modules.items():
        taken = imported_names(ast.parse(path.read_text("utf-8")), name,
                               is_package=path.name == "__init__.py")
        found = {full if full in modules else full.rpartition(".")[0] for full in taken}
        graph[name] = (found & modules.keys()) - {name}
    return graph


def cycle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one cycle, the first one again at the end; empty where there is none."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name):], name]
        if name in done:
            return []
        for imported in sorted(graph[name]):
            if cycle := visit(imported, [*way, name]):
                return cycle
        done.add(name)
        return []

    return next(filter(None, (visit(name, []) for name in sorted(graph))), [])


@pytest.mark.slow
def test_no_module_imports_itself_through_others() -> None:
    graph = import_graph(ROOT / "edgepkd")
    assert len(graph) > 100
    assert sum(map(len, graph.values())) > 300
    cycle = cycle_in(graph)
    assert not cycle, "import cycle: " + " -> ".join(cycle)


@pytest.mark.parametrize("back", [
    "from made.room.a import thing",
    "import made.room.a",
    "from made.room import a",
    "from . import a",
    "from .a import thing",
    "def work():\n    from made.room.a import thing",
    "def work():\n    import made.room.a as a",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from made.room.a import thing",
    "try:\n    from made.room import a\nexcept ImportError:\n    a = None",
])
def test_a_cycle_is_found_however_it_is_written(tmp_path: Path, back: str) -> None:
    room = tmp_path / "made" / "room"
    room.mkdir(parents=True)
    for path, text in {
        room.parent / "__init__.py": "", room / "__init__.py": "", room / "c.py": back,
        room / "a.py": "from made.room import b\n", room / "b.py": "from made.room.c import x\n",
    }.items():
        path.write_text(text)
    cycle = cycle_in(import_graph(tmp_path / "made"))
    assert cycle == ["made.room.a", "made.room.b", "made.room.c", "made.room.a"]
    (room / "c.py").write_text("import sys\nfrom made.other import a\n")
    assert cycle_in(import_graph(tmp_path / "made")) == []
