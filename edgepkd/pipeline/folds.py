"""`train folds`: answers to training clips by networks that never saw their groups.

The training groups of a run are cut into k folds. For each, trunks and exits are trained by the
run's own recipe on the other folds, and answer the clips that were held out. WISE weights,
temperatures and thresholds can then be fitted on all training clips (`wise fit RUN`).

    RUN/folds/0/ …           a run's folder again, whose calibration split is what it holds out
    RUN/folds/0/logits.npz   its answers
    RUN/folds/logits.npz     the answers of all folds

    RUN/folds/0/int8-METHOD/, RUN/int8-METHOD/folds/logits.npz   the same after `quantize`
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path

from edgepkd import plain_json
from edgepkd.children import start_safely
from edgepkd.config import MODALITIES, Modality, check
from edgepkd.datasets.folds import spread_folds
from edgepkd.errors import DataError, TrainingError, UsageError
from edgepkd.logits.clip_logits import ClipLogits, load_logits, save_logits
from edgepkd.outputs import check_folder
from edgepkd.pipeline.clips import clips_in_splits
from edgepkd.pipeline.held_out import (
    FOLDS,
    LOGITS,
    answer_split,
    network_hashes,
    pooled_folds,
    read_folds,
)
from edgepkd.pipeline.quantize import quantize
from edgepkd.pipeline.quantize_config import QuantDone, QuantizeConfig
from edgepkd.pipeline.step_logs import refuse_quantized
from edgepkd.pipeline.train import teachers_of, train_all_exits, train_backbones
from edgepkd.pipeline.train_config import ExitsConfig, StepDone
from edgepkd.training.recipe import TrainRecipe
from edgepkd.training.runs import FoldOf, Run, read_run, write_run


@dataclass(frozen=True, kw_only=True)
class FoldsConfig(ExitsConfig):
    """`train folds` beyond ExitsConfig; recipe, data and seed are those of the run."""

    folds: int = 3
    processes: int = 1
    """Folds and networks that train at the same time, a thread each; 1: one after the other."""
    init: Path | None = None
    """As `train backbone --init`: what the run's own trunks started from."""
    key_map: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.folds >= 2, "folds", got=self.folds, allowed="2 or more")
        check(self.processes >= 1, "processes", got=self.processes, allowed="1 or more")


@dataclass(frozen=True)
class FoldsPlan:
    """What training the folds takes, before it begins."""

    num_folds: int
    clips: tuple[int, ...]
    """Held out by each fold."""
    missing: tuple[str, ...]
    """Labels that no fold holds out, because one group alone has them."""
    seconds: float | None
    """About what it takes, by the logs of the run's own training; None: they do not say."""


@dataclass(frozen=True)
class FoldsDone:
    """All folds have answered."""

    path: Path
    num_clips: int
    num_groups: int


def train_folds(config: FoldsConfig) -> Iterator[FoldsPlan | StepDone | FoldsDone]:
    """Train and answer each fold; yields what it will take, each network, and the pooled answers.

    Raises:
        UsageError: the run is quantised, a fold, or has folds of another cut; a result would be
            overwritten unasked. DataError, TrainingError, ModelError, StorageError: see their
            modules.
    """
    run, modalities = _run_of(config)
    samples = [s for s in clips_in_splits(run, None, None).samples if s.split == "train"]
    cut = spread_folds(samples, num_folds=config.folds, seed=run.seed)
    folders = _start(run, config)
    held_out = {s.label for fold in cut for s in fold.held_out}
    yield FoldsPlan(config.folds, tuple(len(fold.held_out) for fold in cut),
                    tuple(sorted({s.label for s in samples} - held_out)),
                    _seconds(run, modalities, config))
    yield from _trained([replace(config, run=folder, modalities=modalities, data=None, recipe=None,
                                 seed=None) for folder in folders], config)
    parts = [_answered(folder, config.cache) for folder in folders]
    yield _pooled(run.folder, parts, seed=run.seed)


def quantize_folds(config: QuantizeConfig) -> Iterator[QuantDone | FoldsDone]:
    """Quantise the folds of the run as the run was, and pool their answers beside its networks.

    Yields nothing where the run has no folds, or other clips than its own were named.

    Raises:
        as `quantize`; DataError: the folds are of another recipe or of other clips.
    """
    if config.data is not None or read_folds(config.run) is None:
        return
    folders = fold_folders(config.run)
    for folder in folders:
        yield from quantize(replace(config, run=folder, sensitivity=False, force_few=True))
    parts = [_answered(folder / config.out.name, config.cache) for folder in folders]
    yield _pooled(config.out, parts, seed=read_run(config.run).seed)


def fold_folders(folder: Path) -> tuple[Path, ...]:
    """Runs of the folds of the run in `folder`, in their order."""
    found = (folder / FOLDS).iterdir() if (folder / FOLDS).is_dir() else ()
    return tuple(sorted((path for path in found if path.name.isdecimal()),
                        key=lambda path: int(path.name)))


# ---- the run and its folds


def _run_of(config: FoldsConfig) -> tuple[Run, tuple[Modality, ...]]:
    """The run whose folds are trained, and the networks that it has."""
    refuse_quantized(config.run)
    check_folder("--cache", config.cache)
    check_folder("--features", config.features.folder)
    run = read_run(config.run)
    if run.fold:
        raise UsageError(f"{config.run} is a fold itself.",
                         hint=f"Name the run that it is of: {config.run.parent.parent}.")
    if int(world := os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(f"folds are trained in one process, and there are {world}.",
                         hint="Start it without torchrun; --processes trains several at a time.")
    there = network_hashes(config.run)
    modalities = tuple(m for m in config.modalities if m in there)
    if not modalities:
        raise DataError(f"{config.run} has no network with all exits that folds could be of.",
                        hint=f"Train them first: edgepkd train exits {config.run}")
    return run, modalities


def _start(run: Run, config: FoldsConfig) -> tuple[Path, ...]:
    """Write the run.json of every fold."""
    folders = tuple(run.folder / FOLDS / str(i) for i in range(config.folds))
    there = fold_folders(run.folder)
    if there and not (config.resume or config.force):
        raise UsageError(f"{run.folder / FOLDS} exists.",
                         hint="Give --resume to keep what is there, --force to replace it.")
    if set(there) - set(folders) or (there and not config.force and any(
            read_run(path).fold != _fold(run, i, config) for i, path in enumerate(there))):
        raise UsageError(f"{run.folder / FOLDS} holds another cut than {config.folds} folds.",
                         hint="Give the number that it was begun with, or delete it.")
    for i, folder in enumerate(folders):
        write_run(replace(run, folder=folder, recipe=_without_choice(run.recipe),
                          fold=_fold(run, i, config)))
    return folders


def _fold(run: Run, index: int, config: FoldsConfig) -> FoldOf:
    return FoldOf(index, config.folds, run.seed)


def _without_choice(recipe: TrainRecipe) -> TrainRecipe:
    """`recipe` with the last epoch kept: a fold has no clips to choose one on."""
    return replace(
        recipe, exits=replace(recipe.exits, select="last"),
        backbones={m: replace(one, select="last") for m, one in recipe.backbones.items()},
        exit_changes={m: {name: value for name, value in changes.items() if name != "select"}
                      for m, changes in recipe.exit_changes.items()})


def _seconds(run: Run, modalities: Sequence[Modality], config: FoldsConfig) -> float | None:
    """k times the run's own training on (k - 1) / k of its clips, shared by the processes."""
    own = [_took(run.step(step, m) / "log.jsonl", path.with_name(f"{path.name}.json"))
           for m in modalities
           for step, path in (("backbone", run.trunk(m)), ("exits", run.network(m)))]
    known = [seconds for seconds in own if seconds is not None]
    return (config.folds - 1) * sum(known) / config.processes if len(known) == len(own) else None


def _took(log: Path, written: Path) -> float | None:
    """Seconds from the last start in `log` to when the network was `written`."""
    try:
        lines = [plain_json.loads(line) for line in log.read_text("utf-8").splitlines()]
        starts = [line["time"] for line in lines if line["kind"] == "start"]
        seconds = written.stat().st_mtime - datetime.fromisoformat(starts[-1]).timestamp()
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return max(0.0, seconds)


# ---- training

Job = tuple[Callable[[FoldsConfig], list[StepDone]], FoldsConfig]


def _trained(folds: Sequence[FoldsConfig], config: FoldsConfig) -> Iterator[StepDone]:
    """Trunks, one job a network, then exits, one job a fold."""
    stages: tuple[list[Job], ...] = (
        [(_backbones, replace(fold, modalities=(m,))) for fold in folds
         for m in _with_teachers(read_run(fold.run).recipe, fold.modalities)],
        [(_exits, fold) for fold in folds])
    if config.processes == 1:
        for function, fold in (job for jobs in stages for job in jobs):
            yield from function(fold)
        return
    start_safely()
    with ProcessPoolExecutor(config.processes, mp_context=get_context("spawn")) as pool:
        for jobs in stages:
            yield from _side_by_side(pool, jobs)


def _with_teachers(
    recipe: TrainRecipe, modalities: Sequence[Modality]
) -> tuple[Modality, ...]:
    """Networks whose trunks are needed: `modalities`, and those that teach their exits."""
    needed = {*modalities}.union(*(teachers_of(recipe.exits_of(m)) for m in modalities))
    return tuple(m for m in MODALITIES if m in needed)


def _side_by_side(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> Iterator[StepDone]:
    """Run `jobs`, with a thread and no console each; the first error stops them all."""
    waiting = [pool.submit(function, replace(fold, console=None, threads=1, jobs=1))
               for function, fold in jobs]
    try:
        for future in as_completed(waiting):
            yield from future.result()
    except BrokenProcessPool as error:
        raise TrainingError("a process died (a crash, or no memory left).", hint="Start it again"
                            " with --resume and fewer --processes.") from error
    finally:
        for future in waiting:
            future.cancel()


def _backbones(config: FoldsConfig) -> list[StepDone]:
    return list(train_backbones(config, init=config.init, key_map=dict(config.key_map) or None))


def _exits(config: FoldsConfig) -> list[StepDone]:
    return list(train_all_exits(config))


# ---- answers


def _answered(folder: Path, cache: Path) -> ClipLogits:
    """What the networks in `folder` say to the clips that the fold holds out; kept there."""
    path = folder / LOGITS
    if path.exists():
        kept = load_logits(path)
        if kept.weights_sha256 == network_hashes(folder):
            return kept
    answered = answer_split(folder, cache=cache)
    save_logits(answered, path)
    return answered


def _pooled(folder: Path, parts: Sequence[ClipLogits], *, seed: int) -> FoldsDone:
    answered = pooled_folds(folder, parts, seed=seed)
    path = folder / FOLDS / LOGITS
    save_logits(answered, path)
    return FoldsDone(path, len(answered), len(set(answered.groups)))
