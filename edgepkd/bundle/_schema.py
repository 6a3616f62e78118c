"""Typed reading of a bundle's JSON files: every error names the file and the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

from edgepkd.config import from_mapping
from edgepkd.errors import BundleError, ConfigError

SCHEMA_VERSION = 1
DAMAGED = "The bundle is damaged; copy or build it again."
FOREIGN = "The bundle is damaged, or was written by another program."


def load_json(
    path: Path, *, oldest: int | None = None, newest: int = SCHEMA_VERSION
) -> Mapping[str, Any]:
    """Top-level object of a JSON file of schema_version `oldest` (None: `newest`) to `newest`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error}.", hint=DAMAGED) from error
    return parse_json(content, where=path.name, oldest=oldest, newest=newest)


def parse_json(
    content: bytes, *, where: str, oldest: int | None = None, newest: int = SCHEMA_VERSION
) -> Mapping[str, Any]:
    """Top-level object of the JSON in `content`, of schema_version `oldest` (None: `newest`) to
    `newest`; `where` is the name of the file.

    Raises:
        BundleError: it is no such object; names `where`.
    """
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} cannot be read as JSON: {error}.", hint=DAMAGED) from error
    values = typed(value, dict, where=where)
    version = typed(values.get("schema_version"), int, where=f"{where}: schema_version")
    if version > newest:
        raise BundleError(
            f"{where} has schema_version {version}; this edgepkd reads up to {newest}.",
            hint="Upgrade: pip install --upgrade edgepkd",
        )
    oldest = newest if oldest is None else oldest
    require(version >= oldest, f"{where}: schema_version", version, f"{oldest}..{newest}")
    return cast(Mapping[str, Any], values)


def require(condition: bool, key: str, got: object, allowed: object) -> None:
    """Raise BundleError, naming `key`, unless `condition` holds."""
    if not condition:
        raise BundleError(f"{key} is {got!r}; allowed: {allowed}.", hint=FOREIGN)


def typed(value: Any, kind: type, *, where: str) -> Any:
    """`value` if its JSON type is `kind`; true is no number, and an integer is a float too."""
    fits = isinstance(value, (int, float) if kind is float else kind)
    require(fits and (kind is bool or not isinstance(value, bool)), where, value, kind.__name__)
    return value


def plain(value: Any, hint: Any, *, where: str) -> Any:
    """`value` checked against type `hint`: scalars, Literal choices, tuples, mappings, None,
    dataclasses."""
    choices = get_args(hint)
    if get_origin(hint) is tuple:
        return tuple(plain(item, choices[0], where=where)
                     for item in typed(value, list, where=where))
    if type(None) in choices:
        return None if value is None else plain(value, choices[0], where=where)
    if get_origin(hint) is Mapping:
        return {key: plain(item, choices[1], where=f"{where}.{key}")
                for key, item in typed(value, dict, where=where).items()}
    if hint is Any:
        return value
    if is_dataclass(hint):
        return build(cast(type, hint), value, where=where)
    if choices and not isinstance(hint, type):
        require(type(value) is type(choices[0]) and value in choices, where, value,
                ", ".join(map(str, choices)))
        return value
    return typed(value, hint, where=where)


def build(cls: type[Any], value: Any, *, where: str) -> Any:
    """Frozen dataclass `cls` from a JSON object with exactly known keys of the right types."""
    values = typed(value, dict, where=where)
    hints = get_type_hints(cls)
    checked = {key: plain(item, hints[key], where=f"{where}.{key}") if key in hints else item
               for key, item in values.items()}
    try:
        return from_mapping(cls, checked, where=where)
    except ConfigError as error:
        raise BundleError(error.message, hint=FOREIGN) from error


def numbers(value: Any, *, where: str) -> tuple[float, ...]:
    """A JSON array of finite numbers."""
    read = tuple(typed(item, float, where=where) for item in typed(value, list, where=where))
    require(all(abs(number) < float("inf") for number in read), where, "not finite", "numbers")
    return read
