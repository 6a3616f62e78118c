"""Train, calibration and test by whole groups.

Calibration is what exits, temperatures and thresholds are chosen on; it is never trained on, and
it is cut out of the training side where an index does not name it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgepkd.config import check
from edgepkd.datasets.index import Sample, check_no_leak, labels_of
from edgepkd.errors import DataError

SPLITS = ("train", "calibration", "test")
SYNONYMS = {"val": "calibration", "valid": "calibration", "validation": "calibration"}


@dataclass(frozen=True)
class Shares:
    """How much goes where, if an index does not say."""

    test: float = 0.2
    """Of all clips."""
    calibration: float = 0.2
    """Of the clips that are not in test."""
    seed: int = 0

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


def split_three(samples: Sequence[Sample], *, shares: Shares | None = None) -> Splits:
    """Cut `samples` by the names of their splits; what has no name is drawn by whole groups.

    Raises:
        DataError: as `assign_splits` and `check_splits`.
    """
    named = assign_splits(samples, shares=shares)
    check_splits(named)
    return Splits(*(tuple(s for s in named if s.split == name) for name in SPLITS))


def assign_splits(
    samples: Sequence[Sample], *, shares: Shares | None = None
) -> tuple[Sample, ...]:
    """`samples` in their order, each in train, calibration or test.

    Names are kept (`val` counts as calibration). Without any, test is drawn from all; without
    calibration, that is drawn from train. Drawn are whole groups, so that each label comes as
    near to its share as groups allow; the same seed gives the same groups.

    Raises:
        DataError: an unknown name, names for some clips only, or too few groups to draw from.
    """
    shares = shares or Shares()
    named = [replace(s, split=SYNONYMS.get(s.split, s.split)) for s in samples]
    given = {s.split for s in named}
    unknown = sorted(given - {*SPLITS, ""})
    if unknown:
        raise DataError(f"split {', '.join(map(repr, unknown))} is unknown; allowed: "
                        f"{', '.join((*SPLITS, *SYNONYMS))}, or empty for all clips.")
    if "" in given and len(given) > 1:
        count = sum(not s.split for s in named)
        raise DataError(f"{count} of {len(named)} clips have no split, the others have one.",
                        hint="Name the split of every clip, or of none.")
    if given == {""}:
        named = _drawn(named, "", "test", share=shares.test, seed=shares.seed)
        named = [replace(s, split=s.split or "train") for s in named]
    if "calibration" not in given:
        named = _drawn(named, "train", "calibration", share=shares.calibration, seed=shares.seed)
    return tuple(named)


def check_splits(samples: Sequence[Sample]) -> None:
    """Refuse what cannot be trained and tested honestly.

    Raises:
        DataError: one class only, an empty split, a label that is never trained, or a group, file
            or content on two sides; names it.
    """
    parts = {name: [s for s in samples if s.split == name] for name in SPLITS}
    labels = labels_of(samples)
    if len(labels) < 2:
        raise DataError(f"the clips have {len(labels)} label ({', '.join(labels) or 'no clips'}); "
                        "allowed: 2 or more.", hint="Put each class in a folder of its own.")
    empty = [name for name, part in parts.items() if not part]
    if empty:
        raise DataError(f"split {', '.join(empty)} is empty; allowed: at least one clip in each of "
                        f"{', '.join(SPLITS)}.", hint="Change the shares, or add groups.")
    for name in ("calibration", "test"):
        never = sorted(set(labels_of(parts[name])) - set(labels_of(parts["train"])))
        if never:
            raise DataError(f"{name} labels without a training clip: {', '.join(never)}.",
                            hint="Add groups with these labels, or change the seed.")
    check_no_leak(parts)


def _drawn(
    samples: Sequence[Sample], source: str, target: str, *, share: float, seed: int
) -> list[Sample]:
    """Move about `share` of the clips in split `source`, in whole groups, to split `target`."""
    pool = [s for s in samples if s.split == source]
    groups = {s.group for s in pool}
    if len(groups) < 2:
        raise DataError(f"{len(groups)} group to draw {target} from; allowed: 2 or more, because "
                        "a group is never cut.", hint="Give clips of other people or recordings "
                        "other groups.")
    drawn = draw_groups(pool, share=share, seed=seed)
    return [replace(s, split=target) if s.split == source and s.group in drawn else s
            for s in samples]


def draw_groups(samples: Sequence[Sample], *, share: float, seed: int) -> set[str]:
    """Groups that hold about `share` of the clips of every label; at least one, never all.

    In an order drawn from `seed`, a group is taken if that brings the counts of the labels nearer
    to their shares.
    """
    counts: dict[str, Counter[str]] = {}
    for sample in samples:
        counts.setdefault(sample.group, Counter())[sample.label] += 1
    missing = {label: share * n for label, n in Counter(s.label for s in samples).items()}
    names = sorted(counts)
    np.random.default_rng(seed).shuffle(names)

    def change(name: str) -> float:
        return sum(abs(missing[label] - n) - abs(missing[label])
                   for label, n in counts[name].items())

    taken: set[str] = set()
    for name in names:
        if change(name) < 0 and len(taken) < len(names) - 1:
            taken.add(name)
            for label, n in counts[name].items():
                missing[label] -= n
    return taken or {min(names, key=change)}
