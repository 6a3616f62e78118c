"""The page of the study of the defaults says what its tables say."""

from __future__ import annotations

import pytest

from edgepkd.studies.defaults.page import page
from edgepkd.studies.defaults.tables import SetResult
from edgepkd.studies.study import load_study
from tests.studies.defaults.made_defaults import made_defaults

pytestmark = pytest.mark.slow


def text(found: SetResult) -> str:
    return "\n".join(page([found], load_study("defaults-quick"), "defaults"))


def test_a_good_recipe_is_called_near_the_tuned_one() -> None:
    said = text(made_defaults({}))
    assert "- **Made**: within 3 points of the tuned recipe: full chain +20.0, cascade +20.0." \
        in said
    assert "- **Made**: the interval of every network lies above chance (33 %)." in said
    assert "| Made | 120, 20 | 33 | - | 50.0 | 100.0 [100.0, 100.0]; 100.0, 100.0 |" in said


def test_what_falls_short_is_said() -> None:
    said = text(made_defaults({"mv": 0.5, "residual": 0.5, "iframe": 0.7}))
    assert "- **Made**: NOT within 3 points of the tuned recipe: full chain -" in said
    assert "- **Made**: iframe not shown to beat chance (33 %)." in said


def test_every_seed_says_what_was_taken_and_why() -> None:
    said = text(made_defaults({}, tuned=None))
    assert "| Made | 1 | stacked | stacked is better | " in said
    assert "| Made | 2 | averaged | averaged is better | " in said
    assert "tuned recipe:" not in said
    assert said.count("| mv_1 |") == 1
