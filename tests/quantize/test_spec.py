"""Settings of quantisers: each wrong value is named with what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from edgepkd.config import facts_of
from edgepkd.errors import ConfigError
from edgepkd.quantize.spec import QuantSpec


@pytest.mark.parametrize(("changes", "message"), [
    ({"calibrator": "minmax"}, "calibrator is 'minmax'; allowed: max, percentile, entropy, mse"),
    ({"percentile": 89.9}, r"percentile is 89.9; allowed: 90\.\.100"),
    ({"percentile": 100.1}, r"percentile is 100.1; allowed: 90\.\.100"),
    ({"weight_bits": 4}, "weight_bits is 4; allowed: 7, 8"),
    ({"residual_add": "none"}, "residual_add is 'none'; allowed: both, shortcut"),
])
def test_a_wrong_value_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QuantSpec(**changes)


def test_the_limits_themselves_are_allowed() -> None:
    assert QuantSpec(percentile=90).percentile == 90
    assert QuantSpec(percentile=100, weight_bits=8).weight_bits == 8


def test_names_count_for_all_networks_or_for_the_one_in_front() -> None:
    spec = QuantSpec(keep_float=("*.fc", "mv:a.b", "residual:c", "auto"))
    assert spec.is_auto
    assert spec.of("mv").keep_float == ("*.fc", "a.b")
    assert spec.of("residual", found=("d", "c")).keep_float == ("*.fc", "c", "d")
    assert spec.of("iframe").keep_float == ("*.fc",)
    assert not spec.of("iframe").is_auto
    assert not QuantSpec().is_auto


def test_facts_of_an_old_recipe_are_those_of_an_old_version() -> None:
    """Results that earlier versions left are told by these facts."""
    assert facts_of(QuantSpec()) == {"calibrator": "max", "percentile": 99.99, "weight_bits": 7,
                                   "residual_add": "both", "keep_float": ()}
    assert facts_of(QuantSpec(bias_correction=True))["bias_correction"] is True
