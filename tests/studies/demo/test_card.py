"""The model card of a demo bundle."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.config import MODALITIES
from edgepkd.deploy.gate import Parity
from edgepkd.int8 import load_int8_recipe
from edgepkd.logits.report import Report, answer, report_of
from edgepkd.studies.demo import card
from edgepkd.studies.demo.card import CardFacts, model_card
from tests.studies.tiny_parts import samples, tiny_recipe


def report(order: Order, *, wrong: int) -> Report:
    """Ten clips of two labels, `wrong` of them answered wrongly by every exit."""
    truth = np.arange(10) % 2
    labels = np.where(np.arange(10) < wrong, 1 - truth, truth)
    logits = {m: np.tile(np.eye(2)[labels][:, None], (1, 4, 1)) for m in MODALITIES}
    answers = answer(logits, truth, weights=WiseWeights.ones(order),
                     policy=ExitPolicy.constant(order, threshold=1.0))
    return report_of(answers, order=order, label_names=("a|b", "c"),
                     gmac={m: (1.0, 1.0, 1.0, 1.0) for m in MODALITIES})


@pytest.fixture(scope="module")
def text() -> str:
    recipe = replace(tiny_recipe(), name="made", purpose="A or c.", dataset="Made",
                     terms="Nobody's.")
    own: Order = ("mv", "residual")
    return model_card(recipe, CardFacts(
        labels=("a|b", "c"), train=samples(0, 7), test=samples(10, 2), parity=Parity(()),
        on_test=[report(own, wrong=1), report(("mv",), wrong=2)], held_out=report(own, wrong=3),
        float_on_test=report(own, wrong=4), float_held_out=report(own, wrong=0),
        int8=load_int8_recipe("int8", {"finetune.epochs": 9, "calibration_clips": 33})))


def test_every_section_is_there_in_order(text: str) -> None:
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == [
        "## Answers", "## Data and split", "## Accuracy on the test split",
        "## Held-out training groups", "## INT8 against FP32", "## How it was made", "## Terms",
        "## Limits"]
    assert text.startswith("# made\n\nA or c.\n")
    assert "\nNobody's.\n" in text


def test_clips_groups_and_steps_are_counted(text: str) -> None:
    assert "Made: 7 clips of 7 groups to train and calibrate, 2 clips of 2 groups to test." in text
    assert "Trained on 7 short clips" in text
    assert "on 33 training clips, 7-bit" in text
    assert "then 9 epochs with the distillation loss" in text


def test_int8_stands_beside_fp32(text: str) -> None:
    rows = [line for line in text.splitlines() if line.startswith(("| test split", "| held-out"))]
    shares = [[cell.strip().split(" %")[0] for cell in row.split("|")[2:4]] for row in rows]
    assert shares == [["60.0", "90.0"], ["100.0", "70.0"]]  # FP32, then INT8


def test_a_label_cannot_break_out_of_its_cell(text: str) -> None:
    assert r"| a\|b | " in text
    made: Any = SimpleNamespace(per_label={"a|b\n": "50 %", "no_fight": "70 %"})
    assert card._per_label(made).splitlines()[2:] == [r"| a\|b\\n | 50 % |",
                                                      "| no_fight | 70 % |"]
