"""The numbers of the study of the defaults."""

from __future__ import annotations

import numpy as np
import pytest

from tests.studies.defaults.made_defaults import made_defaults

pytestmark = pytest.mark.slow


def test_networks_that_are_right_make_a_cascade_that_is_right_and_leaves_early() -> None:
    found = made_defaults({})
    assert [right.mean() for right in (*found.full, *found.early)] == [1.0] * 4
    assert all(found.beats_chance(m) for m in ("mv", "residual", "iframe"))
    for seed in found.seeds:
        # Every segment costs the same: leaving at exit k of 12 saves 1 - k / 12.
        np.testing.assert_allclose(seed.saved, 1 - seed.trial.exits / 12)
        assert seed.saved.mean() > 0.5
    assert [seed.form.is_stacked for seed in found.seeds] == [True, False]


def test_a_network_at_chance_is_no_better_than_chance() -> None:
    found = made_defaults({"iframe": 0.67})
    assert found.chance == pytest.approx(1 / 3)
    assert not found.beats_chance("iframe")
    assert found.beats_chance("mv")


@pytest.mark.parametrize(("tuned", "near"), [
    ((1.0, 1.0), True), ((0.9, 0.9), True), (None, None)])
def test_near_is_within_three_points(
    tuned: tuple[float, float] | None, near: bool | None
) -> None:
    assert made_defaults({}, tuned=tuned).is_near is near


def test_what_loses_more_than_three_points_is_not_near() -> None:
    wrong = {"mv": 0.3, "residual": 0.3, "iframe": 0.3}
    full = np.mean(made_defaults(wrong).full)
    assert made_defaults(wrong, tuned=(full + 0.03, 0.0)).is_near is True
    assert made_defaults(wrong, tuned=(full + 0.04, 0.0)).is_near is False
    assert made_defaults(wrong, tuned=(0.0, 1.0)).is_near is False
