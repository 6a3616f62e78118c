"""Numbers of the studies as Markdown, where shares become % and differences points, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from edgepkd.logits.metrics import Interval


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}",
            *(f"| {' | '.join(row)} |" for row in rows)]


def listed(values: Sequence[object]) -> str:
    """`a, b, c`."""
    return ", ".join(map(str, values))


def share(found: Interval) -> str:
    """`81.2 [70.1, 90.3]`, in %."""
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def points(found: Interval) -> str:
    """`+1.2 [-0.3, +2.7]`, bold where the interval leaves out 0."""
    text = f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"**{text}**" if found.low > 0 or found.high < 0 else text


def holds(found: Interval, better: str, worse: str) -> str:
    """What the interval of a difference shows."""
    if found.low > 0:
        return better
    return worse if found.high < 0 else "no difference shown"


def plain_json(value: Any) -> Any:
    """What `json.dumps` cannot write by itself: intervals, and numbers of numpy."""
    if isinstance(value, Interval):
        return asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value))
