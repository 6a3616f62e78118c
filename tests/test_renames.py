"""Renames: what has a name keeps it, and a folder is replaced at once or comes back."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from edgepkd import renames
from edgepkd.renames import rename_to_free_name, swap_folder


@pytest.fixture(params=["at once", "in two steps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once as Linux does it, once as systems that cannot."""
    if request.param == "in two steps":
        monkeypatch.setattr(renames, "_renameat2", lambda: None)
    return str(request.param)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    return tmp_path


def holds(folder: Path) -> dict[str, str]:
    return {path.name: (path / "f").read_text() for path in folder.iterdir()}


def test_a_free_name_is_given_and_a_taken_one_is_not(tmp_path: Path, way: str) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileExistsError, match="another file has this name by now"):
        rename_to_free_name(tmp_path / "a", tmp_path / "b")
    rename_to_free_name(tmp_path / "a", tmp_path / "c")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "b", "c": "a"}


def test_a_link_to_nothing_has_its_name_too(tmp_path: Path, way: str) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        rename_to_free_name(tmp_path / "a", tmp_path / "b")
    assert os.readlink(tmp_path / "b") == "nowhere"


def test_folders_are_swapped_by_path(place: Path, way: str) -> None:
    left = swap_folder(place / "new", place / "old", aside=place / "aside")
    assert left == (place / "new" if way == "at once" else place / "aside")
    assert holds(place) == {"old": "new", Path(left).name: "old"}


def test_folders_are_swapped_in_an_open_folder_wherever_it_is_by_now(
    place: Path, way: str
) -> None:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    moved = place.with_name(f"{place.name}-moved")
    place.rename(moved)
    try:
        left = swap_folder("new", "old", aside="aside", within=descriptor)
    finally:
        os.close(descriptor)
    assert holds(moved) == {"old": "new", str(left): "old"}


def test_what_goes_comes_back_where_the_second_step_fails(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename

    def failing(old: Path, new: Path, **where: Any) -> None:
        if old == place / "new":
            raise OSError(errno.EIO, "disk on fire")
        real(old, new, **where)

    monkeypatch.setattr(renames, "_renameat2", lambda: None)
    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="disk on fire"):
        swap_folder(place / "new", place / "old", aside=place / "aside")
    assert holds(place) == {"old": "old", "new": "new"}


def test_an_error_that_says_more_than_cannot_is_told(place: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        swap_folder(place / "none", place / "old", aside=place / "aside")
    assert holds(place) == {"old": "old", "new": "new"}
