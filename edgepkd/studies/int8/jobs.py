"""The heavy part of the INT8 study: a fold's networks in FP32 and by PTQ, QAT and QAD; PTQ without
bias correction, too.

Trunks and views are those of the study of exits; exits are trained by PKD with one seed.
One thread a job.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from edgepkd.cascade import Floats
from edgepkd.config import MODALITIES, Modality, facts_of
from edgepkd.int8 import (
    METHODS,
    Int8Clips,
    Int8Recipe,
    calibration_rows,
    finetune_plans,
    spare_judge,
    to_int8,
)
from edgepkd.models.checkpoint import save_network
from edgepkd.models.segmented import Networks, SegmentedNetwork
from edgepkd.quantize.checkpoint import save_quantized
from edgepkd.studies.answered import EXITS, holds_answers, write_answers
from edgepkd.studies.parts import (
    TRUNK,
    backbone_job,
    contents,
    load_clips,
    load_networks,
)
from edgepkd.studies.units import Unit, listed_seconds, timed, train_unit_exits
from edgepkd.training.backbone import clip_logits
from edgepkd.training.features import trunk_hash
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import hash_of

VERSION = 2
"""Raise it when the same settings would give other answers: old ones are then not used."""
FP32, PLAIN = "fp32", "ptq-plain"
FORMS = (FP32, PLAIN, *METHODS)


def answers_path(unit: Unit, seed: int) -> Path:
    """Logits of the held-out clips, all forms; a unit has one `seed` here, which names no file."""
    return unit.part.path("int8-answers.npz")


def int8_job(unit: Unit, *, recipe: Int8Recipe) -> str:
    """Train and quantise what is not there yet; returns a line that says how long it took."""
    torch.set_num_threads(1)
    part, (seed,) = unit.part, unit.exit_seeds
    for modality in MODALITIES:
        backbone_job(part, modality)
    networks = load_networks(part, TRUNK)
    path, key = answers_path(unit, seed), _key(unit, networks, recipe)
    if holds_answers(path, key):
        return f"{unit.title}: kept from an earlier run"
    seconds: dict[str, float] = {}
    fit, answer = load_clips(part, part.fit), load_clips(part, part.answer)
    with timed(seconds, EXITS):
        train_unit_exits(unit, networks, fit)
    for modality, network in networks.items():
        save_network(network, part.network_path(modality))
    logits: dict[tuple[str, Modality], Floats] = {}
    for modality in MODALITIES:
        for form, network in _forms(unit, networks, modality, fit, recipe, seconds):
            logits[form, modality] = clip_logits(
                network, answer.clips, spec=part.recipe.inputs[modality]).double().numpy()
    write_answers(path, part, key=key, truth=np.array(answer.labels), logits=logits,
                  seconds=seconds)
    return f"{unit.title}: {listed_seconds(seconds)}"


def _key(unit: Unit, networks: Networks, recipe: Int8Recipe) -> str:
    """Hash of all that the answers depend on."""
    part = unit.part
    return hash_of({
        "version": VERSION, "trunks": {m: trunk_hash(n) for m, n in networks.items()},
        "exits": facts_of(part.recipe.exits), "recipe": facts_of(recipe),
        "seed": unit.exit_seeds[0], "clips": contents((*part.fit, *part.answer))})


def _forms(
    unit: Unit, networks: Networks, modality: Modality, fit: LabelledClips, recipe: Int8Recipe,
    seconds: dict[str, float],
) -> Iterator[tuple[str, SegmentedNetwork]]:
    """(form, network) of one modality: FP32 and every method."""
    part, seed = unit.part, unit.part.seed(modality)
    yield FP32, networks[modality]
    rows = calibration_rows(len(fit), recipe, seed=seed)
    clips = Int8Clips([fit.clips[row] for row in rows], fit, finetune_plans(part.recipe))
    judge = spare_judge(networks[modality], fit, rows, spec=part.recipe.inputs[modality],
                        recipe=recipe)
    make = partial(to_int8, networks=networks, clips=clips, modality=modality, seed=seed,
                   trunk_rate=part.recipe.backbones[modality].learning_rate, judge=judge)
    uncorrected = replace(recipe.quantizer, bias_correction=False)
    with timed(seconds, PLAIN):
        plain = make("ptq", recipe=replace(recipe, quantizer=uncorrected))
    yield PLAIN, plain
    ranged = None
    for method in METHODS:
        with timed(seconds, method):
            found = make(method, recipe=recipe, ranged=ranged)
        if method == "ptq":
            ranged = found  # where QAT and QAD start
        save_quantized(found, part.network_path(modality, method), spec=recipe.quantizer)
        yield method, found
