"""Whether a network takes the mirror image of one class for another one.

Where it does, mirror images as training views teach that the two classes are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray

from edgepkd.config import InputSpec, Modality
from edgepkd.logits.metrics import Accuracy
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.augment import Light
from edgepkd.training.backbone import last_exit_logits
from edgepkd.training.cache import ClipArrays
from edgepkd.training.health import FEWEST_CLIPS, MOST_CLIPS, spread
from edgepkd.training.loader import LabelledClips
from edgepkd.video.sampling import Place
from edgepkd.video.transforms import Geometry

Answers = NDArray[np.int64]
_LEVEL = 0.05
"""Of the sign test, over all pairs of classes together."""


@dataclass(frozen=True)
class MirrorAnswers:
    """Labels of clips, and the last exit's answers to them and to their mirror images: each [N]."""

    labels: Answers
    plain: Answers
    mirrored: Answers


@dataclass(frozen=True)
class Swapped:
    """Two classes that are each other's mirror image to the network."""

    labels: tuple[int, int]
    num_clips: int
    """Of both."""
    num_mirrored: int
    """Whose mirror image alone is answered with the other class."""
    num_plain: int
    """Which are answered with the other class, and their mirror image is not."""


class _Mirrored(ClipArrays):
    """A clip whose every view is its mirror image."""

    def tensor(
        self, modality: Modality, places: Sequence[Place], geometry: Geometry, *, crop_px: int,
        light: Light | None = None,
    ) -> NDArray[np.float32]:
        return super().tensor(modality, places, replace(geometry, flip=not geometry.flip),
                              crop_px=crop_px, light=light)


@torch.no_grad()
def mirror_answers(
    network: SegmentedNetwork, data: LabelledClips, *, spec: InputSpec
) -> MirrorAnswers:
    """What the last exit answers to the test views of up to MOST_CLIPS clips, mirrored or not."""
    network.eval()
    rows = spread(len(data), MOST_CLIPS)

    def answers(clips: Sequence[ClipArrays]) -> Answers:
        found: Answers = last_exit_logits(network, clips, spec=spec).argmax(dim=1).cpu().numpy()
        return found

    clips = [data.clips[row] for row in rows]
    return MirrorAnswers(np.array([data.labels[row] for row in rows], np.int64), answers(clips),
                         answers([mirrored(clip) for clip in clips]))


def mirrored(clip: ClipArrays) -> ClipArrays:
    """`clip` as a mirror shows it."""
    return _Mirrored(**{f.name: getattr(clip, f.name) for f in fields(clip)})


def swapped_classes(answers: MirrorAnswers) -> tuple[Swapped, ...]:
    """Pairs of classes that mirroring swaps, in both directions, significantly more than not.

    A sign test on the clips whose answer changes, at 5 % over all pairs (Bonferroni).
    """
    classes = sorted(set(answers.labels.tolist()))
    level = _LEVEL / max(1, comb(len(classes), 2))
    found = []
    for a, b in combinations(classes, 2):
        mine = np.isin(answers.labels, (a, b))
        other = np.where(answers.labels == a, b, a)
        mirrored_only = mine & (answers.mirrored == other) & (answers.plain != other)
        plain_only = mine & (answers.plain == other) & (answers.mirrored != other)
        both_ways = all((mirrored_only & (answers.labels == one)).any() for one in (a, b))
        pair = Swapped((a, b), int(mine.sum()), int(mirrored_only.sum()), int(plain_only.sum()))
        if both_ways and _sign_test(pair.num_mirrored, pair.num_plain) < level:
            found.append(pair)
    return tuple(found)


def _sign_test(more: int, less: int) -> float:
    """Probability of `more` or a larger share of `more + less` changes by chance."""
    count = more + less
    return float(sum(comb(count, k) for k in range(more, count + 1)) / 2**count)


def told_apart(answers: MirrorAnswers, a: int, b: int) -> Accuracy | None:
    """How often a clip that is answered with one of two classes, and is of one, is right.

    None: too few such clips to say.
    """
    pair = np.isin(answers.labels, (a, b)) & np.isin(answers.plain, (a, b))
    if pair.sum() < FEWEST_CLIPS:
        return None
    return Accuracy(int((answers.plain == answers.labels)[pair].sum()), int(pair.sum()))
