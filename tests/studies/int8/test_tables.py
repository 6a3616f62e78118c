"""The INT8 study's tables on answers that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgepkd.config import MODALITIES
from edgepkd.studies.answered import Answered
from edgepkd.studies.int8.jobs import FORMS
from edgepkd.studies.int8.tables import (
    cascade_table,
    deploy_form,
    exit_table,
    network_table,
    verdict,
)
from tests.studies.int8.made_int8 import GMAC, Wrong, made_int8

pytestmark = pytest.mark.slow

WRONG: Wrong = {
    "fp32": {"mv_1": range(10), "all": range(5)},
    "ptq-plain": {"mv_1": range(12), "all": range(5)},
    "ptq": {"mv_1": range(13), "all": range(5, 10)},
    "qat": {"mv_1": range(9), "all": range(6)},
    "qad": {"mv_1": range(11), "residual_2": range(8), "all": range(5)},
}


def judged(answered: Answered) -> tuple[dict[str, Any], dict[str, Any]]:
    """The verdict and the cascade's table."""
    deployed = {form: deploy_form(answered, form, gmac=GMAC) for form in FORMS}
    cascade = cascade_table(answered, deployed)
    return verdict(answered, exit_table(answered), cascade), cascade


def test_each_exit_by_counting() -> None:
    rows = {row["exit"]: row for row in exit_table(made_int8(WRONG))}
    assert list(rows)[:5] == ["mv_1", "mv_2", "mv_3", "mv_4", "residual_1"]
    assert len(rows) == 12
    first, other = rows["mv_1"], rows["mv_2"]
    assert {f: i.value for f, i in first["accuracy"].items()} == pytest.approx(
        {"fp32": 0.90, "ptq-plain": 0.88, "ptq": 0.87, "qat": 0.91, "qad": 0.89})
    assert {f: i.value for f, i in first["less_fp32"].items()} == pytest.approx(
        {"ptq-plain": -0.02, "ptq": -0.03, "qat": 0.01, "qad": -0.01})
    # As many wrong, but other clips: no difference, and ten labels that disagree.
    assert other["less_fp32"]["ptq"].value == 0
    assert other["agreement"]["ptq"].value == pytest.approx(0.90)
    assert other["agreement"]["qat"].value == pytest.approx(0.99)
    assert first["agreement"]["qad"].num_groups == 20


def test_the_columns_of_fp32_and_qad_cannot_be_swapped() -> None:
    """QAD loses exactly what FP32 does not: a swap would turn every sign."""
    answered = made_int8({"qad": {"all": range(10)}})
    found, cascade = judged(answered)
    for row in exit_table(answered):
        assert row["accuracy"]["fp32"].value == 1
        assert row["accuracy"]["qad"].value == pytest.approx(0.9)
        assert row["less_fp32"]["qad"].value == pytest.approx(-0.1)
        assert set(row["less_fp32"]) == set(row["agreement"]) == set(FORMS) - {"fp32"}
    assert cascade["full"]["less_fp32"]["qad"].value == pytest.approx(-0.1)
    assert cascade["operating_point"]["less_fp32"]["qad"].value == pytest.approx(-0.1)
    assert found["exits_within"] == {"ptq-plain": 12, "ptq": 12, "qat": 12, "qad": 0}
    assert found["qad_less_ptq"].value == pytest.approx(-0.1)
    assert found["qat_less_qad"].value == pytest.approx(0.1)


def test_the_verdict_by_hand() -> None:
    found, _ = judged(made_int8(WRONG))
    # PTQ: mv_1 loses 3. QAD: mv_1 loses 1, which is allowed; residual_2 loses 3. QAT: 1 everywhere.
    assert found["exits_within"] == {"ptq-plain": 11, "ptq": 11, "qat": 12, "qad": 11}
    assert found["ptq_less_plain"].value == pytest.approx((0.88 - 0.87) / -12)
    assert found["worst"]["ptq"] == {"less_fp32": pytest.approx(-0.03), "exits": ["mv_1"]}
    assert found["worst"]["qad"] == {"less_fp32": pytest.approx(-0.03), "exits": ["residual_2"]}
    assert len(found["worst"]["qat"]["exits"]) == 11
    assert found["mean_less_fp32"]["qad"].value == pytest.approx(-0.04 / 12)
    assert found["qad_less_ptq"].value == pytest.approx((0.02 - 0.03) / 12)
    assert found["qat_less_qad"].value == pytest.approx((0.02 + 0.02 - 10 * 0.01) / 12)
    assert found["one_clip"] == pytest.approx(0.01)


def test_an_interval_shows_less_than_a_value_says() -> None:
    """One clip in a hundred is within the limit, and no proof; no clip at all is one."""
    found, _ = judged(made_int8({"qad": {"all": [7], "iframe_4": []}}))
    assert found["exits_within"]["qad"] == 12
    assert found["exits_shown"]["qad"] == 1
    assert found["exits_shown"]["ptq"] == 12


def test_networks_and_cascade_are_weighed_ensembles() -> None:
    """Where one exit of four is wrong the others outvote it; where all are, nothing can."""
    answered = made_int8({"qad": {"mv_1": range(40)}, "ptq": {"all": range(20)}})
    deployed = {form: deploy_form(answered, form, gmac=GMAC) for form in FORMS}
    rows = {row["network"]: row for row in network_table(answered, deployed)}
    assert set(rows) == set(MODALITIES)
    assert rows["mv"]["accuracy"]["qad"].value == 1
    assert rows["mv"]["accuracy"]["ptq"].value == pytest.approx(0.8)
    full = cascade_table(answered, deployed)["full"]
    assert full["less_fp32"]["qad"].value == 0
    assert full["less_fp32"]["ptq"].value == pytest.approx(-0.2)


def test_the_operating_point_counts_exits_and_macs() -> None:
    """Of equal segments k of 12 cost k / 12, so that both columns say the same."""
    _, cascade = judged(made_int8({"ptq": {"mv_1": range(60), "mv_2": range(60)}}))
    point = cascade["operating_point"]
    for form in FORMS:
        assert point["macs_saved"][form].value == pytest.approx(
            1 - point["mean_exit"][form].value / 12)
    assert point["mean_exit"]["fp32"].value == 1  # its first exit is right, and sure of it
    assert point["mean_exit"]["ptq"].value > 1.5


def test_exits_that_flip_are_counted_clip_by_clip() -> None:
    """Means of exits can be equal where every clip leaves elsewhere."""
    answered = made_int8({"ptq": {"mv_1": range(60), "mv_2": range(60)}})
    deployed = {form: deploy_form(answered, form, gmac=GMAC) for form in FORMS}
    flips = cascade_table(answered, deployed)["operating_point"]["exit_flips"]
    assert {flips[form].value for form in ("fp32", "ptq-plain", "qat", "qad")} == {0}
    expected = float((deployed["ptq"].exits != deployed["fp32"].exits).mean())
    assert flips["ptq"].value == pytest.approx(expected)
    assert expected > 0.3
    found, _ = judged(answered)
    assert found["flips_within"] == {"ptq-plain": True, "ptq": False, "qat": True, "qad": True}


def test_a_fold_is_fitted_on_the_others_alone() -> None:
    """Other labels in a fold change what the rest is weighed by, never its own exits taken."""
    answered = made_int8({form: {"mv_1": range(30), "all": range(5)} for form in FORMS})
    before = deploy_form(answered, "qad", gmac=GMAC)
    mine = answered.folds == 0
    truth = answered.truth.copy()
    truth[mine] = (truth[mine] + 1) % 3
    after = deploy_form(replace(answered, truth=truth), "qad", gmac=GMAC)
    np.testing.assert_array_equal(before.exit_number[mine], after.exit_number[mine])
    assert not np.array_equal(before.exit_number[~mine], after.exit_number[~mine])


def test_every_form_is_fitted_on_its_own_answers() -> None:
    """QAD's numbers stay as they are whatever FP32 answers."""
    plain = deploy_form(made_int8(WRONG), "qad", gmac=GMAC)
    other = deploy_form(made_int8({**WRONG, "fp32": {"all": range(70)}}), "qad", gmac=GMAC)
    for name in ("full", "early", "exit_number", "saved"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(other, name))
