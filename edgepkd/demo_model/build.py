"""Rebuilds one demo bundle: data, backbones, exits, WISE, policy, ONNX, model card.

    python -m edgepkd.demo_model --set weizmann --data ../shared/data --out runs/demo

Reads the recipe `calibration/demo-SET.toml`; writes OUT/demo-SET.edgepkd, and on the way
OUT/demo-SET/ (checkpoints, logits) and runs/cache (decoded clips). Started again, it keeps the
trunks that are there already. Progress goes to stderr, the final table to stdout.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edgepkd.bundle import SUFFIX, Bundle
from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.config import MODALITIES, Modality
from edgepkd.datasets.index import (
    Sample,
    check_no_leak,
    group_folds,
    labels_of,
    read_index,
    split_samples,
)
from edgepkd.demo_model import deploy
from edgepkd.demo_model.card import CardFacts, model_card
from edgepkd.errors import EdgepkdError
from edgepkd.models.checkpoint import load_network
from edgepkd.training.cache import cached_clip
from edgepkd.training.evaluate import Report, answer, format_report, pool, report_of
from edgepkd.training.jobs import Part, backbone_job, cache_spec, exits_job
from edgepkd.training.policy import fit_policy
from edgepkd.training.recipe import TrainRecipe, load_train_recipe
from edgepkd.training.views import test_view
from edgepkd.training.wise import Floats, Labels, all_orders, fit_wise, in_order

FINAL = "final"
Logits = Mapping[Modality, Floats]


@dataclass(frozen=True)
class Workshop:
    """Where a run works, and how."""

    data: Path
    """Folder that the recipe's index is in."""
    out: Path
    cache: Path
    jobs: int
    """Processes, one thread each."""
    console: Console


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    name = options.name if options.name.endswith(".toml") else f"demo-{options.name}"
    shop = Workshop(options.data, options.out, options.cache, options.jobs, console)
    try:
        recipe = load_train_recipe(name)
        if options.folds_only:
            print(format_report(cross_fit(recipe, shop)))
            return 0
        bundle, report = build(recipe, shop)
    except EdgepkdError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return error.exit_code
    print(format_report(report))
    console.print(f"bundle: {bundle.path}", markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edgepkd.demo_model",
                                     description="Rebuild a demo bundle.")
    add = parser.add_argument
    add("--set", required=True, dest="name",
        help="recipe demo-SET of calibration/, or the path of a .toml file")
    add("--data", type=Path, default=Path("../shared/data"), help="folder with labelled clips")
    add("--out", type=Path, default=Path("runs/demo"), help="where results go")
    add("--cache", type=Path, default=Path("runs/cache"), help="where decoded clips are kept")
    add("--jobs", type=int, default=2, help="processes, one thread each")
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
    return _held_out_report(parts, gmac=deploy.clip_gmac(_networks(parts[0]), recipe))


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
    fitted = {order: _fit(recipe, held_out, labels, order) for order in all_orders()}
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
    with ProcessPoolExecutor(shop.jobs, mp_context=get_context("spawn")) as pool:
        _stage(pool, "decode", _decode_job, [(c, recipe, shop.cache) for c in clips], shop.console)
        _stage(pool, "backbones", backbone_job, [(p, m) for p in parts for m in MODALITIES],
               shop.console)
        _stage(pool, "exits", exits_job, [(p,) for p in parts], shop.console)


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


def _answered(parts: Sequence[Part]) -> tuple[dict[Modality, Floats], Labels]:
    """Logits and labels of the clips that each part answered without having seen their groups."""
    files = [np.load(part.logits_path) for part in parts]
    logits: dict[Modality, Floats] = {
        modality: np.concatenate([file[modality] for file in files]) for modality in MODALITIES
    }
    return logits, np.concatenate([file["labels"] for file in files])


def _fit(
    recipe: TrainRecipe, logits: Logits, labels: Labels, order: Order
) -> tuple[WiseWeights, ExitPolicy]:
    stacked = in_order(logits, order)
    settings = recipe.wise
    weights = fit_wise(stacked, labels, order=order, l2=settings.l2)
    return weights, fit_policy(
        stacked, labels, weights=weights, accuracy_loss=settings.accuracy_loss,
        min_confidence=settings.min_confidence, safety_clips=settings.safety_clips,
    )


def _held_out_report(
    folds: Sequence[Part], *, gmac: Mapping[Modality, tuple[float, ...]]
) -> Report:
    """Twice cross-fitted: WISE and policy, too, are fitted without the fold they answer."""
    recipe = folds[0].recipe
    order = recipe.default_order
    answers = []
    for fold in folds:
        weights, policy = _fit(
            recipe, *_answered([part for part in folds if part is not fold]), order
        )
        answers.append(answer(*_answered([fold]), weights=weights, policy=policy))
    return report_of(pool(answers), order=order, gmac=gmac, label_names=folds[0].labels)


def _networks(part: Part) -> deploy.Networks:
    return {modality: load_network(part.network_path(modality))[0] for modality in MODALITIES}


def _finish(
    parts: Sequence[Part], fitted: deploy.Fitted, shop: Workshop
) -> tuple[Bundle, Report]:
    """Evaluate on the test split, export, write the bundle."""
    final = parts[-1]
    recipe, networks = final.recipe, _networks(final)
    gmac = deploy.clip_gmac(networks, recipe)
    logits, truth = _answered([final])  # of the test clips
    on_test = [
        report_of(answer(logits, truth, weights=fitted[order][0], policy=fitted[order][1]),
                  order=order, gmac=gmac, label_names=final.labels)
        for order in _shown_orders(recipe)
    ]
    clip = cached_clip(final.answer[0], spec=final.cache_spec, folder=final.cache)
    exported = deploy.export(networks, recipe, example={
        modality: test_view(clip, recipe.inputs[modality]) for modality in MODALITIES
    })
    card = model_card(recipe, CardFacts(
        labels=final.labels, train=final.fit, test=final.answer, on_test=on_test,
        held_out=_held_out_report(parts[:-1], gmac=gmac), parity=exported.parity,
    ))
    data = {"dataset": recipe.dataset, "num_train_clips": len(final.fit),
            "num_test_clips": len(final.answer),
            "test_groups": sorted({sample.group for sample in final.answer})}
    bundle = deploy.write(
        shop.out / f"{recipe.name}{SUFFIX}", recipe=recipe, labels=final.labels,
        networks=networks, exported=exported, fitted=fitted, model_card=card,
        provenance=deploy.provenance(recipe, on_test[0], data=data),
    )
    return bundle, on_test[0]


def _shown_orders(recipe: TrainRecipe) -> list[Order]:
    """The default order, then single networks: what each modality is worth alone."""
    return [recipe.default_order, *((modality,) for modality in recipe.default_order)]

