"""The heavy part of the INT8 study: a fold's networks in FP32 and by PTQ, QAT and QAD.

Trunks and views are those of the study of exits (`jobs`); exits are trained by PKD with one seed.
One thread a job.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgepkd import plain_json
from edgepkd.config import MODALITIES, NUM_EXITS, Modality
from edgepkd.files import write_atomically
from edgepkd.int8 import (
    METHODS,
    Int8Clips,
    Int8Recipe,
    calibration_rows,
    finetune_plans,
    to_int8,
)
from edgepkd.models.checkpoint import save_network
from edgepkd.models.segmented import Networks, SegmentedNetwork
from edgepkd.quantize.checkpoint import save_quantized
from edgepkd.studies.parts import backbone_job, load_clips
from edgepkd.studies.units import Unit, is_done, load_trunks, reset_head
from edgepkd.training.backbone import clip_logits
from edgepkd.training.exits import CachedFeatures, collect_views, label_rows, train_exits, view_plan
from edgepkd.training.features import trunk_hash
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import hash_of, mix_seed

VERSION = 1
"""Raise it when the same settings would give other answers: old ones are then not used."""
FORMS = ("fp32", *METHODS)



def int8_answers_path(unit: Unit) -> Path:
    """Logits of the held-out clips, all forms."""
    return unit.part.folder / unit.part.name / "int8-answers.npz"


def int8_job(unit: Unit, *, recipe: Int8Recipe) -> str:
    """Train and quantise what is not there yet; returns a line that says how long it took."""
    torch.set_num_threads(1)
    part, path = unit.part, int8_answers_path(unit)
    for modality in MODALITIES:
        backbone_job(part, modality)
    networks = load_trunks(part)
    key = hash_of({
        "version": VERSION, "trunks": {m: trunk_hash(n) for m, n in networks.items()},
        "exits": asdict(part.recipe.exits), "recipe": asdict(recipe), "seed": unit.exit_seeds[0],
        "clips": [s.sha256 or str(s.path) for s in (*part.fit, *part.answer)]})
    title = f"{part.recipe.name} {part.name}"
    if is_done(path, key):
        return f"{title}: kept from an earlier run"
    seconds: dict[str, float] = {}
    fit, answer = load_clips(part, part.fit), load_clips(part, part.answer)
    with _timed(seconds, "exits"):
        _train_exits(unit, networks, fit)
    arrays: dict[str, Any] = {}
    for modality in MODALITIES:
        for form, network in _forms(unit, networks, modality, fit, recipe, seconds):
            arrays[f"{form}/{modality}"] = clip_logits(
                network, answer.clips, spec=part.recipe.inputs[modality]).double().numpy()
    facts = {"key": key, "groups": [s.group for s in part.answer], "labels": part.labels,
             "seconds": {name: round(value, 1) for name, value in seconds.items()}}
    buffer = io.BytesIO()
    np.savez(buffer, facts=np.array(plain_json.dumps(facts)), truth=np.array(answer.labels),
             **arrays)
    write_atomically(path, buffer.getvalue())
    return f"{title}: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


def _train_exits(unit: Unit, networks: Networks, fit: LabelledClips) -> None:
    """PKD, with the seed and the initial heads of the study of exits."""
    part, seed = unit.part, unit.exit_seeds[0]
    views = {m: collect_views(networks[m], fit.clips, view_plan(part.recipe, m))
             for m in MODALITIES}
    teachers = {m: views[m].logits for m in MODALITIES}
    labels = label_rows(fit, num_views=part.recipe.exits.num_views)
    for modality, network in networks.items():
        start = mix_seed(part.recipe.seed, part.name, modality, seed)
        torch.manual_seed(start)
        for index in range(NUM_EXITS - 1):
            reset_head(network.segments[index].head)
        train_exits(network, CachedFeatures(views[modality], teachers), labels,
                    recipe=part.recipe.exits_of(modality), seed=start)
        save_network(network, part.network_path(modality))


def _forms(
    unit: Unit, networks: Networks, modality: Modality, fit: LabelledClips, recipe: Int8Recipe,
    seconds: dict[str, float],
) -> Iterator[tuple[str, SegmentedNetwork]]:
    """(form, network) of one modality: FP32 and every method."""
    part, ranged = unit.part, None
    yield "fp32", networks[modality]
    seed = mix_seed(part.recipe.seed, part.name, modality)
    rows = calibration_rows(len(fit), recipe, seed=seed)
    clips = Int8Clips([fit.clips[row] for row in rows], fit, finetune_plans(part.recipe))
    for method in METHODS:
        with _timed(seconds, method):
            found = to_int8(method, networks, clips, modality=modality, recipe=recipe, seed=seed,
                            trunk_rate=part.recipe.backbones[modality].learning_rate,
                            ranged=ranged)
        if method == "ptq":
            ranged = found
        else:
            save_quantized(found, part.network_path(modality).with_name(f"{modality}-{method}"),
                           spec=recipe.quantizer)
        yield method, found
