"""A fold of the study of the defaults: both forms of motion, one taken, exits, answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import MODALITIES
from edgepkd.models.checkpoint import load_network
from edgepkd.pipeline import motion_form
from edgepkd.studies.defaults.jobs import (
    FORM,
    FP32,
    answer_job,
    answers_path,
    form_part,
    settled,
    trunks_of,
)
from edgepkd.studies.parts import TRUNK, Part, trunk_key, write_arrays
from edgepkd.studies.units import Unit
from tests.studies.tiny_parts import tiny_unit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fake_clips")]


@pytest.fixture
def trained(tmp_path: Path) -> Unit:
    """A fold with all its trunks."""
    unit = tiny_unit(tmp_path)
    for job in trunks_of(unit):
        job()
    return unit


def channels(part: Part) -> int:
    """Input channels of the motion network of a fold."""
    network, _ = load_network(part.network_path("mv", TRUNK))
    return next(m.in_channels for m in network.modules() if hasattr(m, "in_channels"))


@pytest.mark.parametrize("is_stacked", [False, True])
def test_the_form_that_held_out_groups_like_better_is_taken(
    trained: Unit, is_stacked: bool
) -> None:
    good, bad = np.array([[9.0, 0.0], [0.0, 9.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    for stacked in (False, True):
        write_arrays(form_part(trained.part, is_stacked=stacked).path(FORM),
                     {"logits": good if stacked == is_stacked else bad})
    (found,), choice = settled([trained])
    assert choice.is_stacked is is_stacked
    assert found.part.recipe.inputs["mv"].stack is is_stacked
    assert found.part.folder == trained.part.folder
    assert channels(found.part) == (4 if is_stacked else 2)  # two fields of two components
    # What is copied counts as trained with the settled recipe: nothing trains it again.
    assert "kept from an earlier run" in trunks_of(found)[0]()
    _, extra = load_network(found.part.network_path("mv", TRUNK))
    assert extra["key"] == trunk_key(found.part, "mv")


def test_a_fold_answers_with_all_exits(trained: Unit) -> None:
    (found,), choice = settled([trained])
    assert isinstance(choice, motion_form.FormChoice)
    assert answer_job(found).startswith("small trunk1-fold0: exits ")
    with np.load(answers_path(found, 7), allow_pickle=False) as file:
        shapes = {m: file[f"{FP32}/{m}"].shape for m in MODALITIES}
    assert shapes == dict.fromkeys(MODALITIES, (2, 4, 2))
    assert answer_job(found) == "small trunk1-fold0: answers kept from an earlier run"
    other = replace(found, part=replace(found.part, recipe=replace(
        found.part.recipe, exits=replace(found.part.recipe.exits, label_share=0.5))))
    assert answer_job(other).startswith("small trunk1-fold0: exits ")


def test_trunks_are_trained_once(trained: Unit) -> None:
    said: Sequence[str] = [job() for job in trunks_of(trained)]
    assert all("kept from an earlier run" in line for line in said)
    assert len(said) == 4
