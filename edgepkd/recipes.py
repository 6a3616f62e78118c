"""Finds and loads recipes: versioned TOML files in the rooms `export/` and `calibration/`.

In a checkout the rooms lie at the root; in an installed wheel they are `edgepkd/_recipes/`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from edgepkd.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Room = Literal["export", "calibration"]
ROOMS: tuple[Room, ...] = ("export", "calibration")


def room_path(room: Room) -> Path:
    """Folder of one recipe room, in a wheel or in a checkout."""
    bundled = Path(__file__).parent / "_recipes" / room
    return bundled if bundled.is_dir() else Path(__file__).parents[1] / room


def recipe_names(room: Room) -> tuple[str, ...]:
    """Names of the recipes in `room`, sorted."""
    return tuple(sorted(path.stem for path in room_path(room).glob("*.toml")))


def load_recipe(room: Room, name: str) -> dict[str, Any]:
    """Values of recipe `name`, or of the TOML file that `name` is the path of.

    Raises:
        ConfigError: no such recipe (lists those there are), or the file cannot be read or is no
            TOML.
    """
    path = Path(name) if name.endswith(".toml") else room_path(room) / f"{name}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{room} recipe is {name!r}; allowed: {', '.join(recipe_names(room))},"
            " or the path of a .toml file."
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}.") from error


def toml_value(text: str) -> Any:
    """A value as written in TOML: `10`, `true`, `[1, 2]`; anything else is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
