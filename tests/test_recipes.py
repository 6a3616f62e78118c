"""Recipe rooms: every shipped recipe loads, a wrong name says what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.errors import ConfigError
from edgepkd.recipes import ROOMS, Room, load_recipe, recipe_names, room_path, toml_value


@pytest.mark.smoke
@pytest.mark.parametrize("room", ROOMS)
def test_every_recipe_loads_and_says_its_purpose(room: Room) -> None:
    names = recipe_names(room)
    assert names
    for name in names:
        assert load_recipe(room, name)["purpose"]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_hold_only_recipes_and_a_readme(room: Room) -> None:
    strangers = [
        path.name for path in room_path(room).rglob("*")
        if path.suffix != ".toml" and path.name != "README.md"
    ]
    assert strangers == []


def test_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=recipe_names("export")[0]):
        load_recipe("export", "no-such-recipe")


def test_path_of_a_toml_file_is_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('purpose = "mine"\n')
    assert load_recipe("calibration", str(path)) == {"purpose": "mine"}


def test_broken_toml_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("purpose = \n")
    with pytest.raises(ConfigError, match=r"broken\.toml is not a TOML file"):
        load_recipe("export", str(path))


@pytest.mark.parametrize("content", [b"a = " + b"[" * 100_000, b"a = " + b"9" * 10_000, b"\xff"])
def test_toml_without_end_or_sense_is_no_recipe(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "deep.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"deep\.toml is not a TOML file"):
        load_recipe("export", str(path))
    assert toml_value("[" * 100_000) == "[" * 100_000


def test_a_recipe_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.toml cannot be read: Is a directory"):
        load_recipe("export", str(tmp_path / "folder.toml"))
