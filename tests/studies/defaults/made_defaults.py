"""Answers of a study of the defaults that never ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgepkd.config import MODALITIES
from edgepkd.pipeline.motion_form import FormChoice, FormTried
from edgepkd.studies.answered import Answered
from edgepkd.studies.defaults.jobs import FP32
from edgepkd.studies.defaults.tables import SetResult, compute
from edgepkd.studies.study import SetPlan
from edgepkd.training.recipe import load_train_recipe

NUM_CLIPS, NUM_GROUPS, NUM_FOLDS, NUM_CLASSES = 120, 20, 3, 3
GMAC = {modality: (1.0, 1.0, 1.0, 1.0) for modality in MODALITIES}
FORMS = (FormChoice(True, "stacked is better", FormTried(0.5, 0.9), FormTried(0.6, 0.8)),
         FormChoice(False, "averaged is better", FormTried(0.7, 0.5), FormTried(0.6, 0.8)))


def made_defaults(
    wrong_share: Mapping[str, float], *, tuned: tuple[float, float] | None = (0.8, 0.8)
) -> SetResult:
    """120 clips in 20 groups, two seeds; a network is wrong about a share of them, by chance."""
    rng = np.random.default_rng(3)
    clips = np.arange(NUM_CLIPS)
    truth = clips % NUM_CLASSES
    logits = {}
    for modality in MODALITIES:
        values = rng.normal(0, 0.1, (2, NUM_CLIPS, 4, NUM_CLASSES))
        for seed in range(2):
            missed = rng.random(NUM_CLIPS) < wrong_share.get(modality, 0.0)
            answers = np.where(missed, (truth + 1 + clips // 60) % NUM_CLASSES, truth)
            values[seed, clips, :, answers] += 2
        logits[FP32, modality] = values
    recipe = replace(load_train_recipe("small"), name="made", dataset="Made")
    plan = SetPlan(recipe, tuned=tuned)
    answered = Answered(
        plan=plan, label_names=("a", "b", "c"), seeds=("1/1", "2/1"), truth=truth,
        groups=tuple(f"g{clip % NUM_GROUPS}" for clip in clips), folds=clips % NUM_FOLDS,
        logits=logits, seconds={"exits": (3.0, 4.0)})
    return compute(plan, answered, forms=FORMS, gmac=[GMAC, GMAC], floor=clips % 2 == 0,
                   no_look=None)
