"""The heavy part of the study of the defaults: networks of each fold, and what they answer.

As `edgepkd train` does it: motion is trained in both forms, and the form that held-out groups like
better is kept for all folds of a seed. One thread a job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from edgepkd.config import Modality, facts_of
from edgepkd.models.checkpoint import load_network, save_network
from edgepkd.pipeline.motion_form import FormChoice, judge_forms, with_form
from edgepkd.studies.answered import EXITS, holds_answers, write_answers
from edgepkd.studies.parts import (
    TRUNK,
    Part,
    backbone_job,
    contents,
    holds_arrays,
    holds_network,
    load_clips,
    load_networks,
    trunk_key,
    write_arrays,
)
from edgepkd.studies.units import Unit, listed_seconds, timed, train_unit_exits
from edgepkd.training.backbone import clip_logits, last_exit_logits
from edgepkd.training.features import trunk_hash
from edgepkd.training.loop import hash_of

VERSION = 1
"""Raise it when the same settings would give other answers: old ones are then not used."""
FP32 = "fp32"
FORM = "form.npz"


def form_part(part: Part, *, is_stacked: bool) -> Part:
    """`part` with its motion network in one of the two forms, in a folder of its own."""
    return replace(part, recipe=with_form(part.recipe, is_stacked=is_stacked),
                   folder=part.folder / ("stacked" if is_stacked else "averaged"))


def trunk_job(unit: Unit, modality: Modality) -> str:
    """Train the trunk of a network whose form is settled."""
    return f"{unit.title}: {backbone_job(unit.part, modality)}"


def trunks_of(unit: Unit) -> list[Callable[[], str]]:
    """Jobs of all trunks of a fold, the longest first; the motion network's in both forms."""
    return [partial(trunk_job, unit, "residual"), partial(trunk_job, unit, "iframe"),
            partial(form_job, unit, is_stacked=False), partial(form_job, unit, is_stacked=True)]


def form_job(unit: Unit, *, is_stacked: bool) -> str:
    """Train the motion trunk of one form, and keep what it answers to the held-out clips."""
    part = form_part(unit.part, is_stacked=is_stacked)
    said = backbone_job(part, "mv")
    network, _ = load_network(part.network_path("mv", TRUNK))
    path = part.path(FORM)
    key = hash_of({"trunk": trunk_hash(network), "clips": contents(part.answer)})
    if not holds_arrays(path, key):
        logits = last_exit_logits(network, load_clips(part, part.answer).clips,
                                  spec=part.recipe.inputs["mv"])
        write_arrays(path, {"key": np.array(key), "logits": logits.double().numpy()})
    return f"{unit.title} {part.folder.name}: {said}"


# ---- the form of the motion network


def settled(units: Sequence[Unit]) -> tuple[list[Unit], FormChoice]:
    """The folds of one set and seed with the form that held-out groups like better, and why.

    Its trunks are copied to where those of the folds lie.

    Raises:
        OSError: a form is not trained yet (`form_job`). StorageError: a copy cannot be written.
    """
    both = [[form_part(unit.part, is_stacked=is_stacked) for unit in units]
            for is_stacked in (False, True)]
    held_out = [(s, unit.part.labels) for unit in units for s in unit.part.answer]
    choice = judge_forms(
        *(np.concatenate([np.load(part.path(FORM))["logits"] for part in parts]) for parts in both),
        labels=np.array([labels.index(s.label) for s, labels in held_out], np.int64),
        groups=[s.group for s, _ in held_out])
    found = []
    for unit, form in zip(units, both[choice.is_stacked], strict=True):
        part = replace(unit.part, recipe=form.recipe)
        if not holds_network(part.network_path("mv", TRUNK), trunk_key(part, "mv")):
            network, extra = load_network(form.network_path("mv", TRUNK))
            save_network(network, part.network_path("mv", TRUNK), extra=extra)
        found.append(replace(unit, part=part))
    return found, choice


# ---- exits and answers


def answers_path(unit: Unit, seed: int) -> Path:
    """Logits of the held-out clips; a unit has one `seed` here, which names no file."""
    return unit.part.path("answers.npz")


def answer_job(unit: Unit) -> str:
    """Train the exits of all networks on their trunks, and answer the held-out clips."""
    torch.set_num_threads(1)
    part, (seed,) = unit.part, unit.exit_seeds
    networks = load_networks(part, TRUNK)
    path = answers_path(unit, seed)
    key = hash_of({
        "version": VERSION, "trunks": {m: trunk_hash(n) for m, n in networks.items()},
        "exits": facts_of(part.recipe.exits), "seed": seed,
        "clips": contents((*part.fit, *part.answer))})
    if holds_answers(path, key):
        return f"{unit.title}: answers kept from an earlier run"
    seconds: dict[str, float] = {}
    fit, answer = load_clips(part, part.fit), load_clips(part, part.answer)
    with timed(seconds, EXITS):
        train_unit_exits(unit, networks, fit)
    logits = {(FP32, m): clip_logits(network, answer.clips, spec=part.recipe.inputs[m])
              .double().numpy() for m, network in networks.items()}
    write_answers(path, part, key=key, truth=np.array(answer.labels), logits=logits,
                  seconds=seconds)
    return f"{unit.title}: {listed_seconds(seconds)}"
