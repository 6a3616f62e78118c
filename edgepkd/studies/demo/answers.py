"""The INT8 steps of a demo bundle, as functions that can run in a process of their own."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from edgepkd.config import MODALITIES, Modality
from edgepkd.deploy.answers import DEPLOYED, FAKE_QUANT, FP32, deployed_answers, torch_answers
from edgepkd.deploy.segments import export_segments
from edgepkd.errors import ModelError
from edgepkd.files import write_atomically
from edgepkd.int8 import Int8Clips, Int8Recipe, calibration_rows, finetune_plans, to_int8
from edgepkd.logits.clip_logits import ModalityLogits
from edgepkd.models.checkpoint import load_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.quantize.checkpoint import load_quantized, save_quantized
from edgepkd.studies.parts import Part, load_clips
from edgepkd.training.loop import hash_of, mix_seed
from edgepkd.training.predict import weights_sha256


def int8_path(part: Part, modality: Modality) -> Path:
    """Where the INT8 network lies, without suffix."""
    return part.folder / part.name / f"{modality}-int8"


def float_networks(part: Part) -> dict[Modality, SegmentedNetwork]:
    """The FP32 networks of a part."""
    return {m: load_network(part.network_path(m))[0] for m in MODALITIES}


def int8_networks(part: Part) -> dict[Modality, SegmentedNetwork]:
    """The INT8 networks of a part."""
    return {m: load_quantized(int8_path(part, m))[0] for m in MODALITIES}


def quantize_job(part: Part, modality: Modality, recipe: Int8Recipe) -> str:
    """PTQ and QAD of one network; returns a line that says how it went."""
    torch.set_num_threads(1)
    networks, path = float_networks(part), int8_path(part, modality)
    key = hash_of({"recipe": asdict(recipe), "seed": part.recipe.seed,
                   "weights": {m: weights_sha256(n) for m, n in networks.items()}})
    if _is_done(path, key):
        return f"{part.name} {modality}: INT8 kept from an earlier run"
    fit = load_clips(part, part.fit)
    seed = mix_seed(part.recipe.seed, part.name, modality, "int8")
    rows = calibration_rows(len(fit), recipe, seed=seed)
    trained = to_int8(
        "qad", networks,
        Int8Clips([fit.clips[row] for row in rows], fit, finetune_plans(part.recipe)),
        modality=modality, recipe=recipe, seed=seed,
        trunk_rate=part.recipe.backbones[modality].learning_rate)
    save_quantized(trained, path, spec=recipe.quantizer,
                   extra={"key": key, "calibration_clips": len(rows)})
    return f"{part.name} {modality}: INT8"


def answer_job(part: Part) -> str:
    """Logits of the `answer` clips by every form, in a file."""
    torch.set_num_threads(1)
    int8, floats, inputs = int8_networks(part), float_networks(part), part.recipe.inputs
    key = hash_of({"weights": [weights_sha256(n) for n in (*int8.values(), *floats.values())],
                   "clips": [s.sha256 or str(s.path) for s in part.answer]})
    if _answers_key(part) == key:
        return f"{part.name}: answers kept from an earlier run"
    answered = load_clips(part, part.answer)
    answers: Mapping[str, ModalityLogits] = {
        FP32: torch_answers(floats, inputs, answered.clips),
        FAKE_QUANT: torch_answers(int8, inputs, answered.clips),
        DEPLOYED: deployed_answers(export_segments(int8, inputs), inputs, answered.clips),
    }
    arrays: dict[str, Any] = {f"{form}/{m}": logits for form, by_modality in answers.items()
                              for m, logits in by_modality.items()}
    buffer = io.BytesIO()
    np.savez(buffer, key=np.array(key), labels=np.array(answered.labels), **arrays)
    write_atomically(_answers_path(part), buffer.getvalue())
    return f"{part.name}: {len(answered)} clips answered in three forms"


def read_answers(part: Part) -> tuple[dict[str, dict[Modality, Any]], Any]:
    """Logits [N, 4, classes] by form and modality, and labels [N], as `answer_job` left them."""
    with np.load(_answers_path(part), allow_pickle=False) as file:
        logits = {form: {m: file[f"{form}/{m}"] for m in MODALITIES}
                  for form in (FP32, FAKE_QUANT, DEPLOYED)}
        return logits, file["labels"]


def _answers_key(part: Part) -> str:
    try:
        with np.load(_answers_path(part), allow_pickle=False) as file:
            return str(file["key"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return ""


def _answers_path(part: Part) -> Path:
    return part.folder / part.name / "answers.npz"


def _is_done(path: Path, key: str) -> bool:
    try:
        return bool(load_quantized(path)[2].get("key") == key)
    except ModelError:
        return False
