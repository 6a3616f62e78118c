"""Does the motion network see its fields one by one, or stacked in one pass? Tried, not guessed.

Stacked fields cost a fraction and know the order of things: better where clips show one course of
events (two people meet, one pushes), worse where a motion repeats and may begin anywhere (walking,
waving) and clips are few. No count of clips tells which, so both forms are trained on folds of the
training groups and asked about the groups that they have not seen.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from edgepkd import plain_json
from edgepkd.cascade import Floats, Labels, softmax
from edgepkd.datasets.folds import spread_folds
from edgepkd.datasets.index import Sample
from edgepkd.errors import DataError
from edgepkd.files import write_atomically
from edgepkd.logits.metrics import label_losses, mean_and_error
from edgepkd.logits.policy import fit_temperature
from edgepkd.pipeline.clips import Clips
from edgepkd.pipeline.side_by_side import side_by_side
from edgepkd.pipeline.train_config import TrainConfig
from edgepkd.training.backbone import last_exit_logits, train_backbone
from edgepkd.training.execution import Execution, rank, world_size
from edgepkd.training.loop import mix_seed
from edgepkd.training.recipe import TrainRecipe

FORM_FILE = "motion-form.json"
NUM_FOLDS = 3
_LEAST_GROUPS = 4
"""With fewer, what is held out is chance."""


@dataclass(frozen=True)
class FormTried:
    """One form of the motion network on all clips, each held out once."""

    accuracy: float
    loss: float
    """Nats, at the temperature that suits it."""


@dataclass(frozen=True)
class FormChoice:
    """Which form is taken."""

    is_stacked: bool
    why: str
    """Evidence, or why there is none."""
    averaged: FormTried | None = None
    """None: not tried."""
    stacked: FormTried | None = None


def with_form(recipe: TrainRecipe, *, is_stacked: bool) -> TrainRecipe:
    """`recipe` with the form decided; a stacked network is trained on all that it sees at once."""
    spec, backbone = recipe.inputs["mv"], recipe.backbones["mv"]
    segments = spec.num_segments if is_stacked else backbone.train_segments
    return replace(
        recipe, choose_stack=False,
        inputs={**recipe.inputs, "mv": replace(spec, stack=is_stacked)},
        backbones={**recipe.backbones, "mv": replace(backbone, train_segments=segments)})


def processes_of(config: TrainConfig) -> int:
    """How many trials run at the same time: as many as clips are decoded by, one on a GPU."""
    alone = config.execution.on_gpu or config.threads is not None
    return 1 if alone else config.jobs


def formed(clips: Clips, config: TrainConfig) -> tuple[TrainRecipe, FormChoice]:
    """The run's recipe with the form decided, which RUN/motion-form.json tells too.

    Raises:
        as `choose_form`; StorageError: the file cannot be written.
    """
    if world_size() > 1:
        choice = FormChoice(False, "not tried in several processes of torchrun")
    else:
        choice = choose_form(clips, execution=config.execution,
                             processes=processes_of(config))
    if rank() == 0:
        write_atomically(clips.run.folder / FORM_FILE,
                         plain_json.dumps(asdict(choice), indent=1).encode() + b"\n")
    return with_form(clips.run.recipe, is_stacked=choice.is_stacked), choice


def choose_form(
    clips: Clips, *, execution: Execution, processes: int
) -> FormChoice:
    """Train both forms on each fold of the training groups; a choice of one bit on held-out ones.

    Stacked is taken, because it is the cheaper by far, unless averaged has the lower loss by more
    than one standard error over groups.

    Raises:
        TrainingError: a loss is not finite, or a process died.
    """
    if len({s.group for s in clips.train}) < _LEAST_GROUPS:
        return FormChoice(False, f"fewer than {_LEAST_GROUPS} groups to try it on")
    try:
        folds = spread_folds(clips.train, num_folds=NUM_FOLDS, seed=clips.run.seed)
    except DataError as error:
        return FormChoice(False, f"not tried: {error.message}")
    jobs = [(_answer, _Trial(number, is_stacked, clips, fold.fit, fold.held_out, execution))
            for number, fold in enumerate(folds) for is_stacked in (False, True)]
    answers = dict(side_by_side([jobs], processes=processes))
    held_out = [s for fold in folds for s in fold.held_out]
    labels = np.array([clips.run.labels.index(s.label) for s in held_out], np.int64)
    pooled = [np.concatenate([answers[number, is_stacked] for number in range(len(folds))])
              for is_stacked in (False, True)]
    return judge_forms(*pooled, labels=labels, groups=[s.group for s in held_out])


def judge_forms(
    averaged: Floats, stacked: Floats, *, labels: Labels, groups: Sequence[str]
) -> FormChoice:
    """The choice, by logits [N, classes] of both forms for held-out clips."""
    losses = [_losses(logits, labels) for logits in (averaged, stacked)]
    tried = [FormTried(float((logits.argmax(axis=1) == labels).mean()), float(loss.mean()))
             for logits, loss in zip((averaged, stacked), losses, strict=True)]
    more, error = mean_and_error(losses[1] - losses[0], groups)
    is_stacked = more <= error
    shown = [f"{100 * one.accuracy:.1f} %, loss {one.loss:.2f}" for one in tried]
    return FormChoice(
        is_stacked, f"on {len(labels)} held-out clips: averaged {shown[0]}; stacked {shown[1]};"
        f" difference {more:+.2f} ± {error:.2f}", *tried)


def _losses(logits: Floats, labels: Labels) -> Floats:
    return label_losses(softmax(logits, temperature=fit_temperature(logits, labels)), labels)


# ---- one trial, in a process of its own


@dataclass(frozen=True)
class _Trial:
    fold: int
    is_stacked: bool
    clips: Clips
    fit: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    execution: Execution


def _answer(trial: _Trial) -> tuple[tuple[int, bool], Floats]:
    """Which trial it was, and logits [held out, classes] of the last exit."""
    if multiprocessing.parent_process():  # one of several on this machine
        torch.set_num_threads(1)
    run, clips = trial.clips.run, trial.clips
    recipe = with_form(run.recipe, is_stacked=trial.is_stacked)
    spec = recipe.inputs["mv"]
    backbone = replace(recipe.backbones["mv"], select="last", min_epochs=1)
    network = train_backbone(
        clips.load(trial.fit), spec=spec, recipe=backbone, num_classes=len(run.labels),
        rule=recipe.clip.sampling, seed=mix_seed(run.seed, "form", trial.fold),
        augment=recipe.augment, execution=trial.execution)
    logits = last_exit_logits(network, clips.load(trial.held_out).clips, spec=spec)
    return (trial.fold, trial.is_stacked), logits.double().numpy()
