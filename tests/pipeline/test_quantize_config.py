"""Settings of quantising: where the result goes, what changes the recipe, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgepkd.errors import ConfigError, EdgepkdError, UsageError
from edgepkd.pipeline.quantize_config import QuantizeConfig

RUN = Path("runs/a")


def test_each_method_has_a_folder_in_the_run() -> None:
    assert QuantizeConfig(run=RUN).out == RUN / "int8-qad"
    assert QuantizeConfig(run=RUN, method="ptq").out == RUN / "int8-ptq"


def test_options_of_their_own_change_the_recipe_where_they_are_given() -> None:
    assert QuantizeConfig(run=RUN).all_changes == {}
    config = QuantizeConfig(run=RUN, changes={"min_clips": 2, "calibration_clips": 9},
                            calibrator="mse", calibration_clips=5)
    assert config.all_changes == {
        "min_clips": 2, "quantizer.calibrator": "mse", "calibration_clips": 5}


@pytest.mark.parametrize(("changes", "message", "error"), [
    ({"method": "awq"}, "method is 'awq'; allowed: ptq, qat, qad", ConfigError),
    ({"modalities": ()}, "modality is ", ConfigError),
    ({"modalities": ("rgb",)}, "modality is ", ConfigError),
    ({"jobs": 0}, "jobs is 0", ConfigError), ({"threads": 0}, "threads is 0", ConfigError),
    ({"resume": True, "force": True}, "--resume keeps", UsageError),
])
def test_wrong_settings_are_named(
    changes: dict[str, Any], message: str, error: type[EdgepkdError]
) -> None:
    with pytest.raises(error, match=message):
        QuantizeConfig(run=RUN, **changes)
