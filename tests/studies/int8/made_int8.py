"""Answers of an INT8 study that never ran: every exit of a form gives the wrong label to clips that
are known by number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from edgepkd.config import MODALITIES
from edgepkd.studies.answered import Answered
from edgepkd.studies.int8.jobs import FORMS
from edgepkd.studies.study import SetPlan
from edgepkd.training.recipe import load_train_recipe

NUM_CLIPS, NUM_GROUPS, NUM_FOLDS, NUM_CLASSES = 100, 20, 2, 3
GMAC = {modality: (1.0, 1.0, 1.0, 1.0) for modality in MODALITIES}
"""Every segment costs the same."""

Wrong = Mapping[str, Mapping[str, Collection[int]]]
"""Form -> exit such as mv_1, or 'all' for what is not named -> clips it gets wrong."""


def made_int8(wrong: Wrong) -> Answered:
    """100 clips in 20 groups; what `wrong` does not name is right, by a margin of 4."""
    clips = np.arange(NUM_CLIPS)
    truth = clips % NUM_CLASSES
    logits = {}
    for form, modality in product(FORMS, MODALITIES):
        values = np.zeros((1, NUM_CLIPS, 4, NUM_CLASSES))
        for k in range(4):
            mine = wrong.get(form, {})
            missed = list(mine.get(f"{modality}_{k + 1}", mine.get("all", ())))
            answers = np.where(np.isin(clips, missed), (truth + 1) % NUM_CLASSES, truth)
            values[0, clips, k, answers] = 4
        logits[form, modality] = values
    recipe = replace(load_train_recipe("reproduce-weizmann"), dataset="Made")
    return Answered(
        plan=SetPlan(recipe, 0.4), label_names=("a", "b", "c"), seeds=("1/1",), truth=truth,
        groups=tuple(f"g{clip % NUM_GROUPS}" for clip in clips), folds=clips % NUM_FOLDS,
        logits=logits, seconds={"exits": (3.0, 4.0), "ptq-plain": (1.0, 1.0),
                                "ptq": (1.0, 2.0), "qat": (5.0, 7.0),
                                "qad": (8.0, 9.0)},
    )
