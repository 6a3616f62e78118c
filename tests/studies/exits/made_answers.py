"""Answers of a study that never ran: what is right is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from edgepkd.config import MODALITIES
from edgepkd.studies.answered import Answered
from edgepkd.studies.study import ARMS, SetPlan
from edgepkd.training.recipe import load_train_recipe

NUM_GROUPS, CLIPS_A_GROUP, NUM_CLASSES, NUM_SEEDS = 12, 6, 3, 1


def made_answers(*, wrong_share: dict[str, float]) -> Answered:
    """Every arm is right but for `wrong_share` of its clips at exits 1..3 (default 0.5), evenly
    over groups; exit 4 is right but for a quarter.
    """
    count = NUM_GROUPS * CLIPS_A_GROUP
    rng = np.random.default_rng(0)
    truth = rng.integers(0, NUM_CLASSES, count)
    logits = {}
    for arm, modality in product(ARMS, MODALITIES):
        values = rng.normal(0, 0.1, (NUM_SEEDS, count, 4, NUM_CLASSES))
        for exit_, seed in product(range(4), range(NUM_SEEDS)):
            share = 0.25 if exit_ == 3 else wrong_share.get(arm.name, 0.5)
            own = np.random.default_rng((exit_, seed, MODALITIES.index(modality)))
            wrong = own.random(count) < share
            answers = np.where(wrong, (truth + 1) % NUM_CLASSES, truth)
            values[seed, np.arange(count), exit_, answers] += 3
        logits[arm.name, modality] = values
    recipe = replace(load_train_recipe("reproduce-weizmann"), dataset="Made")
    return Answered(
        plan=SetPlan(recipe, 0.4), label_names=("a", "b", "c"), seeds=("1/1",), truth=truth,
        groups=tuple(f"g{i // CLIPS_A_GROUP}" for i in range(count)),
        folds=np.arange(count) // (CLIPS_A_GROUP * 6), logits=logits,
        seconds={"trunk_mv": (1.0, 2.0), "exits": (3.0, 4.0)},
    )


def made_flatness() -> dict[str, Any]:
    """Of three trunks: residual is the flattest by every measure, the I-frame the least flat."""
    return {m: {"backbone": "resnet18", "trace_per_parameter": 1e-4,
                "trace": {"mean": k, "standard_error": 0.1, "relative_mean": k,
                          "relative_standard_error": 0.1, "loss": 0.5},
                "sharpness": {"value": k}}
            for k, m in enumerate(("residual", "mv", "iframe"), start=1)}
