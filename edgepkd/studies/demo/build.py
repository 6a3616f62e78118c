"""Builds one demo bundle: backbones, exits, INT8, WISE, policy, ONNX, model card.

All that is fitted, is fitted on the answers of the INT8 segments to held-out training clips; the
test split is answered once, for the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from edgepkd.bundle.manifest import SUFFIX
from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Order
from edgepkd.config import Modality
from edgepkd.datasets.index import (
    check_no_leak,
    group_folds,
    labels_of,
    read_index,
    split_samples,
)
from edgepkd.deploy.answers import DEPLOYED, FAKE_QUANT, FP32
from edgepkd.deploy.bundle import Origin, Parity, checked_parity, write_trained
from edgepkd.deploy.segments import export_segments
from edgepkd.engines.targets import load_target
from edgepkd.int8 import Int8Recipe
from edgepkd.logits.fit import fit_deployed
from edgepkd.logits.fit_files import Fitted
from edgepkd.logits.report import Report, answer, pool, report_of
from edgepkd.logits.wise import all_orders
from edgepkd.models.macs import clip_gmac
from edgepkd.models.segmented import Networks
from edgepkd.studies.demo.answers import answered_by, int8_networks, read_answers
from edgepkd.studies.demo.card import CardFacts, model_card
from edgepkd.studies.demo.stages import run_stages
from edgepkd.studies.parts import Part, load_networks
from edgepkd.training.recipe import TrainRecipe

FINAL = "final"
PAIRS = ((FAKE_QUANT, FP32), (DEPLOYED, FAKE_QUANT), (DEPLOYED, FP32))
"""Forms that are compared, each with the one it came from."""


@dataclass(frozen=True)
class BuildSettings:
    """What is built from what, and where."""

    recipe: TrainRecipe
    int8: Int8Recipe
    """How networks are quantised."""
    data: Path
    """Folder that the recipe's index is in."""
    out: Path
    cache: Path
    """Where decoded clips are kept."""
    console: Console
    """Where progress is shown."""
    processes: int = 2
    """One thread each."""
    allow_drift: bool = False
    """Write the bundle although INT8 exits answer differently."""


def cross_fit(settings: BuildSettings) -> Report:
    """Train and answer all folds; returns the report on the held-out training clips.

    Raises:
        as `build`.
    """
    folds = _parts(settings)[:-1]
    _train(folds, settings)
    gmac = clip_gmac(load_networks(folds[0]), settings.recipe.inputs)
    return _held_out_report(folds, gmac=gmac)


def build(settings: BuildSettings) -> tuple[Bundle, Report]:
    """Train, fit, evaluate and write the bundle; returns it with its test report.

    Raises:
        DataError: the data is absent or leaks. SourceError: a clip cannot be decoded.
        ModelError: INT8 exits answer differently than they may. TrainingError: a process died.
    """
    recipe, parts = settings.recipe, _parts(settings)
    _train(parts, settings)
    final, networks = parts[-1], int8_networks(parts[-1])
    fitted = _fit(parts[:-1], orders=all_orders())
    parity = checked_parity(read_answers(final)[0], PAIRS, target=load_target("openvino"),
                            allow_drift=settings.allow_drift)
    facts = _card_facts(settings, parts, networks, fitted, parity)
    bundle = write_trained(
        settings.out / f"{recipe.name}{SUFFIX}",
        Origin(recipe=recipe, quantization={"method": "qad", **asdict(settings.int8)},
               parity=parity, clips=_clip_facts(final, facts.on_test[0])),
        name=recipe.name, labels=final.labels, inputs=recipe.inputs,
        default_order=recipe.default_order, networks=networks, fitted=fitted,
        segments=export_segments(networks, recipe.inputs), model_card=model_card(recipe, facts))
    return bundle, facts.on_test[0]


# ---- parts


def _parts(settings: BuildSettings) -> list[Part]:
    """The folds of the cross-fitting, then the final part, which answers the test clips."""
    recipe = settings.recipe
    train, test = split_samples(read_index(settings.data / recipe.index, dataset=recipe.dataset))
    folds = group_folds(train, num_folds=recipe.num_folds, seed=recipe.seed)
    cuts = [(f"fold{i}", fold.fit, fold.held_out) for i, fold in enumerate(folds)]
    parts = [
        Part(name, fit, answer, labels=labels_of(train), recipe=recipe, cache=settings.cache,
             folder=settings.out / recipe.name)
        for name, fit, answer in (*cuts, (FINAL, train, test))
    ]
    for part in parts:
        check_no_leak({f"{part.name}, fitted": part.fit, f"{part.name}, answered": part.answer})
    return parts


def _train(parts: Sequence[Part], settings: BuildSettings) -> None:
    run_stages(parts, int8=settings.int8, processes=settings.processes, console=settings.console)


# ---- what the bundle is worth


def _card_facts(
    settings: BuildSettings, parts: Sequence[Part], networks: Networks, fitted: Fitted,
    parity: Parity,
) -> CardFacts:
    """Reports on the test clips and on the held-out ones, in INT8 and in FP32."""
    folds, final, recipe = parts[:-1], parts[-1], settings.recipe
    gmac = clip_gmac(networks, recipe.inputs)
    as_float = _fit(folds, orders=[recipe.default_order], form=FP32)

    def on_test(order: Order, of: Fitted, form: str) -> Report:
        logits, truth = answered_by([final], form=form)
        weights, policy = of[order]
        return report_of(answer(logits, truth, weights=weights, policy=policy), order=order,
                         gmac=gmac, label_names=final.labels)

    return CardFacts(
        labels=final.labels, train=final.fit, test=final.answer, parity=parity.rows,
        int8=settings.int8, on_test=[on_test(o, fitted, DEPLOYED) for o in _shown_orders(recipe)],
        held_out=_held_out_report(folds, gmac=gmac),
        float_on_test=on_test(recipe.default_order, as_float, FP32),
        float_held_out=_held_out_report(folds, gmac=gmac, form=FP32))


def _shown_orders(recipe: TrainRecipe) -> list[Order]:
    """The default order, then single networks: what each modality is worth alone."""
    return [recipe.default_order, *((modality,) for modality in recipe.default_order)]


def _fit(folds: Sequence[Part], *, orders: Sequence[Order], form: str = DEPLOYED) -> Fitted:
    """Weights and policies from what each fold answered without having seen its groups."""
    return fit_deployed(
        *answered_by(folds, form=form), orders=orders, settings=folds[0].recipe.wise,
        groups=[sample.group for fold in folds for sample in fold.answer],
        folds=[number for number, fold in enumerate(folds) for _ in fold.answer])


def _held_out_report(
    folds: Sequence[Part], *, gmac: Mapping[Modality, tuple[float, ...]], form: str = DEPLOYED
) -> Report:
    """Twice cross-fitted: WISE and policy, too, are fitted without the fold they answer."""
    recipe = folds[0].recipe
    order = recipe.default_order
    answers = []
    for fold in folds:
        fitted = _fit([part for part in folds if part is not fold], orders=[order], form=form)
        weights, policy = fitted[order]
        answers.append(answer(*answered_by([fold], form=form), weights=weights, policy=policy))
    return report_of(pool(answers), order=order, gmac=gmac, label_names=folds[0].labels)


def _clip_facts(final: Part, report: Report) -> dict[str, Any]:
    """The clips of the bundle and what it is worth on those of the test; plain JSON values."""
    return {
        "data": {"dataset": final.recipe.dataset, "num_train_clips": len(final.fit),
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
