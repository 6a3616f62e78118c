"""Settings of quantising: where the result goes, what changes the recipe, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.errors import ConfigError, EdgepkdError, UsageError
from edgepkd.pipeline.quantize_config import QuantDone, QuantizeConfig
from edgepkd.quantize.fidelity import ExitFidelity

RUN = Path("runs/a")


def test_each_method_has_a_folder_in_the_run() -> None:
    assert QuantizeConfig(run=RUN).out == RUN / "int8-ptq"
    assert QuantizeConfig(run=RUN, method="qad").out == RUN / "int8-qad"


def test_options_of_their_own_change_the_recipe_where_they_are_given() -> None:
    assert QuantizeConfig(run=RUN).all_changes == {}
    config = QuantizeConfig(run=RUN, changes={"min_clips": 2, "calibration_clips": 9},
                            calibrator="mse", calibration_clips=5)
    assert config.all_changes == {
        "min_clips": 2, "quantizer.calibrator": "mse", "calibration_clips": 5}


@pytest.mark.parametrize(("target", "bits"), [
    ("tensorrt", 8), ("jetson-orin-nano", 8), ("openvino", 7)])
def test_the_target_decides_the_bits_of_weights(target: str, bits: int) -> None:
    config = QuantizeConfig(run=RUN, target=target)
    assert config.all_changes == {"quantizer.weight_bits": bits}


def test_a_target_that_takes_any_leaves_the_bits_to_the_recipe() -> None:
    assert QuantizeConfig(run=RUN, target="onnx").all_changes == {}


def test_exits_that_fell_are_named() -> None:
    exits = (ExitFidelity(1, 0.8, 0.8, 0.96, 20.0, 0.0), ExitFidelity(2, 0.8, 0.7, 0.9, 9.0, 0.2))
    done = QuantDone("ptq", "mv", RUN / "mv.json", False, {}, 1.0, exits=exits)
    assert done.fallen == "mv_2 falls from 80.0 to 70.0 %, and keeps 90.0 % of the labels"
    assert replace(done, exits=exits[:1]).fallen == ""
    counted = replace(done, exits=(replace(exits[1], num_clips=20),))
    assert counted.fallen.endswith("keeps 90.0 % of the labels of 20 clips")


@pytest.mark.parametrize(("changes", "message", "error"), [
    ({"method": "awq"}, "method is 'awq'; allowed: ptq, qat, qad", ConfigError),
    ({"modalities": ()}, "modality is ", ConfigError),
    ({"modalities": ("rgb",)}, "modality is ", ConfigError),
    ({"jobs": 0}, "jobs is 0", ConfigError), ({"threads": 0}, "threads is 0", ConfigError),
    ({"resume": True, "force": True}, "--resume keeps", UsageError),
    ({"target": "openvino", "changes": {"quantizer.weight_bits": 8}},
     "both --target and --set quantizer.weight_bits", UsageError),
])
def test_wrong_settings_are_named(
    changes: dict[str, Any], message: str, error: type[EdgepkdError]
) -> None:
    with pytest.raises(error, match=message):
        QuantizeConfig(run=RUN, **changes)
