"""Tables of plain values, as in TOML, and the dataclasses that they become: types, changes, names.

A key is called by its path: `backbones.mv.epochs`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin

from edgepkd.config import check, from_mapping, type_hints
from edgepkd.errors import ConfigError

_T = TypeVar("_T")
_KINDS: dict[Any, tuple[type | tuple[type, ...], str]] = {
    int: (int, "a whole number"), float: ((int, float), "a number"), bool: (bool, "true, false"),
    str: (str, "text"), tuple: ((list, tuple), "a list of such values"),
    Mapping: (Mapping, "a table of keys and values"),
}
"""What values of a field may be, and how an error calls them."""


def refuse_unknown(
    values: Mapping[str, Any], cls: type, *, where: str, section: str = ""
) -> None:
    """Refuse keys that `cls` and the dataclasses in it do not have, at any depth.

    Raises:
        ConfigError: names them, those allowed beside them, and by its whole path what each is
            nearly called.
    """
    paths = list(key_paths(cls))
    prefix = f"{section}." if section else ""
    unknown = sorted(key for key in values if prefix + key not in paths)
    if unknown:
        beside = sorted(p.removeprefix(prefix) for p in paths
                        if p.startswith(prefix) and "." not in p.removeprefix(prefix))
        misses = [(prefix + key, near) for key in unknown
                  for near in difflib.get_close_matches(prefix + key, paths, n=1)]
        raise ConfigError(
            f"{where}{': ' if section else ''}{section}: key {', '.join(unknown)} is 'unknown'; "
            f"allowed: {', '.join(beside)}.",
            hint=" ".join(f"{path}: did you mean {near}?" for path, near in misses) or None)
    for key, value in values.items():
        is_table = any(path.startswith(f"{prefix}{key}.") for path in paths)
        if is_table and isinstance(value, Mapping):
            refuse_unknown(value, cls, where=where, section=prefix + key)


def key_paths(cls: type) -> Iterator[str]:
    """All keys of a dataclass and of those in it, by their paths; tables are among them.

    A field may be a mapping with named keys; metadata `table` is then the dataclass that has the
    keys of its plain tables.
    """
    for one in fields(cls):
        yield one.name
        hint = type_hints(cls)[one.name]
        inner = {one.name: hint}
        if get_origin(hint) is Mapping:
            names, held = get_args(hint)
            held = one.metadata.get("table", held)
            inner = {f"{one.name}.{name}": held for name in get_args(names)}
            yield from inner
        for path, table in inner.items():
            if is_dataclass(table):
                yield from (f"{path}.{key}" for key in key_paths(table))  # type: ignore[arg-type]


def with_changes(
    values: dict[str, Any], changes: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    """`values` of a recipe with single ones replaced: {"backbones.mv.epochs": 10}.

    Raises:
        ConfigError: a key below a plain value.
    """
    for path, value in changes.items():
        *tables, key = path.split(".")
        table = values
        for part in tables:
            table = table.setdefault(part, {})
            check(isinstance(table, dict), f"{where}: {path}", got="a key of a plain value",
                  allowed="a key of the recipe, such as backbones.mv.epochs")
        table[key] = value
        section = path.removesuffix(key)
        table.update(with_length(table, {c.removeprefix(section) for c in changes}))
    return values


def with_length(table: Mapping[str, Any], changed: Collection[str]) -> dict[str, Any]:
    """`table` of an OptimizerRecipe after some keys were changed: a length in steps replaces one in
    epochs, and the other way round."""
    for named, other in (("steps", "epochs"), ("epochs", "steps")):
        if named in changed and other not in changed and table.get(other):
            return {**table, other: 0}
    return dict(table)


def plain_table(value: Any, *, where: str) -> dict[str, Any]:
    """`value`, which must be a table.

    Raises:
        ConfigError: it is not.
    """
    check(isinstance(value, Mapping), where, got=value, allowed="a table of keys and values")
    return dict(value)


def typed_table(cls: type[_T], values: Any, *, where: str) -> _T:
    """Dataclass `cls` from a table, whose values have the types of its fields."""
    hints = type_hints(cls)
    values = plain_table(values, where=where)
    if "steps" in hints and values.get("steps") and "epochs" not in values:
        values = {**values, "epochs": 0}
    for key, value in values.items():
        hint = hints.get(key)
        if NoneType in get_args(hint):
            if value is None:
                continue
            hint = get_args(hint)[0]
        kind = get_origin(hint) or hint
        if kind not in _KINDS:
            continue
        fits = _fits(value, kind)
        if kind is tuple and fits and get_args(hint)[0] in _KINDS:
            fits = all(_fits(item, get_args(hint)[0]) for item in value)
        check(fits, f"{where}: {key}", got=value, allowed=_KINDS[kind][1])
    return from_mapping(cls, values, where=where)


def _fits(value: object, kind: Any) -> bool:
    return isinstance(value, _KINDS[kind][0]) and (kind is bool or not isinstance(value, bool))
