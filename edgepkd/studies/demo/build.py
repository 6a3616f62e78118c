"""Rebuilds one demo bundle: data, backbones, exits, INT8, WISE, policy, ONNX, model card.

    python -m edgepkd.studies.demo --set weizmann --data ../shared/data --out runs/demo

Reads the recipe `calibration/demo-SET.toml`; writes OUT/demo-SET.edgepkd, and on the way
OUT/demo-SET/ (checkpoints, logits) and runs/cache (decoded clips). Networks become INT8 by the
recipe `calibration/int8.toml`; all that is fitted, is fitted on the answers of the INT8 segments.
Started again, it keeps the networks that are there already. Progress goes to stderr, the final
table to stdout.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch.backends.cpu import get_cpu_capability

from edgepkd.bundle.manifest import SUFFIX
from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Floats, Labels, Order
from edgepkd.children import start_safely
from edgepkd.config import MODALITIES, Modality
from edgepkd.datasets.index import (
    Sample,
    check_no_leak,
    group_folds,
    labels_of,
    read_index,
    split_samples,
)
from edgepkd.deploy.answers import DEPLOYED, FAKE_QUANT, FP32
from edgepkd.deploy.bundle import Deployment, write
from edgepkd.deploy.parity import check_agreement, compare, parity_facts, refuse_drift
from edgepkd.deploy.segments import export_segments
from edgepkd.engines.targets import load_target
from edgepkd.errors import EdgepkdError
from edgepkd.int8 import Int8Recipe, load_int8_recipe
from edgepkd.logits.fit import fit_deployed
from edgepkd.logits.fit_files import Fitted
from edgepkd.logits.report import Report, answer, format_report, pool, report_of
from edgepkd.logits.wise import all_orders
from edgepkd.machine.conditions import conditions
from edgepkd.models.macs import clip_gmac
from edgepkd.studies.demo.answers import (
    answer_job,
    float_networks,
    int8_networks,
    quantize_job,
    read_answers,
)
from edgepkd.studies.demo.card import CardFacts, model_card
from edgepkd.studies.parts import Part, backbone_job, exits_job
from edgepkd.text import shown
from edgepkd.training.cache import cache_spec, cached_clip
from edgepkd.training.recipe import TrainRecipe, load_train_recipe

FINAL = "final"


@dataclass(frozen=True)
class Workshop:
    """Where a run works, and how."""

    data: Path
    """Folder that the recipe's index is in."""
    out: Path
    cache: Path
    jobs: int
    """Processes, one thread each."""
    int8: Int8Recipe
    """How networks are quantised."""
    allow_drift: bool
    console: Console


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    name = options.name if options.name.endswith(".toml") else f"demo-{options.name}"
    try:
        recipe = load_train_recipe(name)
        shop = Workshop(options.data, options.out, options.cache, options.jobs,
                        load_int8_recipe(options.int8), options.allow_drift, console)
        if options.folds_only:
            print(format_report(cross_fit(recipe, shop)))
            return 0
        bundle, report = build(recipe, shop)
    except EdgepkdError as error:
        console.print(f"error: {shown(str(error))}", style="red", markup=False)
        return error.exit_code
    print(format_report(report))
    console.print(f"bundle: {bundle.path}", markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edgepkd.studies.demo",
                                     description="Rebuild a demo bundle.")
    add = parser.add_argument
    add("--set", required=True, dest="name",
        help="recipe demo-SET of calibration/, or the path of a .toml file")
    add("--data", type=Path, default=Path("../shared/data"), help="folder with labelled clips")
    add("--out", type=Path, default=Path("runs/demo"), help="where results go")
    add("--cache", type=Path, default=Path("runs/cache"), help="where decoded clips are kept")
    add("--jobs", type=int, default=2, help="processes, one thread each")
    add("--int8", default="int8", help="recipe of calibration/ to quantise by, or a .toml file")
    add("--allow-drift", action="store_true",
        help="write the bundle although INT8 exits answer differently; the manifest says so")
    add("--folds-only", action="store_true",
        help="stop after cross-fitting, to choose settings by; no test clip is looked at")
    return parser


def cross_fit(recipe: TrainRecipe, shop: Workshop) -> Report:
    """Train and answer all folds; returns the report on the held-out training clips.

    Raises:
        as `build`.
    """
    train, test = _samples(recipe, shop)
    parts = _parts(recipe, train, test, shop)[:-1]
    _run_jobs(parts, shop)
    return _held_out_report(parts, gmac=clip_gmac(float_networks(parts[0]), recipe.inputs))


def build(recipe: TrainRecipe, shop: Workshop) -> tuple[Bundle, Report]:
    """Train, fit, evaluate and write the bundle of `recipe`; returns it with its test report.

    Raises:
        DataError: the data is absent or leaks. SourceError: a clip cannot be decoded.
        MissingExtraError: a package of the extra `train` is not installed.
    """
    train, test = _samples(recipe, shop)
    parts = _parts(recipe, train, test, shop)
    _run_jobs(parts, shop)
    held_out, labels = _answered(parts[:-1])
    fitted = fit_deployed(held_out, labels, orders=all_orders(), settings=recipe.wise)
    return _finish(parts, fitted, shop)


def _samples(
    recipe: TrainRecipe, shop: Workshop
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    return split_samples(read_index(shop.data / recipe.index, dataset=recipe.dataset))


def _parts(
    recipe: TrainRecipe, train: tuple[Sample, ...], test: tuple[Sample, ...], shop: Workshop
) -> list[Part]:
    """The folds of the cross-fitting, then the final part, which answers the test clips."""
    folds = group_folds(train, num_folds=recipe.num_folds, seed=recipe.seed)
    cuts = [(f"fold{i}", fold.fit, fold.held_out) for i, fold in enumerate(folds)]
    parts = [
        Part(name, fit, answer, labels=labels_of(train), recipe=recipe, cache=shop.cache,
             folder=shop.out / recipe.name)
        for name, fit, answer in (*cuts, (FINAL, train, test))
    ]
    for part in parts:
        check_no_leak({f"{part.name}, fitted": part.fit, f"{part.name}, answered": part.answer})
    return parts


def _run_jobs(parts: Sequence[Part], shop: Workshop) -> None:
    """All heavy steps, stage by stage, in processes of their own."""
    clips = dict.fromkeys(s for part in parts for s in (*part.fit, *part.answer))
    recipe = parts[0].recipe
    each = [(part, modality) for part in parts for modality in MODALITIES]
    start_safely()
    with ProcessPoolExecutor(shop.jobs, mp_context=get_context("spawn")) as pool:
        _stage(pool, "decode", _decode_job, [(c, recipe, shop.cache) for c in clips], shop.console)
        _stage(pool, "backbones", backbone_job, each, shop.console)
        _stage(pool, "exits", exits_job, [(p,) for p in parts], shop.console)
        _stage(pool, "INT8", quantize_job, [(*pair, shop.int8) for pair in each], shop.console)
        _stage(pool, "answers", answer_job, [(p,) for p in parts], shop.console)


def _decode_job(sample: Sample, recipe: TrainRecipe, cache: Path) -> str:
    cached_clip(sample, spec=cache_spec(recipe), folder=cache)
    return ""


def _stage(
    pool: ProcessPoolExecutor, title: str, job: Callable[..., str],
    arguments: Iterable[tuple[Any, ...]], console: Console,
) -> None:
    """Run `job` on each tuple of arguments; the first error stops the stage."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())
    start = time.monotonic()
    with Progress(*columns, console=console) as progress:
        waiting: set[Future[str]] = {pool.submit(job, *values) for values in arguments}
        task = progress.add_task(title, total=len(waiting))
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                if future.exception():
                    pool.shutdown(wait=False, cancel_futures=True)
                if message := future.result():
                    console.print(f"{time.monotonic() - start:5.0f} s  {message}", markup=False)
                progress.advance(task)


def _answered(
    parts: Sequence[Part], *, form: str = DEPLOYED
) -> tuple[dict[Modality, Floats], Labels]:
    """Logits and labels of the clips that each part answered without having seen their groups."""
    read = [read_answers(part) for part in parts]
    logits: dict[Modality, Floats] = {
        modality: np.concatenate([answers[form][modality] for answers, _ in read])
        for modality in MODALITIES
    }
    return logits, np.concatenate([labels for _, labels in read])


def _held_out_report(
    folds: Sequence[Part], *, gmac: Mapping[Modality, tuple[float, ...]], form: str = DEPLOYED
) -> Report:
    """Twice cross-fitted: WISE and policy, too, are fitted without the fold they answer."""
    recipe = folds[0].recipe
    order = recipe.default_order
    answers = []
    for fold in folds:
        others = _answered([part for part in folds if part is not fold], form=form)
        fitted = fit_deployed(*others, orders=[order], settings=recipe.wise)
        weights, policy = fitted[order]
        answers.append(answer(*_answered([fold], form=form), weights=weights, policy=policy))
    return report_of(pool(answers), order=order, gmac=gmac, label_names=folds[0].labels)


def _finish(
    parts: Sequence[Part], fitted: Fitted, shop: Workshop
) -> tuple[Bundle, Report]:
    """Evaluate on the test split, export, write the bundle."""
    folds, final = parts[:-1], parts[-1]
    recipe, networks = final.recipe, int8_networks(final)
    gmac = clip_gmac(networks, recipe.inputs)

    def on_test(order: Order, of: Fitted, form: str) -> Report:
        logits, truth = _answered([final], form=form)
        weights, policy = of[order]
        return report_of(answer(logits, truth, weights=weights, policy=policy), order=order,
                         gmac=gmac, label_names=final.labels)

    shown = [on_test(order, fitted, DEPLOYED) for order in _shown_orders(recipe)]
    as_float = fit_deployed(*_answered(folds, form=FP32), orders=[recipe.default_order],
                                   settings=recipe.wise)
    parity = compare(read_answers(final)[0], [(FAKE_QUANT, FP32), (DEPLOYED, FAKE_QUANT),
                                              (DEPLOYED, FP32)])
    target = load_target("openvino")
    drifts = [*check_agreement(parity, form=DEPLOYED, against=FAKE_QUANT,
                                      floor=target.agreement_floor),
              *check_agreement(parity, form=DEPLOYED, against=FP32,
                                      floor=target.float_agreement_floor)]
    if not shop.allow_drift:
        refuse_drift(drifts)
    card = model_card(recipe, CardFacts(
        labels=final.labels, train=final.fit, test=final.answer, on_test=shown,
        held_out=_held_out_report(folds, gmac=gmac), parity=parity, int8=shop.int8,
        float_on_test=on_test(recipe.default_order, as_float, FP32),
        float_held_out=_held_out_report(folds, gmac=gmac, form=FP32),
    ))
    bundle = write(
        shop.out / f"{recipe.name}{SUFFIX}", fitted=fitted, networks=networks, model_card=card,
        segments=export_segments(networks, recipe.inputs),
        deployment=Deployment(
            name=recipe.name, labels=final.labels, inputs=recipe.inputs, clip=recipe.clip,
            decode=recipe.decode, default_order=recipe.default_order),
        provenance=_provenance(final, shown[0], shop.int8,
                               parity=parity_facts(parity, drifts=drifts)),
    )
    return bundle, shown[0]


def _provenance(
    final: Part, report: Report, int8: Int8Recipe, *, parity: Mapping[str, Any]
) -> dict[str, Any]:
    """Who made it, from what, under which conditions; plain JSON values."""
    recipe = final.recipe
    return {
        **conditions(cpu_capability=get_cpu_capability()),
        "recipe": asdict(recipe),
        "quantization": {"method": "qad", **asdict(int8)},
        "parity": parity,
        "data": {"dataset": recipe.dataset, "num_train_clips": len(final.fit),
                 "num_test_clips": len(final.answer),
                 "test_groups": sorted({sample.group for sample in final.answer})},
        "test": {
            "num_clips": report.cascade.num_clips,
            "cascade_accuracy": report.cascade.value,
            "full_chain_accuracy": report.full_chain.value,
            "mean_exit": report.mean_exit,
            "gmac_per_clip": report.gmac,
            "gmac_per_clip_full_chain": report.gmac_full,
        },
    }


def _shown_orders(recipe: TrainRecipe) -> list[Order]:
    """The default order, then single networks: what each modality is worth alone."""
    return [recipe.default_order, *((modality,) for modality in recipe.default_order)]
