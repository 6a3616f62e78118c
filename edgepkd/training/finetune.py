"""Trains a quantised network on, all of it, with a loss at every exit: QAD and QAT.

QAD keeps the distillation of the exits' training (`exits.SCHEDULES`), with teachers in FP32 and
phases counted in steps, so that few epochs have all of them. With z_k the student's logits at exit
k, t those of the step's teacher (its exit 4), f_k those of exit k of the FP32 network, and H(t, z)
`losses.distillation_loss`:

    loss = sum_k (1 - self_share) * H(t, z_k) + self_share * H(f_k, z_k)

Exit 4 is a teacher itself, and always taught by f_4, as in the schedule's last phase. QAT has the
labels' cross-entropy at every exit instead. Teacher and student see the same frames, crop and flip
as far as their modalities have them in common.

With `select = "best"` the epoch is kept, or the start, whose answers to `Judged` clips are closest
to those of the FP32 network: labels have no say in it.

The student is any network with four exits; nothing here knows how it is quantised. It stays in eval
mode: BatchNorm is folded by now, and dropout would only add noise to that of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgepkd.config import InputSpec, Modality, check
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.quantize.fidelity import divergence
from edgepkd.training.backbone import clip_logits
from edgepkd.training.cache import ClipArrays
from edgepkd.training.execution import Execution, world_size
from edgepkd.training.exits import Teacher, ViewPlan, named_teacher, phase_at, teachers_of
from edgepkd.training.loader import LabelledClips, batch_indices
from edgepkd.training.loop import (
    Checkpoint,
    Log,
    mix_seed,
    refuse_nan,
    run_epochs,
    settle_selection,
)
from edgepkd.training.losses import distillation_loss, exit_loss
from edgepkd.training.optimizers import make_optimizer, set_learning_rate
from edgepkd.training.recipe import FinetuneRecipe

KL = "kl_calibration"
"""Mean over clips and exits of the divergence from the FP32 network, nats."""
Taught = Mapping[Modality, Tensor]
"""What FP32 networks say about the views: `view_logits` of each."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Clips that tell how good a quantised network is; their test views set no range."""

    clips: LabelledClips
    reference: Tensor
    """What the FP32 network says: [clips, 4, classes]."""


def judged(network: SegmentedNetwork, clips: LabelledClips, spec: InputSpec) -> Judged:
    """`clips` with the answers of the FP32 `network`."""
    return Judged(clips, clip_logits(network, clips.clips, spec=spec).cpu())


def views_needed(plan: ViewPlan, recipe: FinetuneRecipe) -> int:
    """Views of each clip that the epochs go through; `recipe` has its length in epochs."""
    return min(plan.num_views, recipe.epochs)


def teachers_needed(modality: Modality, recipe: FinetuneRecipe) -> tuple[Modality, ...]:
    """FP32 networks whose logits `finetune` asks for; its own come first."""
    named = teachers_of(recipe.scheme, last_teacher=recipe.last_teacher)
    others = [m for m in named if m not in ("own", "labels")]
    return tuple(dict.fromkeys([modality, *others]))  # type: ignore[list-item]


def teacher_at_step(recipe: FinetuneRecipe, *, step: int, num_steps: int) -> Teacher:
    """Teacher of `step` (from 0) of `num_steps`, as in `phase_at`."""
    return named_teacher(phase_at(recipe.scheme, number=step, of=num_steps), recipe.last_teacher)


@torch.no_grad()
def view_logits(
    network: SegmentedNetwork, clips: Sequence[ClipArrays], plan: ViewPlan, *, num_views: int
) -> Tensor:
    """Logits of all exits, mean over segments: [clips, num_views, 4, classes]."""
    network.eval()
    device = next(network.parameters()).device
    return torch.stack([
        torch.stack([_clip_logits(network, [plan.view(clip, index=i, view=v)], device)[:, 0]
                     for v in range(num_views)])
        for i, clip in enumerate(clips)
    ]).cpu()


def finetune(
    student: SegmentedNetwork,
    data: LabelledClips,
    plan: ViewPlan,
    *,
    taught: Taught,
    recipe: FinetuneRecipe,
    trunk_rate: float,
    seed: int,
    judge: Judged | None = None,
    execution: Execution | None = None,
    log: Log | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train `student` in place; `judge` is what the epoch is chosen on, and what is logged.

    `taught` holds `view_logits` of the networks that `teachers_needed` names, with as many views as
    `views_needed` says (QAT needs none). `trunk_rate` is the rate that the trunk was trained at.

    Raises:
        ConfigError: logits of a teacher are missing or of other clips; several processes.
        TrainingError: a loss is not finite, or the checkpoint is of another run.
    """
    execution = execution or Execution()
    check(world_size() == 1, "processes", got=world_size(), allowed="1: fine-tuning is short")
    modality = student.spec.modality
    recipe = settle_selection(
        recipe.for_clips(len(data)), labels=judge.clips.labels if judge else (),
        groups=judge.clips.groups if judge else (), num_classes=student.spec.num_classes,
        log=log)
    num_views = views_needed(plan, recipe)
    if recipe.distils:
        for name in teachers_needed(modality, recipe):
            got = tuple(taught[name].shape[:2]) if name in taught else "none"
            check(got == (len(data), num_views), f"logits of {name}", got=got,
                  allowed=f"{(len(data), num_views)} (clips, views)")
    student.requires_grad_(True).eval().to(execution.device)
    optimizer = make_optimizer([(list(student.named_parameters()), trunk_rate)], recipe)

    def train_epoch(epoch: int) -> Mapping[str, float]:
        return _train_epoch(student, optimizer, data, plan, taught=taught, recipe=recipe,
                            epoch=epoch, seed=seed, num_views=num_views, execution=execution)

    evaluate = None if judge is None else partial(judged_values, student, judge, plan.spec)
    run_epochs(student, [optimizer], recipe=recipe, train_epoch=train_epoch, evaluate=evaluate,
               log=log, checkpoint=checkpoint, start_counts=True,
               choose_by=KL if recipe.distils else "loss_calibration")
    student.requires_grad_(False).cpu().eval()


def _train_epoch(
    student: SegmentedNetwork, optimizer: torch.optim.Optimizer, data: LabelledClips,
    plan: ViewPlan, *, taught: Taught, recipe: FinetuneRecipe, epoch: int, seed: int,
    num_views: int, execution: Execution,
) -> dict[str, float]:
    batches = batch_indices(len(data), recipe.batch_clips, seed=mix_seed(seed, epoch), epoch=epoch)
    view = epoch % num_views
    totals, factor = np.zeros(len(student.segments)), 1.0
    for step, rows in enumerate(batches, start=epoch * len(batches)):
        teacher = teacher_at_step(recipe, step=step, num_steps=recipe.epochs * len(batches))
        factor = set_learning_rate(optimizer, recipe, step=step, steps_per_epoch=len(batches))
        views = [plan.view(data.clips[i], index=i, view=view) for i in rows]
        logits = _clip_logits(student, views, execution.device)  # [4, batch, classes]
        losses = exit_losses(
            logits, labels=torch.tensor([data.labels[i] for i in rows], device=logits.device),
            own=_rows(taught, student.spec.modality, rows, view, logits.device)
            if recipe.self_share > 0 or teacher != "labels" else None,
            teacher=None if teacher in ("own", "labels")
            else _rows(taught, teacher, rows, view, logits.device)[-1],  # type: ignore[arg-type]
            by_labels=teacher == "labels", recipe=recipe)
        totals += losses.detach().cpu().numpy() / len(batches)
        refuse_nan(float(totals.sum()), epoch=epoch)
        optimizer.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {"loss": float(totals.mean()),
            **{f"loss_exit_{i + 1}": float(value) for i, value in enumerate(totals)},
            "learning_rate": factor * optimizer.param_groups[0]["peak"]}


def exit_losses(
    logits: Tensor, *, labels: Tensor, own: Tensor | None, teacher: Tensor | None,
    by_labels: bool, recipe: FinetuneRecipe,
) -> Tensor:
    """The loss of every exit, [4].

    `logits` [4, N, classes] of the student, `own` the same of the FP32 network, `teacher`
    [N, classes] the exit 4 that teaches exits 1..3 (None: the own one), `labels` [N].
    """
    losses = []
    for k in range(len(logits)):
        target = None
        if not by_labels:
            assert own is not None
            target = own[-1] if teacher is None or k == len(logits) - 1 else teacher
        loss = exit_loss(logits[k], teacher=target, labels=labels,
                         temperature=recipe.temperature, label_share=recipe.label_share,
                         teacher_temperature=recipe.teacher_temperature)
        if recipe.self_share > 0:
            assert own is not None
            mine = distillation_loss(logits[k], own[k], temperature=recipe.temperature,
                                     teacher_temperature=recipe.teacher_temperature)
            loss = (1 - recipe.self_share) * loss + recipe.self_share * mine
        losses.append(loss)
    return torch.stack(losses)


def _rows(
    taught: Taught, modality: Modality, rows: Sequence[int], view: int, device: torch.device
) -> Tensor:
    """Logits of one network for a batch: [4, batch, classes]."""
    return taught[modality][rows, view].transpose(0, 1).to(device)


def _clip_logits(
    network: SegmentedNetwork, views: Sequence[Tensor], device: torch.device | str
) -> Tensor:
    """Logits of all exits, mean over the segments of each view: [4, views, classes]."""
    frames = torch.cat(list(views)).to(device)
    return torch.stack([
        logits.view(len(views), -1, logits.shape[-1]).mean(dim=1) for logits in network(frames)
    ])


def judged_values(student: SegmentedNetwork, judge: Judged, spec: InputSpec) -> dict[str, float]:
    """Mean loss and accuracy of the exits, and their divergence from FP32: what an epoch logs."""
    logits = clip_logits(student, judge.clips.clips, spec=spec).cpu()  # [clips, 4, classes]
    labels = torch.tensor(judge.clips.labels)
    losses = [float(F.cross_entropy(logits[:, k], labels)) for k in range(logits.shape[1])]
    right = (logits.argmax(dim=-1) == labels[:, None]).double().mean(dim=0)
    return {KL: divergence(judge.reference, logits), "loss_calibration": float(np.mean(losses)),
            **{f"accuracy_calibration_exit_{k + 1}": float(value)
               for k, value in enumerate(right)}}
