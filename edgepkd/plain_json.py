"""JSON as every program reads it: no NaN, no Infinity, nothing nested without end.

What is written has null in their place. What is read may come from anywhere: all that is wrong with
it is a ValueError, which whoever reads a file turns into an error of the product's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

MAX_DIGITS = 40
"""Of an integer: converting more takes time, and no count needs them."""


def dumps(
    values: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None
) -> str:
    """`values` as JSON, numbers that are not finite as null.

    Raises:
        TypeError: something is no plain value, and `default` does not make one of it.
    """
    try:
        return json.dumps(values, indent=indent, default=default, allow_nan=False)
    except ValueError:
        text = json.dumps(values, indent=indent, default=default)
        return json.dumps(json.loads(text, parse_constant=lambda _: None), indent=indent)


def loads(content: bytes | str) -> Any:
    """The value that JSON stands for.

    Raises:
        ValueError: it is no JSON in UTF-8, has a number that is not finite or has more than
            MAX_DIGITS digits, or is nested too deeply.
    """
    text = content if isinstance(content, str) else content.decode("utf-8")
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_float, parse_int=_int)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _float(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _refuse(text)


def _int(text: str) -> int:
    return int(text) if len(text) <= MAX_DIGITS else _refuse(text)


def _refuse(text: str) -> Any:
    shown = text if len(text) <= MAX_DIGITS else f"{text[:MAX_DIGITS]}…"
    raise ValueError(f"it holds the number {shown}, which is not finite or has too many digits")
