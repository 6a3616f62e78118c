"""Numbers of the studies for people, shares in % and differences in points, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgepkd import plain_json
from edgepkd.files import write_together
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


def times(
    steps: Mapping[str, Sequence[float]], titles: Mapping[str, str], *, least_s: float = 0.0
) -> list[list[str]]:
    """Rows of step, median and most of its seconds; what took less than `least_s` is left out."""
    ran = {step: [value for value in values if value >= least_s] for step, values in steps.items()}
    return [[titles.get(step, step), f"{np.median(values):.0f}", f"{max(values):.0f}"]
            for step, values in ran.items() if values]


def write_report(
    folder: Path, name: str, *, document: Mapping[str, Any], lines: Sequence[str]
) -> None:
    """Write NAME.json with the numbers and NAME.md with what they say into `folder`.

    Raises:
        StorageError: a file cannot be written.
    """
    text = plain_json.dumps(document, indent=1, default=as_plain) + "\n"
    write_together(folder, {f"{name}.json": text.encode(),
                            f"{name}.md": ("\n".join(lines) + "\n").encode()})


def as_plain(value: Any) -> Any:
    """What `json.dumps` cannot write by itself: intervals, and numbers of numpy."""
    if isinstance(value, Interval):
        return asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value))
