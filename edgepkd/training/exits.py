"""Trains the internal classifiers by Progressive Knowledge Distillation on frozen trunks.

A head is one affine map of M x M^T (see `models.heads`), and so the mean of its logits over
temporal segments is its answer to the mean of their M x M^T. That mean, for some random views of
each clip, is all that is needed: `features.py` keeps it on disk, the trunks run once, and heads
train in seconds. Online training, for augmentation studies, runs the trunks for fresh views in
every epoch. Views of one clip share crop, flip and light over all modalities, so that teacher and
student see the same thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from edgepkd.config import LATER, InputSpec, Modality, SamplingRule, check
from edgepkd.models.heads import (
    ClassifierHead,
    ICHead,
    PoolFirstHead,
    as_pool_first,
    windows_of,
)
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.cache import ClipArrays
from edgepkd.training.execution import Execution, check_batch, gather_rows, share, world_size
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import (
    Checkpoint,
    Log,
    mix_seed,
    refuse_nan,
    run_epochs,
    settle_selection,
)
from edgepkd.training.losses import class_weights, exit_loss
from edgepkd.training.optimizers import make_optimizer, set_learning_rate
from edgepkd.training.recipe import AugmentRecipe, ExitRecipe, LastTeacher, Scheme, TrainRecipe
from edgepkd.training.views import random_view, test_view

Teacher = Literal["mv", "residual", "iframe", "own", "labels"]


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one teacher."""

    teacher: Teacher | Literal["last"]
    """'last': what the recipe's `last_teacher` says."""
    until: float
    """Share of all epochs after which the next phase starts; see `teacher_at`."""


SCHEDULES: dict[Scheme, tuple[Phase, ...]] = {
    # paper.md 3.2: 50, 50 and 200 of 300 epochs
    "pkd": (Phase("mv", 1 / 6), Phase("residual", 1 / 3), Phase("last", 1)),
    "anticurriculum": (Phase("own", 1 / 3), Phase("residual", 2 / 3), Phase("mv", 1)),
    "iframe": (Phase("iframe", 1),),
    "ce": (Phase("labels", 1),),
}
"""Who teaches when."""


def teacher_at(
    scheme: Scheme, *, epoch: int, num_epochs: int, last_teacher: LastTeacher = "own",
    passed: float = 0.0,
) -> Teacher:
    """Teacher of `epoch` (from 0) of `num_epochs`; a hard switch, as in the reference.

    Every phase has an epoch at least. Where there are fewer epochs than phases, it switches inside
    them, by the share of this epoch's steps that have `passed`.
    """
    phases = SCHEDULES[scheme]
    if num_epochs < len(phases):
        place = (epoch + passed) / num_epochs
        phase = next((p for p in phases if place < p.until), phases[-1])
        return named_teacher(phase, last_teacher)
    return named_teacher(phase_at(scheme, number=epoch, of=num_epochs), last_teacher)


def phase_at(scheme: Scheme, *, number: int, of: int) -> Phase:
    """Phase of epoch or step `number` (from 0) of as many as `of`.

    Every phase has one where there are as many; where there are not, the last ones have.
    """
    phases = SCHEDULES[scheme]
    ends = (min(max(round(phase.until * of), i + 1), of - len(phases) + i + 1)
            for i, phase in enumerate(phases))
    return next((p for p, end in zip(phases, ends, strict=True) if number < end), phases[-1])


def teachers_of(scheme: Scheme, *, last_teacher: LastTeacher = "own") -> tuple[Teacher, ...]:
    """All that teach at some time, the first one first."""
    return tuple(named_teacher(phase, last_teacher) for phase in SCHEDULES[scheme])


def named_teacher(phase: Phase, last_teacher: LastTeacher) -> Teacher:
    """Who teaches in `phase`."""
    return last_teacher if phase.teacher == "last" else phase.teacher


@dataclass(frozen=True, eq=False)
class Views:
    """What a frozen network has to say to its heads about N views (all views of all clips)."""

    windows: tuple[Tensor, ...]
    """Exits 1..3: mean over passes of M x M^T, as `windows_of` it, each [N, 16, C * k * k]."""
    logits: Tensor
    """Exit 4, mean over passes: [N, classes]."""

    def __len__(self) -> int:
        return len(self.logits)


@dataclass(frozen=True)
class ViewPlan:
    """Which random views of a clip the exits of one network are trained on."""

    spec: InputSpec
    num_views: int
    num_segments: int
    rule: SamplingRule
    seed: int
    augment: AugmentRecipe = field(default=AugmentRecipe(), metadata=LATER)

    def view(self, clip: ClipArrays, *, index: int, view: int) -> Tensor:
        """View `view` of clip `index`: [passes, C, crop_px, crop_px].

        Crop, flip and light depend on seed, clip and view alone: they are the same for every
        modality.
        """
        return random_view(clip, self.spec, num_segments=self.num_segments, rule=self.rule,
                           seed=(self.seed, index, view), augment=self.augment)


def view_plan(recipe: TrainRecipe, modality: Modality) -> ViewPlan:
    """Views that the exits of one network are trained on."""
    return ViewPlan(recipe.inputs[modality], recipe.exits.num_views,
                    recipe.backbones[modality].train_segments, recipe.clip.sampling, recipe.seed,
                    recipe.augment)


def internal_classifiers(network: SegmentedNetwork) -> list[ICHead | PoolFirstHead]:
    """Exits 1..3."""
    return [head for head in network.heads if not isinstance(head, ClassifierHead)]


@torch.no_grad()
def view_features(network: SegmentedNetwork, views: Sequence[Tensor]) -> Views:
    """Run a frozen network over views, each [passes, C, H, W]."""
    device = next(network.parameters()).device
    frames = torch.cat(list(views)).to(device, memory_format=torch.channels_last)
    inputs = network.pooled_inputs(frames)
    rows = [*inputs[:-1], network.heads[-1].from_pooled(inputs[-1])]
    means = [row.view(len(views), -1, *row.shape[1:]).mean(dim=1) for row in rows]
    windows = [windows_of(mean, kernel=head.kernel)
               for mean, head in zip(means[:-1], internal_classifiers(network), strict=True)]
    return Views(tuple(windows), means[-1])


def iterate_views(
    network: SegmentedNetwork, clips: Sequence[ClipArrays], plan: ViewPlan
) -> Iterator[Views]:
    """Features of all views of one clip after the other."""
    network.eval()
    for index, clip in enumerate(clips):
        yield view_features(network, [
            plan.view(clip, index=index, view=view) for view in range(plan.num_views)
        ])


def collect_views(
    network: SegmentedNetwork, clips: Sequence[ClipArrays], plan: ViewPlan
) -> Views:
    """Features in memory; view v of clip i is row i * num_views + v."""
    parts = list(iterate_views(network, clips, plan))
    columns = zip(*(part.windows for part in parts), strict=True)
    return Views(tuple(torch.cat(column) for column in columns),
                 torch.cat([part.logits for part in parts]))


def label_rows(data: LabelledClips, *, num_views: int) -> Tensor:
    """Labels of the rows of `collect_views`: [clips * num_views]."""
    return torch.tensor(data.labels).repeat_interleave(num_views)


class FeatureSource(Protocol):
    """Where the heads' inputs and the teachers' logits come from."""

    @property
    def num_rows(self) -> int:
        """Views of all clips in one epoch."""

    def batch(
        self, rows: Tensor, *, epoch: int, teacher: Teacher
    ) -> tuple[Sequence[Tensor], Tensor | None]:
        """Inputs of exits 1..3 for `rows`, and the teacher's logits (None for labels)."""


@dataclass(frozen=True, eq=False)
class CachedFeatures:
    """The same views in every epoch, made once."""

    student: Views
    teachers: Mapping[Modality, Tensor]
    """Exit-4 logits [N, classes] of each teacher, rows as the student's."""

    @property
    def num_rows(self) -> int:
        """Views of all clips."""
        return len(self.student)

    def batch(
        self, rows: Tensor, *, epoch: int, teacher: Teacher
    ) -> tuple[Sequence[Tensor], Tensor | None]:
        """See FeatureSource; `epoch` makes no difference."""
        logits = None
        if teacher != "labels":
            logits = (self.student.logits if teacher == "own" else self.teachers[teacher])[rows]
        return [windows[rows] for windows in self.student.windows], logits


@dataclass(frozen=True, eq=False)
class OnlineFeatures:
    """Fresh views in every epoch: trunks run for each batch; only the teacher in use is asked.

    Views of epoch 0 are those of `CachedFeatures` with equal plans. With several ranks each runs
    its share of a batch, and all get all of it: heads then train the same everywhere.
    """

    modality: Modality
    networks: Mapping[Modality, SegmentedNetwork]
    plans: Mapping[Modality, ViewPlan]
    data: LabelledClips

    @property
    def num_rows(self) -> int:
        """Views of all clips in one epoch."""
        return len(self.data) * self.plans[self.modality].num_views

    def batch(
        self, rows: Tensor, *, epoch: int, teacher: Teacher
    ) -> tuple[Sequence[Tensor], Tensor | None]:
        """See FeatureSource."""
        mine = share(rows)
        student = self._features(self.modality, mine, epoch)
        logits = None
        if teacher == "own":
            logits = gather_rows(student.logits)
        elif teacher != "labels":
            logits = gather_rows(self._features(teacher, mine, epoch).logits)
        return [gather_rows(windows) for windows in student.windows], logits

    def _features(self, modality: Modality, rows: Tensor, epoch: int) -> Views:
        plan, views = self.plans[modality], []
        for row in rows.tolist():
            index, view = divmod(row, plan.num_views)
            views.append(plan.view(self.data.clips[index], index=index,
                                   view=epoch * plan.num_views + view))
        return view_features(self.networks[modality].eval(), views)


@dataclass(frozen=True, eq=False)
class CalibrationViews:
    """Test views of the calibration clips, as inputs of the heads."""

    windows: tuple[Tensor, ...]
    logits: Tensor
    """Exit 4, [clips, classes]."""
    labels: Tensor
    groups: Sequence[str] = ()

    @torch.no_grad()
    def exit_logits(self, network: SegmentedNetwork) -> Tensor:
        """Logits of exits 1..3 of `network`, whose trunk these came from: [clips, 3, classes]."""
        heads = [as_pool_first(h).eval() for h in internal_classifiers(network)]
        return torch.stack([head.from_windows(windows)
                            for head, windows in zip(heads, self.windows, strict=True)], dim=1)


@torch.no_grad()
def calibration_views(
    network: SegmentedNetwork, data: LabelledClips, *, spec: InputSpec
) -> CalibrationViews:
    """What exits 1..3 get for the test view of each clip."""
    network.eval()
    parts = [view_features(network, [test_view(clip, spec)]) for clip in data.clips]
    columns = zip(*(part.windows for part in parts), strict=True)
    return CalibrationViews(tuple(torch.cat(column) for column in columns),
                            torch.cat([part.logits for part in parts]),
                            torch.tensor(data.labels), data.groups)


def train_exits(
    network: SegmentedNetwork,
    features: FeatureSource,
    labels: Tensor,
    *,
    recipe: ExitRecipe,
    seed: int,
    calibration: CalibrationViews | None = None,
    execution: Execution | None = None,
    log: Log | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train exits 1..3 of `network` in place; trunk and last exit are frozen.

    `labels` is [num_rows]. Each head has its own optimiser; weights and biases train, and BatchNorm
    of the heads with them (paper.md 6.3). The losses are independent: a head's result does not
    depend on the others.

    Raises:
        TrainingError: a loss is not finite, or the checkpoint is of another run.
    """
    check(len(labels) == features.num_rows, "labels", got=len(labels),
          allowed=f"{features.num_rows}, one a row")
    check_batch(recipe.batch_views, name="batch_views")
    recipe = settle_selection(
        recipe.for_rows(features.num_rows), num_classes=network.spec.num_classes, log=log,
        labels=calibration.labels.tolist() if calibration else (),
        groups=calibration.groups if calibration else ())
    execution = execution or Execution()
    network.freeze_trunk()
    heads = nn.ModuleList(as_pool_first(h) for h in internal_classifiers(network))
    heads.to(execution.device)
    optimizers = [make_optimizer([(list(head.named_parameters()), 1.0)], recipe) for head in heads]

    weights = class_weights(labels.tolist(), num_classes=network.spec.num_classes,
                            rule=recipe.class_weights)

    def train_epoch(epoch: int) -> Mapping[str, float]:
        heads.train()
        return _train_epoch(heads, optimizers, features, labels, epoch=epoch, recipe=recipe,
                            weights=weights, seed=seed, execution=execution)

    run_epochs(heads, optimizers, recipe=recipe, train_epoch=train_epoch, log=log,
               evaluate=(lambda: _evaluate(heads, calibration)) if calibration else None,
               checkpoint=checkpoint)
    _settle_batch_norm(heads, features, recipe, execution)
    for own, head in zip(internal_classifiers(network), heads, strict=True):
        own.load_state_dict(head.cpu().state_dict())
    network.eval()


def _train_epoch(
    heads: nn.ModuleList, optimizers: Sequence[torch.optim.Optimizer], features: FeatureSource,
    labels: Tensor, *, epoch: int, recipe: ExitRecipe, weights: Tensor | None, seed: int,
    execution: Execution,
) -> dict[str, float]:
    batches = _row_batches(features.num_rows, recipe.batch_views, seed=mix_seed(seed, epoch))
    totals = np.zeros(len(heads))
    factor = 1.0
    for step, rows in enumerate(batches):
        teacher = teacher_at(recipe.scheme, epoch=epoch, num_epochs=recipe.epochs,
                             last_teacher=recipe.last_teacher, passed=step / len(batches))
        inputs, taught = features.batch(rows, epoch=epoch, teacher=teacher)
        for index, (head, optimizer) in enumerate(zip(heads, optimizers, strict=True)):
            factor = set_learning_rate(optimizer, recipe, step=epoch * len(batches) + step,
                                       steps_per_epoch=len(batches))
            loss = exit_loss(
                head.from_windows(inputs[index].to(execution.device)),  # type: ignore[operator]
                labels=labels[rows].to(execution.device),
                teacher=None if taught is None else taught.to(execution.device),
                temperature=recipe.temperature, label_share=recipe.label_share,
                teacher_temperature=recipe.teacher_temperature, weights=weights,
            )
            totals[index] += loss.item() / len(batches)
            refuse_nan(float(totals[index]), epoch=epoch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return {"loss": float(totals.mean()),
            **{f"loss_exit_{i + 1}": float(value) for i, value in enumerate(totals)},
            "learning_rate": factor * recipe.learning_rate}


def _row_batches(count: int, size: int, *, seed: int) -> list[Tensor]:
    """All rows in random order; of the last batch as many as the ranks can share equally."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    batches = list(torch.split(order, size))
    batches[-1] = batches[-1][: len(batches[-1]) // world_size() * world_size()]
    return [batch for batch in batches if len(batch) >= 2]  # BatchNorm needs two rows


@torch.no_grad()
def _evaluate(heads: nn.ModuleList, calibration: CalibrationViews) -> dict[str, float]:
    heads.eval()
    losses, values = [], {}
    for index, head in enumerate(heads):
        device = next(head.parameters()).device
        logits = head.from_windows(calibration.windows[index].to(device)).cpu()  # type: ignore[operator]
        losses.append(float(nn.functional.cross_entropy(logits, calibration.labels)))
        right = (logits.argmax(1) == calibration.labels).double().mean()
        values[f"accuracy_calibration_exit_{index + 1}"] = float(right)
    return {"loss_calibration": float(np.mean(losses)), **values}


@torch.no_grad()
def _settle_batch_norm(
    heads: nn.ModuleList, features: FeatureSource, recipe: ExitRecipe, execution: Execution
) -> None:
    """Set BatchNorm to the statistics of all views: running means lag behind short training."""
    sums: list[list[Tensor]] = [[] for _ in heads]
    shared = features.num_rows // world_size() * world_size()
    for rows in torch.split(torch.arange(shared), recipe.batch_views):
        inputs, _ = features.batch(rows, epoch=0, teacher="labels")
        for index, head in enumerate(heads):
            sums[index].append(head.cells(inputs[index].to(execution.device)))  # type: ignore[operator]
    for head, cells in zip(heads, sums, strict=True):
        together = torch.cat(cells)  # [N, C, 16, 1]
        head.bn.running_mean.copy_(together.mean(dim=(0, 2, 3)))  # type: ignore[union-attr,operator]
        head.bn.running_var.copy_(together.var(dim=(0, 2, 3)))  # type: ignore[union-attr,operator]
    heads.eval()
