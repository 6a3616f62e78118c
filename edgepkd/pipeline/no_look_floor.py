"""The no-look floor of the clips that an index lists, as `eval` prints it beside its results.

A set of `data prepare` has it in prepare.json, measured on the files that the set was made of. Of
other indices it is measured here, on columns of the index if it has them, else on the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgepkd import plain_json
from edgepkd.datasets.hashes import sha256_of
from edgepkd.datasets.index import Sample
from edgepkd.datasets.no_look import NoLook, no_look
from edgepkd.datasets.prepared import SUMMARY
from edgepkd.datasets.table import read_table
from edgepkd.datasets.traits import COLUMNS, Value, as_row, probed_traits, row_of_index
from edgepkd.errors import MissingExtraError

MAX_PROBED = 300
"""Files that are opened at most; a few milliseconds each."""
_ENOUGH = frozenset({"width", "height", "frames"})
"""Columns of an index that make opening its files needless."""


def floor_of_index(
    index: Path, samples: Sequence[Sample]
) -> tuple[NoLook | None, tuple[str, ...]]:
    """The no-look floor of those of `samples` that are not for test, and why there is none.

    `samples` are listed in `index`; of more than MAX_PROBED files without columns, so many are
    drawn.
    """
    if (stored := _stored(index)) is not None:
        return stored, ()
    known = [s for s in samples if s.split != "test"]
    return measured(known, _rows(index, known))


def measured(
    samples: Sequence[Sample], rows: Sequence[Mapping[str, Value] | None]
) -> tuple[NoLook | None, tuple[str, ...]]:
    """The floor of `samples` from their traits; those without (None) are left out."""
    pairs = [(s, row) for s, row in zip(samples, rows, strict=True) if row]
    try:
        return no_look([row for _, row in pairs], [s.label for s, _ in pairs],
                       [s.group for s, _ in pairs]), ()
    except MissingExtraError as error:
        return None, (f"no no-look floor: {error.message} {error.hint}",)


def _stored(index: Path) -> NoLook | None:
    """What prepare.json beside the very index says."""
    try:
        told = plain_json.loads((index.parent / SUMMARY).read_text(encoding="utf-8"))
        if told["index_sha256"] != sha256_of(index) or not told["no_look"]:
            return None
        values = told["no_look"]
        return NoLook(**{**values, "traits": tuple(values["traits"]),
                         "telling": tuple(values["telling"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # of an older version, or by hand


def _rows(index: Path, samples: Sequence[Sample]) -> list[Mapping[str, Value] | None]:
    columns = {index.parent / row["path"]: row_of_index(row) for row in read_table(index).rows}
    rows = [columns.get(s.path, {}) for s in samples]
    if all(set(row) >= _ENOUGH for row in rows):
        return list(rows)
    chosen = np.random.default_rng(0).permutation(len(samples))[:MAX_PROBED]
    probed: list[Mapping[str, Value] | None] = [None] * len(samples)
    for number in chosen:
        traits = probed_traits(samples[number].path)
        probed[number] = dict(zip(COLUMNS, as_row(traits), strict=True)) if traits else None
    return probed
