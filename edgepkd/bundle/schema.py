"""Typed reading of a bundle's JSON files: every error names the file and the key.

Such a file may come from a stranger. So all of it is looked at before any of it is used: numbers
are finite and of a size, texts can be written out again, nothing nests without end.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, cast, get_args, get_origin

from edgepkd.config import from_mapping, quoted, type_hints
from edgepkd.errors import BundleError, ConfigError

SCHEMA_VERSION = 1
FOREIGN = "The bundle is damaged, or was written by another program."
DAMAGED = "The bundle is damaged or was changed; copy or build it again."

MAX_JSON_BYTES = 4 << 20
"""Of one JSON file: what is read from it may take forty times as much memory."""
MAX_DEPTH = 32
MAX_TEXT = 10_000
"""Characters of one text."""
MAX_VALUES = 500_000
MAX_INTEGER = 1 << 64
_MAX_DIGITS = 40


class _TooLong(str):
    """A number with so many digits that converting it would take its time."""


def parse_json(
    content: bytes, *, where: str, oldest: int | None = None, newest: int = SCHEMA_VERSION
) -> Mapping[str, Any]:
    """Top-level object of the JSON in `content`, of schema_version `oldest` (None: `newest`) to
    `newest`; `where` is the name of the file.

    Raises:
        BundleError: it is no such object, or holds what no such file needs; names `where` and the
            key.
    """
    require(len(content) <= MAX_JSON_BYTES, f"{where}: bytes", len(content),
            f"up to {MAX_JSON_BYTES}")

    try:
        value = json.loads(content.decode(), object_pairs_hook=_once, parse_int=_integer)
    except _Twice as error:
        raise BundleError(f"{where}: key {quoted(error.args[0])} is given twice; allowed: once.",
                          hint=FOREIGN) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} cannot be read as JSON: {error}.", hint=DAMAGED) from error
    _check_values(value, where=where)
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


class _Twice(ValueError):
    """A key that an object has twice: readers of JSON do not agree on which one counts."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _Twice(next(key for key, count in counts.items() if count > 1))
    return made


def _integer(digits: str) -> int | _TooLong:
    return int(digits) if len(digits) <= _MAX_DIGITS else _TooLong(digits)


def _check_values(value: Any, *, where: str) -> None:
    """Refuse what could not be written out again, or is too large or deep for its purpose."""
    # No recursion: it may be nested as deep as Python calls.
    above: list[Iterator[tuple[str, Any]]] = [iter([(where, value)])]
    num_values = 0
    while above:
        place, found = next(above[-1], (None, None))
        if place is None:
            above.pop()
            continue
        num_values += 1
        require(num_values <= MAX_VALUES, f"{where}: number of values", "larger",
                f"up to {MAX_VALUES}")
        if isinstance(found, _TooLong):
            require(False, place, found, f"a number of up to {_MAX_DIGITS} digits")
        elif isinstance(found, str):
            _check_text(place, found)
        elif isinstance(found, (int, float)):
            require(math.isfinite(found) if isinstance(found, float) else abs(found) <= MAX_INTEGER,
                    place, found, f"a finite number, an integer up to {MAX_INTEGER}")
        elif isinstance(found, (list, dict)):
            require(len(above) <= MAX_DEPTH, f"{place[:100]}…: depth", len(above),
                    f"up to {MAX_DEPTH}")
            above.append(_inner(place, found))


def _inner(place: str, found: list[Any] | dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(found, list):
        yield from ((f"{place}[{index}]", item) for index, item in enumerate(found))
        return
    mark = "." if ":" in place else ": "
    for key, item in found.items():
        _check_text(f"{place}: a key", key)
        yield f"{place}{mark}{key[:100]}", item


def _check_text(place: str, text: str) -> None:
    require(len(text) <= MAX_TEXT, f"{place}: length", len(text), f"up to {MAX_TEXT} characters")
    require(text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text), place, text,
            "text that can be written as UTF-8")


def require(condition: bool, key: str, got: object, allowed: object) -> None:
    """Raise BundleError, naming `key`, unless `condition` holds."""
    if not condition:
        raise BundleError(f"{key} is {quoted(got)}; allowed: {allowed}.", hint=FOREIGN)


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
    hints = type_hints(cls)
    checked = {key: plain(item, hints[key], where=f"{where}.{key}") if key in hints else item
               for key, item in values.items()}
    try:
        return from_mapping(cls, checked, where=where)
    except ConfigError as error:
        message = error.message
        raise BundleError(message if message.startswith(where) else f"{where}: {message}",
                          hint=FOREIGN) from error


def numbers(value: Any, *, where: str, least: float, most: float) -> tuple[float, ...]:
    """A JSON array of numbers in `least`..`most`."""
    read = tuple(typed(item, float, where=f"{where}[{index}]")
                 for index, item in enumerate(typed(value, list, where=where)))
    for index, number in enumerate(read):
        require(least <= number <= most, f"{where}[{index}]", number, f"{least:g}..{most:g}")
    return read
