"""What README and docs/ say of the code is so: arguments and fields, rooms, files, names, links."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

import edgepkd
import edgepkd.video
from tests.processes import ROOT

API = (ROOT / "docs" / "api.md").read_text("utf-8")


def section(page: str, head: str) -> str:
    """What stands below `head`, up to the next head of the same or a higher level."""
    level = head.split()[0]
    found = re.search(rf"^{re.escape(head)}$(.*?)(?=^#{{1,{len(level)}}} |\Z)", page, re.M | re.S)
    assert found, f"no section {head!r}"
    return found[1]


def first_column(text: str) -> list[str]:
    """Every name in backticks of the first cells of the tables in `text`."""
    cells = re.findall(r"^\|([^|]*)\|", text, re.M)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


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
    for member in members:
        name = re.match(r"model\.?(\w*)", member)
        assert name, member
        assert hasattr(edgepkd.Model, name[1] or "__call__"), member
    for member in first_column(section(API, "### Gop")):
        assert member.startswith("gop."), member
        name = re.match(r"gop\.(\w+)", member)
        assert name, member
        source = inspect.getsource(edgepkd.video.Gop)
        assert hasattr(edgepkd.video.Gop, name[1]) or f"self.{name[1]} = " in source, member
    for error in first_column(section(API, "### Errors and warnings")):
        assert issubclass(getattr(edgepkd.errors, error), edgepkd.errors.EdgepkdError)


@pytest.mark.parametrize("recipe", re.findall(r"^### (\d\. .*)$", API, re.M))
def test_a_recipe_is_short(recipe: str) -> None:
    lines = re.findall(r"^(?:>>>|\.\.\.) ", section(API, f"### {recipe}"), re.M)
    assert 1 <= len(lines) <= 12


def test_there_are_five_recipes() -> None:
    assert len(re.findall(r"^### \d\. ", API, re.M)) == 5
