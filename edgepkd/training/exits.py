"""Trains the internal classifiers by Progressive Knowledge Distillation on frozen trunks.

A head is one affine map of M x M^T (design.md 4.3), and so the mean of its logits over temporal
segments is its answer to the mean of their M x M^T. That mean, for some random views of each clip,
is all that is kept (design.md 4.4): the trunks run once and heads train in seconds. Views of one
clip share crop and flip over all modalities, so that teacher and student see the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgepkd.config import NUM_EXITS, InputSpec, Modality, SamplingRule
from edgepkd.models.heads import PoolFirstHead, convert_head
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.backbone import LabelledClips
from edgepkd.training.cache import ClipArrays
from edgepkd.training.losses import exit_loss
from edgepkd.training.recipe import ExitRecipe, Scheme
from edgepkd.training.views import random_geometry, train_view

Teacher = Literal["mv", "residual", "iframe", "own", "labels"]


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one teacher."""

    teacher: Teacher
    until: float
    """Share of all epochs after which the next phase starts."""


SCHEDULES: dict[Scheme, tuple[Phase, ...]] = {
    # paper.md 3.2: 50, 50 and 200 of 300 epochs; the last teacher is the student's own exit 4 ...
    "pkd": (Phase("mv", 1 / 6), Phase("residual", 1 / 3), Phase("own", 1)),
    # ... in the code, and the I-frame network in the abstract.
    "pkd_iframe": (Phase("mv", 1 / 6), Phase("residual", 1 / 3), Phase("iframe", 1)),
    "anticurriculum": (Phase("own", 1 / 3), Phase("residual", 2 / 3), Phase("mv", 1)),
    "iframe": (Phase("iframe", 1),),
    "ce": (Phase("labels", 1),),
}
"""Who teaches when."""


def teacher_at(scheme: Scheme, *, epoch: int, num_epochs: int) -> Teacher:
    """Teacher of `epoch` (from 0) of `num_epochs`; a hard switch, as in the reference."""
    for phase in SCHEDULES[scheme]:
        if epoch < round(phase.until * num_epochs):
            return phase.teacher
    return SCHEDULES[scheme][-1].teacher


@dataclass(frozen=True, eq=False)
class Views:
    """What a frozen network has to say to its heads about N views (all views of all clips)."""

    pooled: tuple[Tensor, ...]
    """Exits 1..3: mean over segments of M x M^T, each [N, C, 4k, 4k]."""
    logits: Tensor
    """Exit 4, mean over segments: [N, classes]."""


@torch.no_grad()
def collect_views(
    network: SegmentedNetwork,
    clips: Sequence[ClipArrays],
    *,
    spec: InputSpec,
    num_views: int,
    num_segments: int,
    rule: SamplingRule,
    seed: int,
) -> Views:
    """Run the frozen trunk over `num_views` random views of each clip; view v of clip i is row
    i * num_views + v.
    """
    network.eval()
    rows: list[list[Tensor]] = []
    for index, clip in enumerate(clips):
        for view in range(num_views):
            rng = np.random.default_rng((seed, index, view))  # the same for every modality
            x = train_view(clip, spec, num_segments=num_segments, rule=rule,
                           geometry=random_geometry(rng), rng=rng)
            inputs = network.pooled_inputs(x)
            last = network.heads[-1].from_pooled(inputs[-1])
            rows.append([tensor.mean(dim=0) for tensor in (*inputs[:-1], last)])
    columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    return Views(pooled=tuple(columns[:-1]), logits=columns[-1])


def train_exits(
    network: SegmentedNetwork,
    views: Views,
    labels: Tensor,
    *,
    teachers: Mapping[Modality, Tensor],
    recipe: ExitRecipe,
    seed: int,
) -> None:
    """Train exits 1..3 of `network` in place; trunk and last exit are frozen.

    `labels` is [N], a teacher's logits are [N, classes], rows as in `views`. Each head has its own
    optimiser; weights and biases train, and BatchNorm of the heads with them (paper.md 6.3).
    """
    network.freeze_trunk()
    targets: dict[Teacher, Tensor | None] = {"own": views.logits, "labels": None}
    for modality, logits in teachers.items():
        targets[modality] = logits
    for index in range(NUM_EXITS - 1):
        segment = network.segments[index]
        torch.manual_seed(seed + index)
        head = convert_head(segment.head, PoolFirstHead)  # type: ignore[arg-type]
        _train_head(head, views.pooled[index], labels, targets=targets, recipe=recipe)
        segment.head.load_state_dict(head.state_dict())  # type: ignore[union-attr]
    network.eval()


def _train_head(
    head: PoolFirstHead, pooled: Tensor, labels: Tensor, *,
    targets: Mapping[Teacher, Tensor | None], recipe: ExitRecipe,
) -> None:
    head.train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate,
                                  weight_decay=recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs)
    for epoch in range(recipe.epochs):
        teacher = targets[teacher_at(recipe.scheme, epoch=epoch, num_epochs=recipe.epochs)]
        for rows in torch.split(torch.randperm(len(pooled)), recipe.batch_views):
            if len(rows) < 2:  # BatchNorm needs company
                continue
            loss = exit_loss(
                head.from_pooled(pooled[rows]), labels=labels[rows],
                teacher=None if teacher is None else teacher[rows],
                temperature=recipe.temperature, label_share=recipe.label_share,
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        scheduler.step()
    _settle_batch_norm(head, pooled)


@torch.no_grad()
def _settle_batch_norm(head: PoolFirstHead, pooled: Tensor) -> None:
    """Set BatchNorm to the statistics of all views: running means lag behind short training."""
    cells = head.conv(pooled)  # [N, C, 4, 4]
    assert isinstance(head.bn, nn.BatchNorm2d)
    assert head.bn.running_mean is not None
    assert head.bn.running_var is not None
    head.bn.running_mean.copy_(cells.mean(dim=(0, 2, 3)))
    head.bn.running_var.copy_(cells.var(dim=(0, 2, 3)))
    head.eval()


def label_rows(data: LabelledClips, *, num_views: int) -> Tensor:
    """Labels of the rows of `collect_views`: [clips * num_views]."""
    return torch.tensor(data.labels).repeat_interleave(num_views)
