"""The page of the INT8 study says what its tables say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgepkd.int8 import load_int8_recipe
from edgepkd.studies.answered import Answered
from edgepkd.studies.int8.page import page
from edgepkd.studies.int8.tables import compute
from edgepkd.studies.study import load_study
from tests.studies.int8.made_int8 import GMAC, Wrong, made_int8


def text_of(answered: Answered) -> str:
    recipe = load_int8_recipe("int8", {"finetune.epochs": 7, "calibration_clips": 33})
    study = replace(load_study("reproduce"), exit_seeds=(4711,))
    return "\n".join(page([compute(answered, gmac=GMAC)], study, recipe, "int8"))


def text(wrong: Wrong) -> str:
    return text_of(made_int8(wrong))


@pytest.mark.slow
def test_a_loss_of_ptq_is_called_one() -> None:
    found = text({"ptq": {"all": range(20), "residual_3": range(30)}})
    assert ("PTQ is within 1.0 point of FP32 at 0 of 12 exits (plain PTQ 12, QAT 12, QAD 12)"
            in found)
    assert found.count("PTQ is **not** within 1.0 point of FP32; the interval shows it") == 2
    assert "plain PTQ is better" in found
    assert "QAD is better" in found
    assert "; PTQ residual_3 (-30.0)" in found
    assert "| mv_1 | 100.0 [100.0, 100.0] | 100.0 | 80.0 | 100.0 | 100.0 |" in found


@pytest.mark.slow
def test_a_gain_of_qad_over_ptq_is_called_one() -> None:
    found = text({"ptq": {"all": range(40)}, "qat": {"all": range(20)}})
    assert ("PTQ is within 1.0 point of FP32 at 0 of 12 exits (plain PTQ 12, QAT 0, QAD 12)"
            in found)
    assert "QAD less PTQ **+40.0" in found
    assert found.count("QAD is better") == 2  # than PTQ, and than QAT


@pytest.mark.slow
def test_where_nothing_tells_ptq_apart_it_says_so() -> None:
    found = text({"ptq": {"all": [3]}, "qad": {"all": [4]}, "qat": {"all": [5]}})
    assert "no difference shown: as far as these clips tell, PTQ is as good" in found
    assert "no difference shown: as far as these clips tell, QAT is as good" in found
    assert "PTQ is within 1.0 point of FP32; the interval does not show it" in found
    assert "; PTQ mv_1, mv_2, mv_3 and 9 more (-1.0)" in found


@pytest.mark.slow
def test_exits_that_flip_are_counted_against_the_limit() -> None:
    same = text({})
    assert "exit flips**, policies fitted anew: PTQ's are within 3 %" in same
    assert "share of clips that leave at another exit than in FP32" in same
    found = text({"ptq": {"mv_1": range(60), "mv_2": range(60)}})
    assert "exit flips**, policies fitted anew: PTQ's are **not** within 3 %" in found


@pytest.mark.slow
def test_conditions_caveats_and_tables_are_there() -> None:
    found = text({})
    for words in ("trunks 4711", "exits (PKD) 4711", "weights of 7 bits", "calibrator max",
                  "up to 33 training clips", "7 epochs", "not a proof", "One clip is 1.0 (Made)",
                  "Seconds a fold", "| Made | QAD | 8 | 9 |", "| Made | 100 | 3 | 20 | 2 |"):
        assert words in found
    for head in ("In short", "Made, each exit", "Made, networks and cascade", "Time"):
        assert f"## {head}\n" in found


@pytest.mark.slow
def test_few_groups_are_said() -> None:
    answered = made_int8({})
    few = replace(answered, groups=tuple(str(int(g[1:]) % 9) for g in answered.groups))
    words = "fewer than 10 groups"
    assert words in text_of(few)
    assert words not in text_of(answered)
