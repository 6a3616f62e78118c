"""`eval`: the networks of one training run on labelled clips, with everything they answer.

    >>> result = evaluate(EvalConfig(run=Path("runs/a"), split="calibration"))
    >>> print("all twelve exits:", result.evaluation.score("prefix", "iframe_4").top1)
    all twelve exits: ...

Reads RUN/run.json, the networks beside it and, if there, what `wise fit` wrote. Every evaluation
adds a line to RUN/eval-log.jsonl, so that looks at the test split can be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from edgepkd import plain_json
from edgepkd.cascade import Order, order_key, parse_order
from edgepkd.config import MODALITIES, Modality, check
from edgepkd.datasets.index import Sample
from edgepkd.datasets.no_look import NoLook
from edgepkd.errors import ModelError, UsageError
from edgepkd.files import write_atomically
from edgepkd.logits.clip_logits import ViewsProtocol, save_logits
from edgepkd.logits.evaluate import Evaluation, evaluate_logits
from edgepkd.logits.metrics import NUM_BINS, NUM_DRAWS, SEED
from edgepkd.logits.verdicts import chance
from edgepkd.machine.conditions import conditions
from edgepkd.outputs import check_folder, check_outputs
from edgepkd.pipeline.clips import Split, clips_in_splits, of_split, refuse_trained_on
from edgepkd.pipeline.eval_files import (
    CONFUSION_CSV,
    CONFUSION_PNG,
    EXITS_CSV,
    EXITS_PNG,
    Heading,
    draw_plots,
    write_tables,
)
from edgepkd.pipeline.eval_log import log_look
from edgepkd.pipeline.eval_notes import notes_on
from edgepkd.pipeline.flatness import Flatness, FlatnessConfig, measure_flatness
from edgepkd.pipeline.no_look_floor import floor_of_index
from edgepkd.pipeline.trained_run import TrainedRun, clip_gmac, open_run
from edgepkd.training.entries import DEFAULT_GB, check_limit, trim
from edgepkd.training.execution import Execution, auto_device
from edgepkd.training.predict import Predicted, predict, views_protocol

SCHEMA_VERSION = 1
METRICS_FILE, LOGITS_FILE = "metrics.json", "logits.npz"
FILES = (METRICS_FILE, LOGITS_FILE, EXITS_CSV, EXITS_PNG, CONFUSION_CSV, CONFUSION_PNG)
Views = Literal["centre", "10crop"]
CROPS: Mapping[Views, int] = {"centre": 1, "10crop": 10}

_CLIPS_BETWEEN_TRIMS = 50

OnProgress = Callable[[str, int, int], None]
"""What is going on, items done, items in all."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What to evaluate, on which clips, in which views."""

    run: Path
    """Folder of a training run."""
    data: Path | None = None
    """Folder with an index.csv, or the index; None: the one that the run was trained with."""
    dataset: str | None = None
    """Its rows with this value in column `dataset`; None: the run's, where `data` is None too."""
    split: Split = "test"
    views: Views = "centre"
    segments: Mapping[Modality, int] | None = None
    """Temporal segments of modalities that are to have others than in the recipe."""
    order: str | None = None
    """`mv,residual,iframe`; None: the recipe's, as far as there are networks."""
    out: Path | None = None
    """Folder for the results; None: RUN/eval/SPLIT-VIEWS, whose files are replaced."""
    force: bool = False
    """Replace results that are in `out` already."""
    cache: Path = Path("runs/cache")
    """Where decoded clips are kept."""
    cache_gb: float = DEFAULT_GB
    """Most that this folder may hold."""
    flatness: FlatnessConfig | None = None
    """None: not measured."""
    device: str = "cpu"
    """'auto': the GPU if there is one."""
    threads: int | None = None
    """Of PyTorch; None: its own choice."""

    def __post_init__(self) -> None:
        check(self.split in get_args(Split), "split", got=self.split,
              allowed=", ".join(get_args(Split)))
        check(self.views in CROPS, "views", got=self.views, allowed=", ".join(CROPS))
        for modality, count in (self.segments or {}).items():
            check(modality in MODALITIES, "segments", got=modality, allowed=", ".join(MODALITIES))
            check(count >= 1, f"segments of {modality}", got=count, allowed="1 or more")
        check_limit(self.cache_gb)
        check(self.threads is None or self.threads >= 1, "threads", got=self.threads,
              allowed="1 or more")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or self.run / "eval" / f"{self.split}-{self.views}"

    @property
    def files(self) -> tuple[Path, ...]:
        """What is written."""
        return tuple(self.folder / name for name in FILES)


@dataclass(frozen=True, eq=False)
class EvalResult:
    """What `eval` found, and the folder it wrote it to."""

    out: Path
    run: TrainedRun
    evaluation: Evaluation
    predicted: Predicted
    flatness: Mapping[Modality, Flatness]
    num_looks: int
    """How often this split was evaluated with this run, this time included."""
    floor: float
    """Share of the most frequent label: what a constant answer gets."""
    notes: tuple[str, ...]
    """What a reader of the numbers should know."""
    no_look: NoLook | None = None
    """How well labels of the clips that are not for test are guessed without a look."""

    @property
    def views(self) -> ViewsProtocol:
        """Which frames and crops were averaged."""
        return self.predicted.answered.views


def evaluate(config: EvalConfig, *, on_progress: OnProgress | None = None) -> EvalResult:
    """Evaluate a run and write metrics.json, two tables, two plots and the logits.

    Raises:
        DataError: the run or its data is incomplete, the split is empty or leaks, no clip can be
            read, or what was fitted belongs to other networks.
        ModelError: a network is damaged, or its logits are not finite.
        UsageError: an order or segments of a modality that the run has no network for; flatness
            of quantised networks.
        StorageError: the results cannot be written.
    """
    tell = on_progress or (lambda *_: None)
    check_folder("--cache", config.cache)
    check_outputs([("--out", path) for path in config.files], makes_folders=True,
                  force=config.force or config.out is None)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = auto_device() if config.device == "auto" else config.device
    run = open_run(config.run, device=Execution(device=device).device)
    if config.flatness and run.is_quantized:
        raise UsageError("flatness is asked for, and the networks are quantised: their loss is made"
                         " of steps and has no Hessian.",
                         hint=f"Measure it on the float run: {config.run.parent}.")
    order = _order(config, run)
    views = _views(config, run)
    clips = clips_in_splits(run.record, config.data, config.dataset)
    chosen = of_split(clips, config.split)
    if config.split != "train":
        refuse_trained_on(chosen, run.record)
    predicted = _predict(run, chosen, config=config, views=views, root=clips.index.parent,
                         tell=tell)
    num_looks = log_look(run, predicted.answered, index=clips.index)
    evaluation = evaluate_logits(predicted.answered, order=order, gmac=clip_gmac(run, views),
                                 fitted=run.fitted)
    flatness = _flatness(config, run, clips.samples, tell=tell)
    floor = chance(predicted.answered.labels)
    no_look, why_none = floor_of_index(clips.index, clips.samples)
    result = EvalResult(config.folder, run, evaluation, predicted, flatness, num_looks, floor,
                        (*notes_on(evaluation, predicted, run, num_looks=num_looks), *why_none),
                        no_look)
    return _write(result, config, index=clips.index)


def _order(config: EvalConfig, run: TrainedRun) -> Order:
    if config.order is None:
        listed = [*run.record.recipe.default_order, *run.networks]
        return tuple(m for m in dict.fromkeys(listed) if m in run.networks)
    order = parse_order(config.order)
    if absent := [m for m in order if m not in run.networks]:
        raise UsageError(f"order is {config.order!r}, and {config.run} has no network for "
                         f"{', '.join(absent)}; allowed: orders of {', '.join(run.networks)}.")
    return order


def _views(config: EvalConfig, run: TrainedRun) -> ViewsProtocol:
    if absent := [m for m in config.segments or {} if m not in run.networks]:
        raise UsageError(f"segments are given for {', '.join(absent)}; {config.run} has networks "
                         f"for {', '.join(run.networks)}.")
    inputs = run.record.recipe.inputs
    return views_protocol({m: inputs[m] for m in run.networks}, crops=CROPS[config.views],
                          segments=config.segments)


# ---- steps


def _predict(
    run: TrainedRun, samples: Sequence[Sample], *, config: EvalConfig, views: ViewsProtocol,
    root: Path, tell: OnProgress,
) -> Predicted:
    done = 0

    def on_clip() -> None:
        nonlocal done
        done += 1
        if done % _CLIPS_BETWEEN_TRIMS == 0 or done == len(samples):
            trim(config.cache, limit_gb=config.cache_gb)  # each clip is needed once
        tell("clips", done, len(samples))

    predicted = predict(run.networks, samples, spec=run.cache_spec, labels=run.record.labels,
                        views=views, split=config.split, folder=config.cache, root=root,
                        on_clip=on_clip)
    if predicted.answered.weights_sha256 != run.hashes:
        raise ModelError("a network changed while it was evaluated.", hint="Evaluate again.")
    return predicted


def _flatness(
    config: EvalConfig, run: TrainedRun, samples: Sequence[Sample], *, tell: OnProgress
) -> dict[Modality, Flatness]:
    measured: dict[Modality, Flatness] = {}
    if config.flatness is None:
        return measured
    for modality in run.networks:
        tell("flatness", len(measured), len(run.networks))
        measured[modality] = measure_flatness(run, modality, samples, config=config.flatness,
                                              cache=config.cache)
    tell("flatness", len(measured), len(run.networks))
    return measured


# ---- results


def _write(result: EvalResult, config: EvalConfig, *, index: Path) -> EvalResult:
    """Write all files; returns the result with the notes on what could not be drawn."""
    answered, out = result.predicted.answered, result.out
    heading = Heading(config.run.resolve().name, answered.split, str(answered.views))
    save_logits(answered, out / LOGITS_FILE)
    write_tables(out, result.evaluation, answered, heading=heading)
    undrawn = draw_plots(out, result.evaluation, answered, heading=heading, floor=result.floor)
    if undrawn:
        result = replace(result, notes=(*result.notes, undrawn))
    facts = {"schema_version": SCHEMA_VERSION, **evaluation_facts(result, config, index=index)}
    write_atomically(out / METRICS_FILE, plain_json.dumps(facts, indent=1).encode() + b"\n")
    return result


def read_facts(result: EvalResult) -> dict[str, Any]:
    """What metrics.json of a result holds, without its schema_version."""
    facts = plain_json.loads((result.out / METRICS_FILE).read_bytes())
    del facts["schema_version"]
    return dict(facts)


def evaluation_facts(result: EvalResult, config: EvalConfig, *, index: Path) -> dict[str, Any]:
    """Everything about an evaluation as plain JSON values: what metrics.json holds."""
    answered, evaluation, run = result.predicted.answered, result.evaluation, result.run
    return {
        "run": str(config.run),
        "data": {"index": str(index), "dataset": config.dataset or run.record.recipe.dataset,
                 "split": answered.split, "num_clips": len(answered),
                 "num_groups": len(set(answered.groups)), "labels": list(run.record.labels),
                 "floor": result.floor,
                 "no_look": asdict(result.no_look) if result.no_look else None,
                 "num_looks": result.num_looks,
                 "skipped": [asdict(clip) for clip in result.predicted.skipped]},
        "views": {"name": str(answered.views), **asdict(answered.views)},
        "order": order_key(evaluation.order),
        "networks": {m: {"backbone": n.spec.backbone, "width": n.spec.width,
                         "weights_sha256": run.hashes[m]} for m, n in run.networks.items()},
        "wise": "wise.json" if evaluation.order in run.fitted else "plain sums",
        "policy": "policy.json" if evaluation.order in run.fitted else None,
        "scores": [asdict(score) for score in evaluation.scores],
        "mean_exit": evaluation.mean_exit,
        "differences": [{"name": d.name, **asdict(d.of)} for d in evaluation.differences],
        "confusion": {"answers_of": evaluation.confusion_of, "rows": "true label",
                      "counts": evaluation.confusion.tolist()},
        "flatness": _flatness_facts(result, config),
        "definitions": {
            "interval": f"95 %: the widest of {NUM_DRAWS} draws of whole groups (seed {SEED}),"
                        " Student's t over groups, and clips as if independent",
            "ece": f"{NUM_BINS} bins of equal width", "nll": "nats",
            "gmac": "networks with pool-first heads, one clip, all views",
        },
        "notes": list(result.notes),
        "conditions": {**conditions(("torch", "numpy", "av")),
                       "device": _device_of(run), "threads": torch.get_num_threads(),
                       "run_seed": run.record.seed},
    }


def _device_of(run: TrainedRun) -> str:
    return str(next(next(iter(run.networks.values())).parameters()).device)


def _flatness_facts(result: EvalResult, config: EvalConfig) -> dict[str, Any] | None:
    if config.flatness is None:
        return None
    return {
        "split": "train", "settings": asdict(config.flatness),
        "views": {m: f"segments {result.run.record.recipe.inputs[m].num_segments}; 1 crop"
                  for m in result.flatness},
        "networks": {
            m: {"trace": {**asdict(f.trace), "per_parameter": f.trace.per_parameter},
                "sharpness": asdict(f.sharpness), "num_clips": f.num_clips, "seconds": f.seconds}
            for m, f in result.flatness.items()
        },
    }
