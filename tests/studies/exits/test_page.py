"""The page of the study of exits says what its tables say."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.logits.metrics import Interval
from edgepkd.studies.exits.page import page
from edgepkd.studies.exits.tables import SetResult, compute
from edgepkd.studies.markdown import points
from edgepkd.studies.study import load_study
from tests.studies.exits.made_answers import made_answers, made_flatness


def result(wrong_share: dict[str, float]) -> SetResult:
    return compute(made_answers(wrong_share=wrong_share), [made_flatness()])


def text(found: SetResult, *, plots: tuple[Path, ...] = ()) -> str:
    return "\n".join(page([found], load_study("reproduce-quick"), plots, "study"))


def less_ce(found: SetResult, arm: str) -> Interval:
    """Mean difference over the internal classifiers of all networks."""
    interval: Interval = found.means[-1]["less_ce"][arm]
    return interval


@pytest.mark.slow
def test_a_gain_is_called_one() -> None:
    found = result({"ce": 0.6, "pkd": 0.2})
    gain = less_ce(found, "pkd")
    assert gain.low > 0
    assert (f"**Made, PKD against CE** at equal epochs: {points(gain)} points over the nine "
            "internal classifiers, PKD is better.") in text(found)


@pytest.mark.slow
def test_a_loss_is_called_one_and_none_none() -> None:
    worse = result({"ce": 0.1, "pkd": 0.5})
    assert less_ce(worse, "pkd").high < 0
    assert "internal classifiers, CE is better." in text(worse)
    assert "internal classifiers, no difference shown." in text(result({"ce": 0.4, "pkd": 0.4}))


@pytest.mark.slow
def test_every_table_and_plot_of_a_set_is_there() -> None:
    plots = (Path("x/reproduce-weizmann-wise.png"), Path("x/another-set-wise.png"))
    lines = text(result({}), plots=plots)
    for head in ("Internal classifiers, equal epochs", "Internal classifiers, the paper's epochs",
                 "Made, each exit", "Made, WISE", "Flatness of the trunks", "Time"):
        assert f"## {head}\n" in lines
    assert "![reproduce-weizmann-wise](reproduce-weizmann-wise.png)" in lines
    assert "another-set" not in lines
    assert "| Made | 72 | 3 | 12 | 2 folds of whole groups | 40 |" in lines
    assert "relative trace: residual < mv < iframe" in lines
    assert "The paper: iframe < residual < mv." in lines
    assert "| Made | exits | 4 | 4 |" in lines  # of 3 s and 4 s: 3.5 to an even number
    assert lines.count("| mv_1 |") == 3  # each exit; WISE over the exits of CE and of PKD
