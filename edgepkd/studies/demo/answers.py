"""The INT8 steps of a demo bundle, as functions that can run in a process of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from edgepkd.cascade import Floats, Labels
from edgepkd.config import MODALITIES, Modality, facts_of
from edgepkd.deploy.answers import DEPLOYED, FAKE_QUANT, FP32, deployed_answers, torch_answers
from edgepkd.deploy.segments import export_segments
from edgepkd.int8 import (
    Int8Clips,
    Int8Recipe,
    calibration_rows,
    finetune_plans,
    spare_judge,
    to_int8,
)
from edgepkd.logits.clip_logits import ModalityLogits
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.quantize.checkpoint import load_quantized, save_quantized
from edgepkd.studies.parts import (
    UNREADABLE,
    Part,
    contents,
    holds_network,
    load_clips,
    load_networks,
    write_arrays,
)
from edgepkd.training.loop import hash_of
from edgepkd.training.predict import weights_sha256

INT8 = "int8"
"""Kind of a quantised network."""
VERSION = 2
"""Raise it when the same settings would give other networks: old ones are then not used."""


def int8_networks(part: Part) -> dict[Modality, SegmentedNetwork]:
    """The INT8 networks of a part.

    Raises:
        ModelError: as `load_quantized`.
    """
    return {m: load_quantized(part.network_path(m, INT8))[0] for m in MODALITIES}


def quantize_job(part: Part, modality: Modality, recipe: Int8Recipe) -> str:
    """PTQ and QAD of one network; returns a line that says how it went."""
    torch.set_num_threads(1)
    networks, path = load_networks(part), part.network_path(modality, INT8)
    key = hash_of({"version": VERSION, "recipe": facts_of(recipe), "seed": part.recipe.seed,
                   "weights": {m: weights_sha256(n) for m, n in networks.items()}})
    if holds_network(path, key):
        return f"{part.name} {modality}: INT8 kept from an earlier run"
    fit = load_clips(part, part.fit)
    seed = part.seed(modality, "int8")
    rows = calibration_rows(len(fit), recipe, seed=seed)
    trained = to_int8(
        "qad", networks,
        Int8Clips([fit.clips[row] for row in rows], fit, finetune_plans(part.recipe)),
        modality=modality, recipe=recipe, seed=seed,
        trunk_rate=part.recipe.backbones[modality].learning_rate,
        judge=spare_judge(networks[modality], fit, rows, spec=part.recipe.inputs[modality],
                          recipe=recipe))
    save_quantized(trained, path, spec=recipe.quantizer,
                   extra={"key": key, "calibration_clips": len(rows)})
    return f"{part.name} {modality}: INT8"


def answer_job(part: Part) -> str:
    """Logits of the `answer` clips by every form, in a file."""
    torch.set_num_threads(1)
    int8, floats, inputs = int8_networks(part), load_networks(part), part.recipe.inputs
    key = hash_of({"weights": [weights_sha256(n) for n in (*int8.values(), *floats.values())],
                   "clips": contents(part.answer)})
    if _answers_key(part) == key:
        return f"{part.name}: answers kept from an earlier run"
    answered = load_clips(part, part.answer)
    answers: Mapping[str, ModalityLogits] = {
        FP32: torch_answers(floats, inputs, answered.clips),
        FAKE_QUANT: torch_answers(int8, inputs, answered.clips),
        DEPLOYED: deployed_answers(export_segments(int8, inputs), inputs, answered.clips),
    }
    write_arrays(_answers_path(part), {
        "key": np.array(key), "labels": np.array(answered.labels),
        **{f"{form}/{m}": logits for form, by_modality in answers.items()
           for m, logits in by_modality.items()}})
    return f"{part.name}: {len(answered)} clips answered in three forms"


def read_answers(part: Part) -> tuple[dict[str, dict[Modality, Floats]], Labels]:
    """Logits [N, 4, classes] by form and modality, and labels [N], as `answer_job` left them."""
    with np.load(_answers_path(part), allow_pickle=False) as file:
        logits = {form: {m: file[f"{form}/{m}"] for m in MODALITIES}
                  for form in (FP32, FAKE_QUANT, DEPLOYED)}
        return logits, file["labels"]


def answered_by(
    parts: Sequence[Part], *, form: str = DEPLOYED
) -> tuple[dict[Modality, Floats], Labels]:
    """Logits and labels of the clips that each part answered without having seen their groups."""
    read = [read_answers(part) for part in parts]
    logits: dict[Modality, Floats] = {
        modality: np.concatenate([answers[form][modality] for answers, _ in read])
        for modality in MODALITIES
    }
    return logits, np.concatenate([labels for _, labels in read])


def _answers_key(part: Part) -> str:
    try:
        with np.load(_answers_path(part), allow_pickle=False) as file:
            return str(file["key"])
    except UNREADABLE:
        return ""


def _answers_path(part: Part) -> Path:
    return part.path("answers.npz")
