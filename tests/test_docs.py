"""What README and docs/ say of the code is so: arguments and fields, rooms, names, commands."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import edgepkd
import edgepkd.video
from edgepkd.cli.main import app
from edgepkd.pipeline.demo import demo_facts
from tests.processes import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = ROOT / "edgepkd"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in (ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md",
                 ROOT / "calibration" / "README.md", ROOT / "export" / "README.md",
                 *sorted((ROOT / "docs").rglob("*.md")))}
API, ARCHITECTURE = PAGES["docs/api.md"], PAGES["docs/architecture.md"]
ROOMS = {path.stem for path in PACKAGE.iterdir()
         if path.suffix == ".py" or (path / "__init__.py").is_file()} - {"__init__"}


def section(page: str, head: str) -> str:
    """What stands below `head`, up to the next head of the same or a higher level."""
    level = len(head.split()[0])
    found = re.search(rf"^{re.escape(head)}$(.*?)(?=^#{{1,{level}}} |\Z)", page, re.M | re.S)
    assert found, f"no section {head!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of each line of the tables in `text`, without heads."""
    lines = [line.strip("|").split("|") if line.startswith("|") else []
             for line in text.splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines]
    rules = [n for n, line in enumerate(cells) if line and set("".join(line)) <= set("-: ")]
    return [line for n, line in enumerate(cells)
            if line and n not in rules and n + 1 not in rules]


def in_backticks(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def first_column(text: str) -> list[str]:
    """Every name in backticks of the first cells of the tables in `text`."""
    return [name for first, *_ in rows(text) for name in in_backticks(first)]


# ---- api.md


def arguments(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_the_api_page_names_every_argument_of_load_run_and_open() -> None:
    assert first_column(section(API, "### edgepkd.load")) == arguments(edgepkd.load)
    run_table = section(API, "### Model").partition("`run` takes")[2]
    assert first_column(run_table) == arguments(edgepkd.Model.run)
    opening = first_column(section(API, "### edgepkd.video.open"))
    assert sorted(opening) == sorted(arguments(edgepkd.video.open))


def test_the_api_page_names_every_field_of_an_answer() -> None:
    said = first_column(section(API, "### ClipAnswer"))
    declared = {field.name for field in fields(edgepkd.ClipAnswer)} | {"modalities_skipped"}
    assert set(said) == declared
    assert len(said) == len(declared)


def test_the_api_page_names_public_members_only() -> None:
    members = first_column(section(API, "### Model").partition("`run` takes")[0])
    members += first_column(section(API, "### Gop"))
    assert len(members) > 10
    classes = {"model": "runtime/model.py Model", "gop": "video/gop.py Gop"}
    for member in members:
        name, *attribute = member.partition("(")[0].split(".")
        module, owner = classes[name].split()
        assert {*(attribute or ["__call__"])} <= attributes(PACKAGE / module, owner), member
    for error in first_column(section(API, "### Errors and warnings")):
        assert issubclass(getattr(edgepkd.errors, error), edgepkd.errors.EdgepkdError)


RECIPES = re.findall(r"^### (\d\. .*)$", API, re.M)


def test_there_are_five_short_recipes() -> None:
    assert len(RECIPES) == 5
    for recipe in RECIPES:
        lines = re.findall(r"^(?:>>>|\.\.\.) ", section(API, f"### {recipe}"), re.M)
        assert 1 <= len(lines) <= 12, recipe


# ---- architecture.md


def test_the_table_of_rooms_is_the_contract() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (contract,) = (one for one in settings["contracts"] if one["type"] == "layers")
    lowest_first = [set(re.split(r" [|:] ", layer)) for layer in reversed(contract["layers"])]
    table: list[set[str]] = [set() for _ in lowest_first]
    for layer, room, says in rows(section(ARCHITECTURE, "## Rooms, lowest first")):
        table[int(layer) - 1].update(in_backticks(room))
        assert says
    assert table == lowest_first
    assert set().union(*table) == ROOMS


Step = tuple[str, int]
"""A file of the package, and the line where a function of it begins."""


@pytest.fixture(scope="module")
def walk() -> list[Step]:
    """What `edgepkd run` does with the second clip, from the first answer to the second."""
    steps: list[Step] = []
    shown = [0]

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(f"{PACKAGE}{os.sep}"):
            file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
            shown[0] += file == "cli/show_run.py" and code.co_name == "_clip"
            if shown[0] == 1:
                steps.append((file, code.co_firstlineno))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        result = CliRunner().invoke(app, ["run", str(demo_facts().clip), "--clips", "2", "-q"])
    finally:
        sys.setprofile(before)
    assert result.exit_code == 0, result.output
    assert shown == [2]
    return steps


PACKET = section(ARCHITECTURE, "## The walk of a packet")


@pytest.mark.slow
def test_a_packet_walks_as_the_page_says(walk: list[Step]) -> None:
    numbered = [where for number, where, _ in rows(PACKET) if number]
    assert len(numbered) > 20
    rest = iter(walk)
    for where in numbered:
        (name, *_) = in_backticks(where)
        file, places = lines_of(name)
        assert any(step[0] == file and step[1] in places for step in rest), \
            f"{name} does not come here, or no more"


@pytest.mark.slow
def test_a_packet_enters_the_files_that_the_page_names(walk: list[Step]) -> None:
    on_the_way = re.search(r"^On the way, .*?\n\n", PACKET, re.M | re.S)
    assert on_the_way
    numbered = "".join(" ".join(cells) for number, *cells in rows(PACKET) if number)
    named = {found[0].relative_to(PACKAGE).as_posix()
             for name in in_backticks(numbered + on_the_way[0]) if (found := module_of(name))}
    assert named == {file for file, _ in walk}


def lines_of(name: str) -> tuple[str, set[int]]:
    """The file that `name` is in, and where the functions begin that it stands for: itself, or
    those of a class, or all of a module."""
    found = module_of(name)
    assert found, name
    path, parts = found
    functions = {
        qualified: min([node.lineno, *(one.lineno for one in node.decorator_list)])
        for qualified, node in functions_in(ast.parse(path.read_text("utf-8")).body)}
    wanted = ".".join(parts)
    lines = {line for qualified, line in functions.items()
             if not wanted or f"{qualified}.".startswith(f"{wanted}.")}
    assert lines, f"{name}: no such function"
    return path.relative_to(PACKAGE).as_posix(), lines


def functions_in(
    body: Sequence[ast.stmt], above: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from functions_in(node.body, f"{above}{node.name}.")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{above}{node.name}", node


# ---- names and paths on every page

FILE = re.compile(r"\.(json|jsonl|csv|toml|md|npz|npy|mp4|png|onnx|engine|pth|safetensors|tmp|bin|"
                  r"ts|avi|tar|gz|html|txt|yml|dockerfile)\b", re.I)
PLACEHOLDER = re.compile(r"[A-Z]{3,}|[<>*{}…]")


def module_of(name: str) -> tuple[Path, list[str]] | None:
    """The file of the module in a dotted name, and what comes after it; None if it is no name of
    the package or of the tests."""
    parts = re.sub(r"\(.*", "", name).split(".")
    if parts[0] == "edgepkd":
        base, parts = PACKAGE, parts[1:]
    elif parts[0] == "tests":
        base, parts = ROOT / "tests", parts[1:]
    elif parts[0] in ROOMS:
        base = PACKAGE
    else:
        return None
    while parts and (base / parts[0]).is_dir():
        base, parts = base / parts[0], parts[1:]
    if parts and (base / f"{parts[0]}.py").is_file():
        return base / f"{parts[0]}.py", parts[1:]
    return base / "__init__.py", parts


def attributes(path: Path, owner: str | None = None) -> set[str]:
    """What the module `path` defines, or its class `owner`."""
    body: Sequence[ast.stmt] = ast.parse(path.read_text("utf-8")).body
    if owner is not None:
        body = [node for node in body if isinstance(node, ast.ClassDef) and node.name == owner]
        return {name for node in body for name in names_in(node.body) | set_in(node)}
    return names_in(body)


def names_in(body: Sequence[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            names |= {part.id for target in (node.targets if isinstance(node, ast.Assign)
                                             else [node.target])
                      for part in ast.walk(target) if isinstance(part, ast.Name)}
        elif isinstance(node, ast.If):
            names |= names_in(node.body) | names_in(node.orelse)
    return names


def set_in(owner: ast.ClassDef) -> set[str]:
    """Attributes that methods give to `self`."""
    return {node.attr for node in ast.walk(owner) if isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name) and node.value.id == "self"}


def missing(token: str) -> str | None:
    """What is wrong with the path or the dotted name `token`; None if it exists or is neither."""
    token = token.removeprefix("python -m ").strip()
    if " " in token and not re.match(r"[\w.]+\(", token):
        return None
    if "/" in token:
        return missing_path(token)
    if not re.match(r"[A-Za-z_]\w*(\.\w+)+", token) or FILE.search(token):
        return None
    found = module_of(token)
    if found is None:
        return None
    path, (name, *members) = found[0], found[1] or [""]
    if not path.is_file():
        return f"no module {path}"
    if name and name not in attributes(path):
        return f"{name} is not in {path.relative_to(ROOT)}"
    if members and members[0] not in attributes(path, name):
        return f"{name} of {path.relative_to(ROOT)} has no {members[0]}"
    return None


def missing_path(token: str) -> str | None:
    first = token.split("/")[0]
    is_ours = first in ("edgepkd", "tests", "docs", "export", "calibration", "examples", ".ci")
    is_room = first in ROOMS and token.endswith(".py")
    if not (is_ours or is_room) or PLACEHOLDER.search(token.replace("README", "")):
        return None
    path = (PACKAGE if is_room else ROOT) / token
    return None if path.exists() else f"no {path}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    wrong = {token: why for token in tokens_of(PAGES[page]) if (why := missing(token))}
    assert not wrong


def tokens_of(page: str) -> list[str]:
    """Words in backticks, cells of code, and `python -m` modules in blocks."""
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", page, re.M | re.S))
    text = re.sub(r"^```\w*\n.*?^```", "", page, flags=re.M | re.S)
    blocks += "\n" + "\n".join(re.findall(r"^ {4}\S.*$", page, re.M))
    imported = re.findall(r"^(?:>>> )?(?:from|import) (edgepkd[\w.]*)", blocks, re.M)
    started = re.findall(r"python\S* -m ((?:edgepkd|tests)[\w.]*)", page)
    return [*in_backticks(text), *imported, *started]


def test_names_that_are_not_there_are_found() -> None:
    for token in ("video.containers", "edgepkd/video/gop.py", "video/gop.py", "edgepkd.video.open",
                  "cascade.ExitPolicy", "bundle.reading.Bundle.segment_content", "tests.fuzz",
                  "edgepkd.video.Limits(pixels=1)", "video.gop.Gop.index", "export/NAME.toml",
                  "quantize.json", "edgepkd run a.b", "and/or", "model.run", "4.1"):
        assert missing(token) is None, token
    for token in ("video.nothing", "edgepkd/nothing.py", "video/nothing.py", "edgepkd.nothing",
                  "cascade.ExitPolicy.nothing", "python -m edgepkd.reproduce", "tests.nothing"):
        assert missing(token), token


# ---- commands and links


def commands_of(page: str) -> list[list[str]]:
    """Every `edgepkd VERB ...` in a block or in backticks, as words."""
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
             for line in block.splitlines()]
    found = []
    for line in [*lines, *in_backticks(page)]:
        for part in re.split(r"&&|;", line):
            called = re.search(r"(?:^|\s|/)(?:edgepkd|-m edgepkd\.cli\.main) (.*)", part)
            if called:
                found.append(shlex.split(called[1], comments=True))
    return found


@cache
def command_tree() -> Any:
    return typer.main.get_command(app)


def wrong_with(words: list[str]) -> str | None:
    command = command_tree()
    names = [word for word in words if not word.startswith("-")]
    while hasattr(command, "commands") and names:
        name = names.pop(0)
        if not re.fullmatch(r"[a-z|]+", name):
            return None  # in words: `edgepkd ...`
        alternatives = name.split("|")
        if not set(alternatives) <= command.commands.keys():
            return f"no verb {name}"
        command = command.commands[alternatives[0]]
    options = {option for one in command.params for option in one.opts} | {"--help", "-h"}
    unknown = [word for word in words
               if word.startswith("-") and word != "-" and word.split("=")[0] not in options]
    return f"no options {unknown}" if unknown else None


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_exist(page: str) -> None:
    wrong = {" ".join(words): why for words in commands_of(PAGES[page])
             if (why := wrong_with(words))}
    assert not wrong


def test_commands_are_found_and_told_apart() -> None:
    assert len(commands_of(PAGES["README.md"])) > 15
    assert wrong_with(["run", "my.mp4", "--static"]) is None
    assert wrong_with(["data", "prepare|verify", "x"]) is None
    assert wrong_with(["run", "my.mp4", "--statc"]) == "no options ['--statc']"
    assert wrong_with(["data", "nothing"]) == "no verb nothing"


def options_of(command: Any) -> set[str]:
    own = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    return own.union(*map(options_of, getattr(command, "commands", {}).values()))


def test_every_option_that_a_page_names_is_one_of_some_command() -> None:
    scripts = "".join(path.read_text("utf-8") for room in (PACKAGE / "studies", ROOT / "tests")
                      for path in sorted(room.rglob("*.py")))
    known = options_of(command_tree()) | set(re.findall(r'\badd\w*\(\s*"(--[\w-]+)"', scripts))
    said = {(page, option) for page, text in PAGES.items() for token in in_backticks(text)
            if token.startswith("--") for option in re.findall(r"--[a-z][\w-]*", token)}
    assert len(said) > 40
    assert not {(page, option) for page, option in said if option not in known}


def test_every_just_command_is_in_the_justfile() -> None:
    recipes = set(re.findall(r"^([a-z][\w-]*)[^:\n]*:(?!=)", (ROOT / "Justfile").read_text("utf-8"),
                             re.M))
    assert {"test", "check"} <= recipes
    said = {name for page in PAGES.values()
            for name in re.findall(r"(?:`|^ {4})just ([a-z][\w-]*)", page, re.M)}
    assert {"reproduce", "fuzz"} <= said <= recipes


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, head = link.partition("#")
        target = folder / name if name else ROOT / page
        assert target.exists(), link
        if head and target.suffix == ".md":
            heads = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.M)
            assert head in {anchor(one) for one in heads}, link


def anchor(head: str) -> str:
    """The name that GitHub gives a head."""
    return re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")
