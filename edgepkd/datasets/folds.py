"""Folds of training clips by whole groups, each with its share of every label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from edgepkd.config import check
from edgepkd.datasets.index import Fold, Sample
from edgepkd.errors import DataError

_ATTEMPTS = 20


def spread_folds(samples: Sequence[Sample], *, num_folds: int, seed: int) -> tuple[Fold, ...]:
    """Cut samples into folds by whole groups, so that each label is spread as groups allow.

    Groups go, the largest first and equal ones in an order drawn from `seed`, to the fold that has
    fewest clips of their labels. A group that alone has a label is in the fitted part of every
    fold, since networks that never saw the label cannot answer it: it is held out nowhere.

    Raises:
        DataError: fewer groups than folds can be held out, or a fold would miss a label.
    """
    check(num_folds >= 2, "num_folds", got=num_folds, allowed="2 or more")
    counts: dict[str, Counter[str]] = {}
    for sample in samples:
        counts.setdefault(sample.group, Counter())[sample.label] += 1
    spread = Counter(label for labels in counts.values() for label in labels)
    free = sorted(group for group, labels in counts.items() if all(spread[x] > 1 for x in labels))
    if len(free) < num_folds:
        lone = sorted(label for label, number in spread.items() if number < 2)
        of_one = f" ({', '.join(lone)}: one group only)" if lone else ""
        raise DataError(f"{len(free)} groups can be held out, for {num_folds} folds{of_one}; "
                        "allowed: as many groups as folds, each label in two groups or more.",
                        hint="Use fewer folds, name groups (`data prepare --group-pattern`), or"
                             " add groups.")
    for attempt in range(_ATTEMPTS):
        members = _dealt(free, counts, num_folds=num_folds, seed=(seed, attempt))
        if not any(_only_in(held_out, spread, counts) for held_out in members):
            return tuple(Fold(fit=tuple(s for s in samples if s.group not in held_out),
                              held_out=tuple(s for s in samples if s.group in held_out))
                         for held_out in members)
    missed = sorted(set().union(*(_only_in(held_out, spread, counts) for held_out in members)))
    raise DataError(f"no cut into {num_folds} folds leaves a clip of {', '.join(missed)} to train"
                    " on.", hint="Use more folds, or more groups.")


def _dealt(
    groups: Sequence[str], counts: dict[str, Counter[str]], *, num_folds: int,
    seed: tuple[int, int],
) -> list[set[str]]:
    """`groups` in `num_folds` parts."""
    names = list(groups)
    np.random.default_rng(seed).shuffle(names)
    if seed[1] == 0:  # the best cut as a rule; the others are for labels that it left whole
        names.sort(key=lambda group: -counts[group].total())
    members: list[set[str]] = [set() for _ in range(num_folds)]
    held = [Counter[str]() for _ in range(num_folds)]
    for name in names:
        part = min(range(num_folds), key=lambda i: (
            sum(held[i][label] * n for label, n in counts[name].items()), held[i].total()))
        members[part].add(name)
        held[part] += counts[name]
    return members


def _only_in(
    held_out: set[str], spread: Counter[str], counts: dict[str, Counter[str]]
) -> set[str]:
    """Labels all of whose groups are in `held_out`."""
    inside = Counter(label for group in held_out for label in counts[group])
    return {label for label, number in inside.items() if number == spread[label]}
