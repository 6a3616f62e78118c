"""Changed manifests and tables of the shipped bundle: each is read or refused, nothing else.

    python -m tests.bundle.json_fuzz FIRST COUNT

Prints how many were refused and read.
"""

from __future__ import annotations

import functools
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from edgepkd.bundle.manifest import check_tables, parse_manifest, parse_policy, parse_wise
from edgepkd.errors import BundleError
from edgepkd.runtime.model import DEMO_BUNDLE

PARSERS: Mapping[str, Callable[[bytes], Any]] = {
    "manifest.json": parse_manifest, "wise.json": parse_wise, "policy.json": parse_policy}
# Texts as they may stand in a file, valid JSON or not.
LITERALS = (
    "null", "true", "false", "0", "-0", "1", "-1", "2", "1.0", "0.5", "-0.0", "1e-400", "1e308",
    "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1" + "0" * 30, "1" + "0" * 400,
    "9" * 5000, "9223372036854775808", "2147483648", "65536", '""', '" "', '"\\u0000"',
    '"\\ud800"', '"\\u001b[2J"', '"' + "x" * 300 + '"', '"' + "x" * 20_000 + '"', '"../../x"',
    '"/etc/passwd"', '"mv"', '"audio"', "[]", "[[]]", "[null]", "[1,2,3]", "{}", '{"a":1}',
    '{"a":1,"a":2}', "[" * 50 + "]" * 50, "[" * 50_000, '{"a":' * 500 + "1" + "}" * 500,
    "[" + "0," * 5000 + "0]")


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    places = [path] if path else []
    inner = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, list) else ())
    for key, item in inner:
        places += _places(item, (*path, key))
    return places


def mutated(original: str, chance: random.Random) -> bytes:
    """The document with one to three changes to its values, keys or bytes."""
    if chance.random() < 0.2:
        return _bytes_changed(original.encode(), chance)
    values, literals = json.loads(original), []
    for _ in range(chance.randint(1, 3)):
        path = chance.choice(_places(values))
        holder = values
        for key in path[:-1]:
            holder = holder[key]
        kind = chance.randrange(10)
        if kind == 0:
            del holder[path[-1]]
        elif kind == 1 and isinstance(holder, list):
            holder.append(holder[path[-1]])
        elif kind == 1:
            holder[chance.choice(("x", "", path[-1] * 400, "\ud800"))] = holder[path[-1]]
        elif kind == 2:
            holder[path[-1]] = _other_number(holder[path[-1]], chance)
        else:
            holder[path[-1]] = f"\0{len(literals)}\0"
            literals.append(chance.choice(LITERALS))
    text = json.dumps(values)
    return re.sub(r'"\\u0000(\d+)\\u0000"', lambda found: literals[int(found[1])],
                  text).encode("utf-8", "surrogatepass")


def _other_number(value: Any, chance: random.Random) -> Any:
    if not isinstance(value, (int, float)):
        return chance.choice((value, [value], {"x": value}, str(value)))
    return chance.choice((value * 1000, -value, value + 1, value / 3, value * 1e30, int(value)))


def _bytes_changed(content: bytes, chance: random.Random) -> bytes:
    made = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(made))
        if chance.random() < 0.5:
            made[at] = chance.randrange(256)
        elif chance.random() < 0.5:
            del made[at : at + chance.randint(1, 20)]
        else:
            made[at:at] = bytes(made[at : at + chance.randint(1, 20)])
    return bytes(made)


def outcome(seed: int) -> str:
    """Read the mutation number `seed`: 'read' or 'refused'.

    Whatever is read can be written out again.
    """
    chance = random.Random(seed)
    name = chance.choice(tuple(PARSERS))
    content = mutated((DEMO_BUNDLE / name).read_text(), chance)
    try:
        parsed = {**_originals(), name: PARSERS[name](content)}
        check_tables(*parsed.values())
    except BundleError as error:
        refused = str(error)
    else:
        json.dumps([parsed["wise.json"], *parsed["manifest.json"].labels], allow_nan=False)
        json.dumps(parsed["manifest.json"].provenance, allow_nan=False).encode()
        return "read"
    assert name in refused, f"{seed}: {refused}"
    assert len(refused.encode()) < 2000, f"{seed}: {refused}"
    return "refused"


@functools.cache
def _originals() -> dict[str, Any]:
    return {name: parse((DEMO_BUNDLE / name).read_bytes()) for name, parse in PARSERS.items()}


def main(first: int, count: int) -> None:
    """Read the mutations `first` to `first` + `count`."""
    outcomes, slowest = Counter[str](), 0.0
    for seed in range(first, first + count):
        started = time.process_time()
        outcomes[outcome(seed)] += 1
        slowest = max(slowest, time.process_time() - started)
    print(f"{dict(outcomes)}, slowest {slowest:.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
