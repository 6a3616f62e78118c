"""Batches of random views: a function of seed and epoch, whatever the number of processes.

Crop, flip, light and frames of a view come from a generator seeded with (seed, epoch, clip).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgepkd.children import start_safely
from edgepkd.config import InputSpec, SamplingRule
from edgepkd.training.cache import ClipArrays
from edgepkd.training.execution import check_batch, share
from edgepkd.training.recipe import AugmentRecipe
from edgepkd.training.views import random_view


@dataclass(frozen=True)
class LabelledClips:
    """Clips and their label indices."""

    clips: Sequence[ClipArrays]
    labels: Sequence[int]
    groups: Sequence[str] = ()
    """The group of each (a person, a recording); empty: not known."""

    def __len__(self) -> int:
        return len(self.clips)


@dataclass(frozen=True)
class ViewRule:
    """How a random view of a clip is drawn."""

    spec: InputSpec
    num_segments: int
    sampling: SamplingRule
    seed: int
    augment: AugmentRecipe = field(default=AugmentRecipe())

    def view(self, clip: ClipArrays, *, epoch: int, index: int) -> Tensor:
        """View of clip `index` in `epoch`: [passes, C, crop_px, crop_px]."""
        return random_view(clip, self.spec, num_segments=self.num_segments, rule=self.sampling,
                           seed=(self.seed, epoch, index), augment=self.augment)


def batch_indices(count: int, size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Random batches of equal size over `count` clips; the rest of an epoch is left out.

    Fewer clips than a batch make one small batch.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count).tolist()
    return [order[i : i + size] for i in range(0, max(1, count // size) * size, size)]


def load_epoch(
    data: LabelledClips, rule: ViewRule, *, epoch: int, batch_clips: int, workers: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's batches: views [clips, passes, C, crop_px, crop_px] and labels [clips].

    Raises:
        ConfigError: a batch is no multiple of the number of processes.
    """
    batches = batch_indices(len(data), batch_clips, seed=rule.seed, epoch=epoch)
    check_batch(len(batches[0]), name="the number of clips in a batch")
    start_safely()
    loader: DataLoader[tuple[Tensor, int]] = DataLoader(
        _Views(data, rule, epoch), batch_sampler=[share(batch) for batch in batches],
        num_workers=workers,
        generator=torch.Generator())  # else the loader draws from, and moves, the global one
    yield from loader


class _Views(Dataset[tuple[Tensor, int]]):
    def __init__(self, data: LabelledClips, rule: ViewRule, epoch: int) -> None:
        self._data, self._rule, self._epoch = data, rule, epoch

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        view = self._rule.view(self._data.clips[index], epoch=self._epoch, index=index)
        return view, self._data.labels[index]
