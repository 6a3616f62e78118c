"""`quantize`: from a trained run to one in INT8, by PTQ, QAT or QAD.

    >>> from pathlib import Path
    >>> for done in quantize(QuantizeConfig(run=Path("runs/a"), method="qad")):
    ...     print(done.modality, done.values["accuracy_calibration_exit_4"])
    mv ...
    residual ...
    iframe ...

Writes RUN/int8-METHOD/, which is a run's folder again, as `evaluate` and `wise fit` read it:

    run.json, skipped.csv    as of the float run; the index is that of the clips used here
    MODALITY.safetensors, MODALITY.json   networks with quantisers
    quantize.json            settings, clips, SHA-256 of the float networks, what stays float
    quantize-MODALITY/       log.jsonl, results.csv, plots, checkpoint
    sensitivity.json         on demand: what each layer alone loses
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from edgepkd._optional import require
from edgepkd.config import MODALITIES, Modality, facts_of
from edgepkd.datasets.index import Sample
from edgepkd.errors import DataError, ModelError, UsageError
from edgepkd.int8 import (
    SENSITIVITY_CLIPS,
    Int8Clips,
    Int8Recipe,
    QuantMethod,
    calibration_rows,
    finetune_plans,
    hash_of_clips,
    load_int8_recipe,
    sensitivity,
    spare_rows,
    to_int8,
)
from edgepkd.machine.conditions import versions
from edgepkd.models.checkpoint import load_network
from edgepkd.models.segmented import Networks, SegmentedNetwork
from edgepkd.outputs import check_folder
from edgepkd.pipeline.clips import (
    Clips,
    clips_of_run,
    decoded_clips,
    refuse_other_sides,
    splits_of_run,
)
from edgepkd.pipeline.quantize_config import QuantDone, QuantizeConfig
from edgepkd.pipeline.quantize_record import (
    SENSITIVITY_FILE,
    add_to_record,
    start_folder,
)
from edgepkd.pipeline.step_logs import (
    QUANTIZE_FILE,
    StepLog,
    kept_extra,
    refuse_quantized,
    step_logs,
)
from edgepkd.quantize.checkpoint import save_quantized
from edgepkd.quantize.fidelity import ExitFidelity, exit_fidelity
from edgepkd.quantize.network import float_layers
from edgepkd.quantize.sensitivity import MIN_SQNR_DB, LayerSensitivity, worth_float
from edgepkd.quantize.spec import AUTO
from edgepkd.text import command
from edgepkd.training.backbone import clip_logits
from edgepkd.training.exits import ViewPlan
from edgepkd.training.finetune import Judged, judged, judged_values, teachers_needed
from edgepkd.training.health import health_facts, health_of_network
from edgepkd.training.loop import Checkpoint, hash_of, mix_seed
from edgepkd.training.predict import weights_sha256
from edgepkd.training.runs import Run, read_run


def quantize(config: QuantizeConfig) -> Iterator[QuantDone]:
    """Quantise each network of a run; yields each when it is written.

    Raises:
        MissingExtraError: ModelOpt is not installed. UsageError: the run is quantised already, a
            result would be overwritten unasked, or several processes.
        DataError, ModelError, TrainingError, StorageError, ConfigError: see their modules.
    """
    require("modelopt", purpose="Quantising")
    if int(world := os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(f"quantising runs in one process, and there are {world}.",
                         hint="Start it without torchrun.")
    if config.threads:
        torch.set_num_threads(config.threads)
    job = _open(config)
    for modality in job.modalities:
        yield _quantize(config, job, modality)


# ---- the run, its networks and its clips


@dataclass(frozen=True)
class _Job:
    """What all networks of one call share."""

    run: Run
    """The quantised run."""
    modalities: tuple[Modality, ...]
    recipes: Mapping[Modality, Int8Recipe]
    networks: Networks
    """Float, on the CPU; teachers among them."""
    hashes: Mapping[Modality, str]
    clips: Clips
    chosen: tuple[Sample, ...]
    """Clips that set the ranges."""
    judging: tuple[Sample, ...]
    """Clips that INT8 is compared with FP32 on, and that QAD's epoch is chosen on."""

    @property
    def judged_on(self) -> str:
        """What kind of clips these are."""
        return "calibration" if self.clips.calibration else "training"


def _open(config: QuantizeConfig) -> _Job:
    """Everything that can be refused is refused here, before anything is written."""
    check_folder("--cache", config.cache)
    source = read_run(config.run)
    refuse_quantized(config.run)
    recipe = load_int8_recipe(config.recipe, config.all_changes)
    modalities = config.modalities or _modalities_of(source)
    recipes, networks = {}, {}
    for modality in modalities:
        networks[modality], extra = _float_network(source, modality)
        recipes[modality] = _as_the_exits_were_taught(recipe, extra, config.changes)
    for modality in modalities:
        for name in _asked(modality, recipes[modality], config.method):
            if name not in networks:
                networks[name], _ = _float_network(source, name)
    run, samples = _samples(config, source)
    seed, few = run.seed if config.seed is None else config.seed, config.force or config.force_few
    calibration_rows(len(splits_of_run(run, samples).train), recipe, seed=seed, force=few)
    run = replace(run, folder=config.out, seed=seed)
    clips = decoded_clips(run, samples, folder=config.cache, jobs=config.jobs,
                          limit_gb=config.cache_gb, console=config.console)
    rows = calibration_rows(len(clips.train), recipe, seed=seed, force=few)
    start_folder(replace(run, seed=source.seed), method=config.method, force=config.force)
    return _Job(run, modalities, recipes, networks,
                {m: weights_sha256(network) for m, network in networks.items()}, clips,
                tuple(clips.train[row] for row in rows),
                tuple(clips.calibration) or tuple(
                    clips.train[row] for row in spare_rows(len(clips.train), rows, recipe)))


def _modalities_of(run: Run) -> tuple[Modality, ...]:
    found = tuple(m for m in MODALITIES if run.network(m).with_suffix(".json").exists())
    if not found:
        raise DataError(f"{run.folder} has no network with all exits; looked for "
                        f"{', '.join(f'{m}.json' for m in MODALITIES)}.",
                        hint="Train them with `edgepkd train exits`.")
    return found


def _float_network(run: Run, modality: Modality) -> tuple[SegmentedNetwork, dict[str, Any]]:
    try:
        return load_network(run.network(modality))
    except ModelError as error:
        raise ModelError(f"the network of {modality} is needed and cannot be read: "
                         f"{error.message}",
                         hint="Train it with `edgepkd train exits`, in the same folder."
                         ) from error


def _as_the_exits_were_taught(
    recipe: Int8Recipe, extra: Mapping[str, Any], changes: Mapping[str, Any]
) -> Int8Recipe:
    """`recipe` with the schedule that the exits were trained by, unless `changes` name another."""
    taught = {"scheme": extra.get("method"), "last_teacher": extra.get("last_teacher")}
    kept = {name: value for name, value in taught.items()
            if value is not None and f"finetune.{name}" not in changes
            and name not in changes.get("finetune", {})}
    return replace(recipe, finetune=replace(recipe.finetune, **kept))


def _asked(modality: Modality, recipe: Int8Recipe, method: QuantMethod) -> tuple[Modality, ...]:
    """Float networks that a quantised one is made from: its own first, then its teachers."""
    if method == "ptq":
        return (modality,)
    return teachers_needed(modality, recipe.finetune_of(method))


def _samples(config: QuantizeConfig, run: Run) -> tuple[Run, tuple[Sample, ...]]:
    """The run with the clips to use."""
    clips = clips_of_run(run, config.data, config.dataset)
    if clips.index.resolve() != run.index.resolve():
        refuse_other_sides(clips.samples, run)
    recipe = replace(run.recipe, dataset=clips.dataset)
    return replace(run, index=clips.index, recipe=recipe), clips.samples


# ---- one network


def _quantize(config: QuantizeConfig, job: _Job, modality: Modality) -> QuantDone:
    start, run, recipe = time.perf_counter(), job.run, job.recipes[modality]
    seed = mix_seed(run.seed, modality, "quantize")
    plans = _plans(job, modality, config.method)
    facts = recipe.facts(config.method)
    key = hash_of({
        "step": f"int8-{config.method}", "seed": seed, "settings": facts,
        "networks": {m: job.hashes[m] for m in plans}, "plans": facts_of(plans),
        "input": facts_of(run.recipe.inputs[modality]), "trunk_rate": _rate(run, modality),
        "train": job.clips.keys(job.clips.train), "ranges": job.clips.keys(job.chosen),
        "calibration": job.clips.keys(job.clips.calibration),
    })
    path = run.network(modality)
    json_path = path.with_suffix(".json")
    kept = (None if config.force or not json_path.exists()
            else kept_extra(path, key, resume=config.resume))
    needed = config.sensitivity or not kept
    ranged = _as_int8(config, job, modality, plans, method="ptq") if needed else None
    layers = _sensitivity(job, modality, ranged) if config.sensitivity and ranged else ()

    def done(values: Mapping[str, Any], exits: Sequence[ExitFidelity]) -> QuantDone:
        return QuantDone(config.method, modality, json_path, kept is not None, values,
                         time.perf_counter() - start, layers, tuple(exits), job.judged_on,
                         advice=_advice(config, modality, recipe))

    if kept or ranged is None:
        values = kept or {}
        return done(values["values"], [ExitFidelity(**one) for one in values.get("exits", ())])
    judge = judged(job.networks[modality], job.clips.load(job.judging),
                   run.recipe.inputs[modality])
    network, numbers = _logged(config, job, ranged, plans, judge, key=key, facts=facts)
    exits = _compared(job, network, judge)
    _add_record(config, job, modality, network, facts, exits)
    save_quantized(network, path, spec=recipe.quantizer, extra={
        "key": key, "values": numbers, "seed": run.seed, "labels": run.labels,
        "method": config.method, "exits": [asdict(one) for one in exits],
        **health_facts(health_of_network(config.run / modality))})
    return done(numbers, exits)


def _plans(job: _Job, modality: Modality, method: QuantMethod) -> dict[Modality, ViewPlan]:
    """Views of the student and of its teachers."""
    recipe = replace(job.run.recipe, exits=job.run.recipe.exits_of(modality))
    return finetune_plans(recipe, _asked(modality, job.recipes[modality], method))


def _rate(run: Run, modality: Modality) -> float:
    return run.recipe.backbones[modality].learning_rate


def _logged(
    config: QuantizeConfig, job: _Job, ranged: SegmentedNetwork,
    plans: Mapping[Modality, ViewPlan], judge: Judged, *, key: str, facts: Mapping[str, Any],
) -> tuple[SegmentedNetwork, Mapping[str, Any]]:
    """The network by the method, made with all logs, and its last numbers."""
    modality = ranged.spec.modality
    steps = job.recipes[modality].finetune.for_clips(len(job.clips.train))
    epochs = 1 if config.method == "ptq" else steps.epochs
    with step_logs(job.run.step("quantize", modality), title=f"{config.method} {modality}",
                   epochs=epochs, resume=config.resume, tensorboard=config.tensorboard,
                   console=config.console) as log:
        log.event("start", step="quantize", modality=modality,
                  seed=mix_seed(job.run.seed, modality, "quantize"), key=key, **facts)
        network = _trained(config, job, ranged, plans, judge, key=key, log=log)
    return network, log.numbers.values


def _trained(
    config: QuantizeConfig, job: _Job, ranged: SegmentedNetwork,
    plans: Mapping[Modality, ViewPlan], judge: Judged, *, key: str, log: StepLog,
) -> SegmentedNetwork:
    """PTQ, and what the method does after it."""
    modality = ranged.spec.modality
    values = judged_values(ranged, judge, job.run.recipe.inputs[modality])
    if config.method == "ptq":
        log.row(epoch=0, **values)
        return ranged.cpu()
    log.event("calibrated", **values)
    folder = job.run.step("quantize", modality)
    return _as_int8(config, job, modality, plans, method=config.method, ranged=ranged, log=log,
                    judge=judge, execution=config.execution,
                    checkpoint=Checkpoint(folder / "checkpoint.safetensors", key,
                                          resume=config.resume))


def _as_int8(
    config: QuantizeConfig, job: _Job, modality: Modality, plans: Mapping[Modality, ViewPlan], *,
    method: QuantMethod, **training: Any,
) -> SegmentedNetwork:
    """The network by `method`; `training` as in `to_int8`."""
    used = (modality,) if method == "ptq" else tuple(plans)
    train = () if method == "ptq" else job.clips.train
    return to_int8(
        method, {m: job.networks[m].to(config.execution.device) for m in used},
        Int8Clips(job.clips.load(job.chosen).clips, job.clips.load(train), plans),
        modality=modality, recipe=job.recipes[modality], trunk_rate=_rate(job.run, modality),
        seed=mix_seed(job.run.seed, modality, "quantize"), **training)


# ---- what is known of it


def _advice(config: QuantizeConfig, modality: Modality, recipe: Int8Recipe) -> str:
    """The next command where an exit of `modality` fell: what was not tried yet, cheapest first."""
    more: list[str] = []
    if not recipe.quantizer.bias_correction:
        more = ["--set", "quantizer.bias_correction=true"]
    elif not recipe.quantizer.is_auto:
        more = ["--set", f"quantizer.keep_float={AUTO}"]
    method = "qad" if not more else config.method
    return command("edgepkd", "quantize", config.run, "--method", method, "--modality", modality,
                   *more, "--force")


def _compared(
    job: _Job, network: SegmentedNetwork, judge: Judged
) -> tuple[ExitFidelity, ...]:
    """Every exit of the finished network against FP32."""
    spec = job.run.recipe.inputs[network.spec.modality]
    answers = clip_logits(network, judge.clips.clips, spec=spec)
    return exit_fidelity(judge.reference, answers.cpu(), judge.clips.labels)


def _add_record(
    config: QuantizeConfig, job: _Job, modality: Modality, network: SegmentedNetwork,
    facts: Mapping[str, Any], exits: Sequence[ExitFidelity],
) -> None:
    add_to_record(job.run.folder / QUANTIZE_FILE, modality, {
        "recipe": config.recipe, "settings": facts, "seed": job.run.seed,
        **({"target": config.target} if config.target else {}),
        "calibration": {"num_clips": len(job.chosen),
                        "clips_sha256": hash_of_clips(job.clips.keys(job.chosen))},
        "against_fp32": {"clips": job.judged_on, "num_clips": len(job.judging),
                         "exits": [asdict(one) for one in exits]},
        "float_sha256": {m: job.hashes[m] for m in
                         _asked(modality, job.recipes[modality], config.method)},
        "weights_sha256": weights_sha256(network), "float_layers": list(float_layers(network)),
        "versions": versions(("torch", "numpy", "nvidia-modelopt")),
    }, head={"method": config.method})


def _sensitivity(
    job: _Job, modality: Modality, ranged: SegmentedNetwork
) -> tuple[LayerSensitivity, ...]:
    clips, spec = job.chosen[:SENSITIVITY_CLIPS], job.run.recipe.inputs[modality]
    layers = sensitivity(ranged, job.networks[modality], job.clips.load(clips).clips, spec=spec,
                         recipe=job.recipes[modality])
    add_to_record(job.run.folder / SENSITIVITY_FILE, modality, {
        "num_clips": len(clips), "num_frames": len(clips) * spec.num_passes,
        "clips_sha256": hash_of_clips(job.clips.keys(clips)), "float_sha256": job.hashes[modality],
        "quantizer": facts_of(job.recipes[modality].quantizer),
        "keep_float": list(worth_float(layers)), "layers": [asdict(one) for one in layers],
    }, head={"min_sqnr_db": MIN_SQNR_DB})
    return layers
