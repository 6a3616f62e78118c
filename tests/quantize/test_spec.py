"""Settings of quantisers: each wrong value is named with what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

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
