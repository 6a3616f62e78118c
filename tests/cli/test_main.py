"""The table of contents: help, usage errors, the traceback on demand, and who may import whom."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from edgepkd._version import __version__
from edgepkd.cli.main import app
from tests.cli.calling import invoke
from tests.processes import ROOT
from tests.test_imports import import_graph

HEAVY = ("torch", "av", "openvino", "numba", "numpy", "rich", "onnx", "PIL", "ray", "scipy")


def verbs(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Words of every verb and sub-verb, those that only have others below them too."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from verbs(below, (*path, name))


VERBS = tuple(verbs(typer.main.get_command(app)))


@pytest.mark.slow
def test_help_imports_nothing_heavy_and_names_every_option() -> None:
    code = f"""
import json, sys
from edgepkd.cli.main import app
for verb in json.loads(sys.argv[1]):
    try:
        app([*verb, "--help"])
    except SystemExit as end:
        assert not end.code, end.code
print("HEAVY", sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code, json.dumps(VERBS)], capture_output=True,
                          text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert done.stdout.count("Usage: ") == len(VERBS) >= 17


@pytest.mark.smoke
def test_version() -> None:
    assert invoke("--version").stdout == f"edgepkd {__version__}\n"


@pytest.mark.parametrize("group", [path for path in VERBS if any(
    len(other) == len(path) + 1 and other[: len(path)] == path for other in VERBS)])
def test_the_list_of_verbs_says_of_each_what_it_does(
    group: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke(*group, "--help").stdout.partition("Commands:\n")[2]
    names = [path[-1] for path in VERBS if len(path) == len(group) + 1
             and path[: len(group)] == group]
    said = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert set(said) == set(names)
    assert not [name for name, text in said.items() if not text.endswith(".") or "..." in text]


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_option_is_explained(verb: tuple[str, ...]) -> None:
    command = typer.main.get_command(app)
    for name in verb:
        command = command.commands[name]  # type: ignore[attr-defined]
    assert command.help
    for parameter in command.params:
        text = str(getattr(parameter, "help", ""))
        assert text.endswith((".", ".)")), parameter.name
        assert text[0].isupper(), text


@pytest.mark.slow
def test_no_verb_imports_another() -> None:
    """What two verbs share stands in a module that is none."""
    graph = import_graph(ROOT / "edgepkd")
    tree = ast.parse((ROOT / "edgepkd/cli/main.py").read_text())
    of_verbs = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                and (node.module or "").startswith("edgepkd.cli.")}
    assert len(of_verbs) > 10
    for module in graph:
        if module.startswith("edgepkd.cli.") and module != "edgepkd.cli.main":
            assert not graph[module] & of_verbs, module
            assert "edgepkd.cli.main" not in graph[module], module


@pytest.mark.smoke
def test_unknown_options_and_verbs_are_usage_errors() -> None:
    assert invoke("run", "x.mp4", "--fast").exit_code == 2
    assert invoke("walk").exit_code == 2
    assert invoke("run").exit_code == 2


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPKD_DEBUG", "1")
    done = invoke("inspect", "none.mp4")
    assert "Traceback" in done.stderr
    assert done.exit_code == 1
