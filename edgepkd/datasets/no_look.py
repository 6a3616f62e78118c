"""How well labels are guessed without a look at the clips: a floor for every accuracy.

A decision tree of depth 3 sees traits of the files (`traits`), never a picture. It is fitted on
some groups of clips and asked about the others, in FOLDS folds, for several seeds. A network that
is not clearly better may have learned how the clips were made.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepkd._optional import require
from edgepkd.datasets.traits import Value

DEPTH, FOLDS, SEEDS = 3, 5, 10
MIN_CLIPS = 20
"""With fewer clips a tree says nothing."""
_TELLING = 0.15
"""Share of a tree's decisions from which a trait is named."""

Features = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NoLook:
    """Shares of clips, 0..1, whose label is guessed right without a look."""

    accuracy: float
    """By the tree, mean over seeds."""
    spread: float
    """Standard deviation over seeds."""
    largest_class: float
    """By naming the most frequent label always."""
    length: float | None
    """By a tree that sees the number of frames alone; None: not known."""
    group: float | None
    """By the most frequent label of the other clips of a clip's group; None: groups of one."""
    traits: tuple[str, ...]
    """What the tree was shown."""
    telling: tuple[str, ...]
    """What it decides by, the most telling first."""
    num_clips: int
    num_groups: int

    def in_words(self) -> str:
        """What was found, in one line."""
        parts = [f"largest class {_percent(self.largest_class)}"]
        if self.length is not None:
            parts.append(f"length alone {_percent(self.length)}")
        if self.group is not None and self.group > self.largest_class:
            parts.append(f"other clips of the group {_percent(self.group)}")
        by = f", most by {', '.join(self.telling)}" if self.telling else ""
        return (f"no-look floor {_percent(self.accuracy)} ± {100 * self.spread:.1f}: what a small "
                f"tree guesses right of {self.num_clips} clips from {len(self.traits)} traits of "
                f"the files{by}, on groups it was not fitted on ({'; '.join(parts)})")


HOW_TO_READ = ("an accuracy that is not clearly above the no-look floor may come from how the clips"
               " were made, not from what they show")


def no_look(
    rows: Sequence[Mapping[str, Value]], labels: Sequence[str], groups: Sequence[str]
) -> NoLook | None:
    """What traits give away: a mapping, a label and a group for each clip.

    Traits that are not known of all clips are left out. None: too few clips, groups or traits to
    say anything.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    known = [name for name in (rows[0] if rows else {}) if all(name in row for row in rows)]
    telling = [name for name in known if len({row[name] for row in rows}) > 1]
    if len(rows) < MIN_CLIPS or len(set(groups)) < 2 or len(set(labels)) < 2 or not known:
        return None
    require("sklearn", purpose="The no-look floor")
    truth = np.unique(np.asarray(labels), return_inverse=True)[1]
    features, names = _features(rows, telling)
    scores = _cross_validated(features, truth, groups)
    frames, _ = _features(rows, ["frames"] if "frames" in telling else [])
    length = float(np.mean(_cross_validated(frames, truth, groups))) if "frames" in known else None
    return NoLook(
        float(np.mean(scores)), float(np.std(scores)), max(Counter(labels).values()) / len(labels),
        length, _by_group(labels, groups), tuple(known), _telling(features, truth, names),
        len(rows), len(set(groups)))


def _features(
    rows: Sequence[Mapping[str, Value]], names: Sequence[str]
) -> tuple[Features, list[str]]:
    """[clips, columns], and the trait of each column: a number, or one column for each text."""
    columns: list[list[float]] = [[0.0] * len(rows)]
    of = [""]  # a tree needs a column, even where nothing differs
    for name in names:
        values = [row[name] for row in rows]
        if all(isinstance(value, (int, float)) for value in values):
            columns.append([float(value) for value in values])
            of.append(name)
            continue
        for text in sorted(set(map(str, values))):
            columns.append([float(str(value) == text) for value in values])
            of.append(name)
    return np.array(columns, np.float64).T, of


def _cross_validated(
    features: Features, truth: npt.NDArray[np.int64], groups: Sequence[str]
) -> list[float]:
    """Share of right answers on held-out groups, for each seed."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(FOLDS, len(set(groups)))
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer clips than folds
        for seed in range(SEEDS):
            cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
            right = 0
            for fitted, asked in cut.split(features, truth, groups):
                tree = _tree(seed).fit(features[fitted], truth[fitted])
                right += int((tree.predict(features[asked]) == truth[asked]).sum())
            scores.append(right / len(truth))
    return scores


def _tree(seed: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=DEPTH, random_state=seed)


def _telling(
    features: Features, truth: npt.NDArray[np.int64], names: Sequence[str]
) -> tuple[str, ...]:
    shares: dict[str, float] = defaultdict(float)
    for name, share in zip(names, _tree(0).fit(features, truth).feature_importances_, strict=True):
        shares[name] += float(share)
    named = sorted(((share, name) for name, share in shares.items() if share >= _TELLING),
                   reverse=True)
    return tuple(name for _, name in named)


def _by_group(labels: Sequence[str], groups: Sequence[str]) -> float | None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        counts[group][label] += 1
    right = asked = 0.0
    for label, group in zip(labels, groups, strict=True):
        others = counts[group] - Counter({label: 1})
        if others:
            best = [name for name, count in others.items() if count == max(others.values())]
            right, asked = right + (label in best) / len(best), asked + 1
    return right / asked if asked else None


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
