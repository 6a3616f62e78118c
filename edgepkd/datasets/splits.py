"""Train, calibration and test by whole groups.

Calibration is what epochs, weights and thresholds are chosen on; it is never trained on. Where an
index does not name it, it is drawn from the training side if that is large enough, else it stays
empty: folds of the training groups take its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgepkd.config import check
from edgepkd.datasets.index import Sample, check_no_leak, labels_of
from edgepkd.errors import DataError

SPLITS = ("train", "calibration", "test")
SYNONYMS = {"val": "calibration", "valid": "calibration", "validation": "calibration",
            "training": "train", "testing": "test"}
MIN_CLIPS = 200
"""Training clips from which calibration is drawn. Of fewer every one is needed for training, and
WISE weights and thresholds fitted on 20 clips of one person lost 5 to 11 points against plain
sums."""
MIN_GROUPS = 4
"""Groups of a drawn calibration part: fewer say little of groups that nobody has seen."""
MAX_OVER_SHARE = 1.5
"""A drawn calibration part may be larger than its share by this, because groups are not cut."""
_TWO_TEST_GROUPS_FROM = 6
"""Groups from which a drawn test part has two: an interval over groups needs them."""
_ORDERS = 12
"""Orders that the search for groups begins with."""
_MANY = 100_000
"""Groups times labels; with more, the first choice along one order is near enough."""
_MAX_SWAPS = 1_000_000
"""Numbers in one table of all swaps; with more groups than that single moves are near enough."""


@dataclass(frozen=True)
class Shares:
    """How much goes where, if an index does not say."""

    test: float = 0.2
    """Of all clips."""
    calibration: float = 0.2
    """Of the clips that are not in test."""
    seed: int = 0
    always: bool = False
    """Draw calibration from however few clips: for a set that is made to try things on."""

    def __post_init__(self) -> None:
        for name in ("test", "calibration"):
            check(0 < getattr(self, name) < 1, f"{name}_share", got=getattr(self, name),
                  allowed="0 < value < 1")
        check(self.seed >= 0, "seed", got=self.seed, allowed="0 or more")


@dataclass(frozen=True)
class Splits:
    """Samples in three parts that share no group, no file and no content."""

    train: tuple[Sample, ...]
    calibration: tuple[Sample, ...]
    test: tuple[Sample, ...]

    def parts(self) -> Mapping[str, tuple[Sample, ...]]:
        """The parts by name."""
        return {name: getattr(self, name) for name in SPLITS}


@dataclass(frozen=True)
class Drawn:
    """Samples in their splits, and how they came there."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...]
    """What was drawn, and why not; empty where the names of the splits were kept."""


def split_three(samples: Sequence[Sample], *, shares: Shares | None = None) -> Splits:
    """Cut `samples` by the names of their splits; what has no name is drawn by whole groups.

    The calibration part may be empty (`draw_splits`).

    Raises:
        DataError: as `assign_splits` and `check_splits`.
    """
    named = assign_splits(samples, shares=shares)
    check_splits(named)
    return Splits(*(tuple(s for s in named if s.split == name) for name in SPLITS))


def assign_splits(
    samples: Sequence[Sample], *, shares: Shares | None = None
) -> tuple[Sample, ...]:
    """`samples` in their order, each in train, calibration or test; as `draw_splits`.

    Raises:
        DataError: as `draw_splits`.
    """
    return draw_splits(samples, shares=shares).samples


def draw_splits(samples: Sequence[Sample], *, shares: Shares | None = None) -> Drawn:
    """`samples` in their order, each in train, calibration or test.

    Names are kept (`val` counts as calibration). Without any, test is drawn from all; without
    calibration, that is drawn from train, if that has MIN_CLIPS clips or more, and if a part of
    MIN_GROUPS groups with clips of every label is not much more than its share. Drawn are whole
    groups (`draw_groups`); the same seed gives the same ones.

    Raises:
        DataError: an unknown name, names for some clips only, or one group to draw test from.
    """
    shares = shares or Shares()
    named = _named(samples)
    given, notes = {s.split for s in named}, []
    if given == {""}:
        named = _with_test(named, shares)
        notes.append(f"test is drawn by whole groups (seed {shares.seed}): "
                     f"{_size([s for s in named if s.split == 'test'])}")
    if "calibration" not in given and "train" in {s.split for s in named}:
        named, note = _with_calibration(named, shares)
        notes.append(note)
    return Drawn(tuple(named), tuple(notes))


def _named(samples: Sequence[Sample]) -> list[Sample]:
    names = {s.split: s.split.lower() for s in samples}
    named = [replace(s, split=SYNONYMS.get(names[s.split], names[s.split])) for s in samples]
    given = {s.split for s in named}
    if unknown := sorted(name for name in names if SYNONYMS.get(names[name], names[name])
                         not in {*SPLITS, ""}):
        raise DataError(f"split {', '.join(map(repr, unknown))} is unknown; allowed: "
                        f"{', '.join((*SPLITS, *SYNONYMS))}, or empty for all clips.")
    if "" in given and len(given) > 1:
        count = sum(not s.split for s in named)
        raise DataError(f"{count} of {len(named)} clips have no split, the others have one.",
                        hint="Name the split of every clip, or of none.")
    return named


def _with_test(samples: Sequence[Sample], shares: Shares) -> list[Sample]:
    groups = {s.group for s in samples}
    if len(groups) < 2:
        raise DataError(f"{len(groups)} group to draw test from; allowed: 2 or more, because "
                        "a group is never cut.", hint="Give clips of other people or recordings "
                        "other groups.")
    drawn = draw_groups(samples, share=shares.test, seed=shares.seed,
                        min_groups=2 if len(groups) >= _TWO_TEST_GROUPS_FROM else 1)
    return [replace(s, split="test" if s.group in drawn else "train") for s in samples]


def _with_calibration(samples: Sequence[Sample], shares: Shares) -> tuple[list[Sample], str]:
    """Samples, some of train now in calibration, and a line on that; or none, and why not."""
    pool = [s for s in samples if s.split == "train"]
    if few := _too_few(pool, shares):
        return list(samples), _none_drawn(few)
    groups = draw_groups(pool, share=shares.calibration, seed=shares.seed,
                         min_groups=1 if shares.always else MIN_GROUPS)
    drawn = [s for s in pool if s.group in groups]
    if unfit := "" if shares.always else _unfit(pool, drawn, shares):
        return list(samples), _none_drawn(unfit)
    note = f"calibration is drawn by whole groups of train (seed {shares.seed}): {_size(drawn)}"
    return [replace(s, split="calibration") if s.split == "train" and s.group in groups else s
            for s in samples], note


def _none_drawn(why: str) -> str:
    return (f"no calibration part is drawn: {why}. After training, `edgepkd train folds RUN` "
            "answers each training clip by networks that have not seen its group, which stands "
            "in for it")


def _too_few(pool: Sequence[Sample], shares: Shares) -> str:
    groups, least = len({s.group for s in pool}), 2 if shares.always else MIN_GROUPS + 1
    if not shares.always and len(pool) < MIN_CLIPS:
        return (f"there are {len(pool)} training clips, and of fewer than {MIN_CLIPS} every one "
                "is needed for training")
    if groups < least:
        return f"the training clips are of {groups} groups, fewer than {least}"
    return ""


def _unfit(pool: Sequence[Sample], drawn: Sequence[Sample], shares: Shares) -> str:
    """Why `drawn`, the best there is, is no calibration part; empty if it is one."""
    missing = sorted(set(labels_of(pool)) - set(labels_of(drawn)))
    left = {s.group for s in pool} - {s.group for s in drawn}
    never = sorted(set(labels_of(pool)) - set(labels_of([s for s in pool if s.group in left])))
    if missing or never:
        return ("whole groups cannot give every class to both train and calibration "
                f"({', '.join(missing or never)})")
    most = MAX_OVER_SHARE * shares.calibration
    if len(drawn) > most * len(pool):
        return (f"the smallest part with every class and {MIN_GROUPS} groups would be "
                f"{len(drawn)} of {len(pool)} training clips, more than {most:.0%}")
    return ""


def check_splits(samples: Sequence[Sample]) -> None:
    """Refuse what cannot be trained and tested honestly; calibration may be empty.

    Raises:
        DataError: one class only, no clip to train or to test, a label that is never trained, or
            a group, file or content on two sides; names it.
    """
    parts = {name: [s for s in samples if s.split == name] for name in SPLITS}
    labels = labels_of(samples)
    if len(labels) < 2:
        raise DataError(f"the clips have {len(labels)} label ({', '.join(labels) or 'no clips'}); "
                        "allowed: 2 or more.", hint="Put each class in a folder of its own.")
    if empty := [name for name in ("train", "test") if not parts[name]]:
        raise DataError(f"split {', '.join(empty)} is empty; allowed: at least one clip in each of "
                        "train, test.", hint="Change the shares, or add groups.")
    for name in ("calibration", "test"):
        never = sorted(set(labels_of(parts[name])) - set(labels_of(parts["train"])))
        if never:
            raise DataError(f"{name} labels without a training clip: {', '.join(never)}.",
                            hint="Add groups with these labels, or change the seed.")
    check_no_leak(parts)


def splits_in_words(samples: Sequence[Sample]) -> str:
    """One line: clips, classes and groups of each split."""
    parts = ((name, [s for s in samples if s.split == name]) for name in SPLITS)
    return "; ".join(f"{name} {_size(part) if part else 'none'}" for name, part in parts)


def _size(samples: Sequence[Sample]) -> str:
    numbers = ((len(samples), "clip", "clips"), (len(labels_of(samples)), "class", "classes"),
               (len({s.group for s in samples}), "group", "groups"))
    clips, classes, groups = (f"{n} {one if n == 1 else more}" for n, one, more in numbers)
    return f"{clips} of {classes} in {groups}"


def absent_classes(samples: Sequence[Sample]) -> tuple[str, ...]:
    """A line for each part that has clips, and none of some class; names the classes."""
    lines = []
    for name, what in (("calibration", "what is chosen on that part is chosen without them"),
                       ("test", "no result says anything of them")):
        part = [s for s in samples if s.split == name]
        if part and (absent := sorted(set(labels_of(samples)) - set(labels_of(part)))):
            lines.append(f"no {name} clip of {', '.join(absent)}: {what}")
    return tuple(lines)


# ---- the search for groups

Counts = npt.NDArray[np.int64]
Costs = npt.NDArray[np.float64]


def draw_groups(
    samples: Sequence[Sample], *, share: float, seed: int, min_groups: int = 1
) -> set[str]:
    """Groups that hold about `share` of the clips of every label; at least one, never all.

    Sought are groups so that, the first counting most: no label is left without a clip, every
    label has a clip in them, they are `min_groups` or more, and the counts of the labels are near
    their shares. From some orders drawn from `seed`, groups are taken, given back and swapped as
    long as that helps.
    """
    names = sorted({s.group for s in samples})
    labels = labels_of(samples)
    rows = {name: row for row, name in enumerate(names)}
    columns = {label: column for column, label in enumerate(labels)}
    counts = np.zeros((len(names), len(labels)), np.int64)
    for sample in samples:
        counts[rows[sample.group], columns[sample.label]] += 1
    rng = np.random.default_rng(seed)
    best: tuple[float, list[str]] | None = None
    for _ in range(_ORDERS if counts.size <= _MANY else 1):
        order = rng.permutation(len(names))
        search = _Search(counts[order], share, min_groups, counts.sum(0))
        cost, taken = search.run()
        if best is None or cost < best[0] - 1e-9:
            best = cost, [names[row] for row in order[taken]]
    assert best is not None
    return set(best[1])


@dataclass(frozen=True)
class _Search:
    """Groups [G, L] of clips a label, and what is wanted of those that are taken."""

    counts: Counts
    share: float
    min_groups: int
    totals: Counts
    """Clips of each label, [L]."""

    def run(self) -> tuple[float, npt.NDArray[np.bool_]]:
        """The cost of the best choice found, and that choice: [G], True where taken."""
        taken = np.zeros(len(self.counts), np.bool_)
        sums, number, cost = np.zeros_like(self.counts[0]), 0, float("inf")
        for row, counts in enumerate(self.counts):  # greedy: what helps at once
            with_it = float(self._costs(sums + counts, np.int64(number + 1)))
            if with_it < cost:
                taken[row], cost = True, with_it
                sums, number = sums + counts, number + 1
        while self.counts.size <= _MANY:
            better, rows = self._best_step(taken)
            if better > cost - 1e-9:
                break
            taken[rows], cost = ~taken[rows], better
        return cost, taken

    def _best_step(self, taken: npt.NDArray[np.bool_]) -> tuple[float, list[int]]:
        """The lowest cost that one move or swap leads to, and the rows it changes."""
        sums, number = self.counts[taken].sum(0), int(taken.sum())
        signs = np.where(taken, -1, 1)
        moves = self._costs(sums + signs[:, None] * self.counts, number + signs)
        row = int(moves.argmin())
        best, rows = float(moves[row]), [row]
        inside, outside = np.flatnonzero(taken), np.flatnonzero(~taken)
        if 0 < inside.size * outside.size * self.counts.shape[1] <= _MAX_SWAPS:
            swapped = (sums - self.counts[inside])[:, None] + self.counts[outside][None]
            swaps = self._costs(swapped, np.full(swapped.shape[:2], number))
            one, other = np.unravel_index(int(swaps.argmin()), swaps.shape)
            if swaps[one, other] < best - 1e-9:
                best, rows = float(swaps[one, other]), [int(inside[one]), int(outside[other])]
        return best, rows

    def _costs(self, drawn: Counts, number: Counts | np.int64) -> Costs:
        """What `drawn` [..., L] clips of `number` [...] groups cost; each term outweighs the next.
        """
        totals = self.totals
        lost, missing = (drawn == totals).sum(-1), (drawn == 0).sum(-1)
        short = np.maximum(0, self.min_groups - number)
        distance = np.abs(drawn - self.share * totals).sum(-1) / totals.sum()
        costs = 1e7 * lost + 1e3 * missing + 10.0 * short + distance
        possible = (number > 0) & (number < len(self.counts))
        return np.asarray(np.where(possible, costs, np.inf), np.float64)
