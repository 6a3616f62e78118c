"""The loop over epochs that all training shares: log, selection, checkpoint, resume.

Nothing in an epoch depends on the epochs before but weights and optimiser state: every random
number comes from the seed and the epoch's number. So a run that was killed and resumed gives the
very weights of a run that was not.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from edgepkd import plain_json
from edgepkd.errors import TrainingError
from edgepkd.files import write_atomically
from edgepkd.training.execution import mean_over_ranks, rank, same_buffers
from edgepkd.training.optimizers import load_optimizer_tensors, optimizer_tensors
from edgepkd.training.recipe import OptimizerRecipe

SCHEMA_VERSION = 1
MIN_CALIBRATION_CLIPS, MIN_CALIBRATION_GROUPS = 50, 4
"""Fewer do not tell a good epoch from a lucky one."""

_Optimizing = TypeVar("_Optimizing", bound=OptimizerRecipe)


class Log(Protocol):
    """Where a training run says how it goes."""

    def event(self, kind: str, **values: Any) -> None:
        """Something happened."""

    def row(self, *, epoch: int, **values: float | int | str) -> None:
        """An epoch is over."""


class Silent:
    """A log that keeps nothing."""

    def event(self, kind: str, **values: Any) -> None:
        """Ignore it."""

    def row(self, *, epoch: int, **values: float | int | str) -> None:
        """Ignore it."""


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds all it takes to go on after a kill."""

    path: Path
    key: str
    """Hash of everything that the result depends on; see `hash_of`."""
    resume: bool = False
    every_epochs: int = 1


@dataclass
class Progress:
    """What is known after some epochs."""

    epochs_done: int = 0
    best_loss: float = math.inf
    best_epoch: int = -1
    best: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    """Of the last epoch, as they were logged."""


def hash_of(facts: Mapping[str, Any]) -> str:
    """SHA-256 of plain values."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def mix_seed(*parts: object) -> int:
    """A seed of 32 bits of its own for each combination of `parts`, the same in every run."""
    text = " ".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def settle_selection(
    recipe: _Optimizing, *, labels: Sequence[int], groups: Sequence[str], num_classes: int,
    log: Log | None = None,
) -> _Optimizing:
    """The same recipe with 'auto' replaced: which epoch the calibration clips can choose.

    'best' from MIN_CALIBRATION_CLIPS of MIN_CALIBRATION_GROUPS with every class among them, else
    'last'. `labels` and `groups` are those of the calibration clips; the choice is logged.
    """
    if recipe.select != "auto":
        return recipe
    enough = (len(labels) >= MIN_CALIBRATION_CLIPS and len(set(labels)) == num_classes
              and len(set(groups)) >= MIN_CALIBRATION_GROUPS)
    settled = replace(recipe, select="best" if enough else "last")
    if log:
        log.event("selection", select=settled.select, num_clips=len(labels),
                  num_groups=len(set(groups)), num_classes=len(set(labels)), of=num_classes)
    return settled


def run_epochs(
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    recipe: OptimizerRecipe,
    train_epoch: Callable[[int], Mapping[str, float]],
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    log: Log | None = None,
    checkpoint: Checkpoint | None = None,
    choose_by: str = "loss_calibration",
    start_counts: bool = False,
) -> None:
    """Train `module` in place for `recipe.epochs`, or until its `patience` is at an end.

    `train_epoch` trains one epoch and returns numbers to log, `loss` among them; `evaluate`
    measures on the calibration clips and must give `choose_by` where the recipe selects the best
    epoch, that with the lowest value. `start_counts`: no epoch at all is a choice, too.

    Raises:
        TrainingError: the best epoch is to be kept and there is no `evaluate`; a loss is not
            finite (the last checkpoint is kept), or the checkpoint to resume from is of another
            run.
        StorageError: the checkpoint cannot be written.
    """
    if recipe.select == "best" and evaluate is None:
        raise TrainingError("the recipe keeps the best epoch on the calibration split, and there "
                            "are no calibration clips.",
                            hint="Give the data a calibration split, or set select = 'last'.")
    log = log or Silent()
    progress = Progress()
    if checkpoint and checkpoint.resume and checkpoint.path.is_file():
        progress = _load(checkpoint, module, optimizers)
        log.event("resume", epochs_done=progress.epochs_done, values=progress.values)
    elif start_counts and evaluate and recipe.select == "best":
        _select(progress, module, recipe, evaluate(), -1, choose_by)
    for epoch in range(progress.epochs_done, recipe.epochs):
        if _is_over(progress, recipe):
            break
        start = time.perf_counter()
        values = {name: mean_over_ranks(v) for name, v in train_epoch(epoch).items()}
        refuse_nan(values["loss"], epoch=epoch)
        same_buffers(module)
        if evaluate:  # the mean: all ranks must choose, and stop, alike
            values.update({name: mean_over_ranks(v) for name, v in evaluate().items()})
        _select(progress, module, recipe, values, epoch, choose_by)
        progress.epochs_done = epoch + 1
        progress.values = {**values, "seconds": round(time.perf_counter() - start, 3)}
        log.row(epoch=epoch, **progress.values)
        last = progress.epochs_done == recipe.epochs or _is_over(progress, recipe)
        if checkpoint and (last or progress.epochs_done % checkpoint.every_epochs == 0):
            _save(checkpoint, module, optimizers, progress)
    if progress.epochs_done < recipe.epochs:
        log.event("stopped_early", epochs_done=progress.epochs_done, of=recipe.epochs)
    if recipe.select == "best" and progress.best:
        module.load_state_dict(progress.best)
        log.event("selected", epoch=progress.best_epoch, **{choose_by: progress.best_loss})


def _is_over(progress: Progress, recipe: OptimizerRecipe) -> bool:
    """Whether the loss on calibration clips has not fallen for `patience`."""
    if recipe.select != "best" or not recipe.patience or progress.best_epoch < 0:
        return False
    waited = progress.epochs_done - 1 - progress.best_epoch
    return waited >= max(1, math.ceil(recipe.patience * recipe.epochs))


def refuse_nan(loss: float, *, epoch: int) -> None:
    """Raise TrainingError unless `loss` is finite."""
    if not math.isfinite(loss):
        raise TrainingError(
            f"the training loss is {loss} in epoch {epoch + 1}; it must be finite.",
            hint="Lower the learning rate; checkpoints of earlier epochs are kept.")


def _select(
    progress: Progress, module: nn.Module, recipe: OptimizerRecipe, values: Mapping[str, float],
    epoch: int, choose_by: str,
) -> None:
    if recipe.select != "best":
        return
    if values[choose_by] < progress.best_loss:
        progress.best_loss, progress.best_epoch = values[choose_by], epoch
        progress.best = copy.deepcopy(dict(module.state_dict()))


def _save(
    checkpoint: Checkpoint, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer],
    progress: Progress,
) -> None:
    from safetensors.torch import save

    if rank() != 0:
        return
    tensors = {f"module.{k}": v for k, v in module.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in progress.best.items()}
    for i, optimizer in enumerate(optimizers):
        tensors |= {f"optimizer{i}.{k}": v for k, v in optimizer_tensors(optimizer).items()}
    facts = {"schema_version": SCHEMA_VERSION, "key": checkpoint.key,
             "epochs_done": progress.epochs_done, "best_epoch": progress.best_epoch,
             "best_loss": progress.best_loss if progress.best else None,
             "values": progress.values}
    # clone: a state may share memory (DistributedDataParallel's buffers), which the format refuses
    content = save({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()},
                   metadata={"facts": plain_json.dumps(facts)})
    write_atomically(checkpoint.path, content)


def _load(
    checkpoint: Checkpoint, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> Progress:
    facts, tensors = _read(checkpoint.path)
    if facts.get("key") != checkpoint.key:
        raise TrainingError(
            f"the checkpoint {checkpoint.path} is of a run with other settings or other data.",
            hint="Restore the settings, or train into another folder, or without --resume.")
    try:
        module.load_state_dict(_part(tensors, "module."))
        for i, optimizer in enumerate(optimizers):
            load_optimizer_tensors(optimizer, _part(tensors, f"optimizer{i}."))
        best_loss = facts["best_loss"]
        return Progress(facts["epochs_done"], math.inf if best_loss is None else best_loss,
                        facts["best_epoch"], _part(tensors, "best."), facts["values"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise _damaged(checkpoint.path, error) from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts = dict(plain_json.loads(file.metadata()["facts"]))
            return facts, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> TrainingError:
    return TrainingError(f"the checkpoint {path} is damaged: {error}.",
                         hint="Delete it, and start this step again.")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)}
