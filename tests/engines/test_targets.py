"""Recipes of export/: all load, wrong ones are refused by key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.engines.targets import Target, engine_target_names, load_target, within
from edgepkd.errors import ConfigError
from edgepkd.machine import hardware
from edgepkd.recipes import recipe_names


@pytest.mark.parametrize("name", recipe_names("export"))
def test_every_recipe_is_a_target(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert target.purpose.endswith(".")
    if target.builder != "onnx":
        assert target.versions
        assert "int8" in target.precisions
        assert target.float_precision == ("fp32" if name == "openvino" else "fp16")


def test_the_boards_are_there() -> None:
    assert {"openvino", "tensorrt", "tensorrt-rtx", "jetson-orin-nano", "jetson-orin-nx",
            "jetson-agx-orin", "jetson-thor"} <= set(engine_target_names())
    assert "onnx" not in engine_target_names()


@pytest.mark.parametrize(("name", "version", "runs", "has_dla"), [
    ("jetson-orin-nano", "10.3.0.30", True, False),
    ("jetson-orin-nano", "10.5.0", False, False),
    ("jetson-orin-nano", "11.4.1", False, False),
    ("jetson-orin-nx", "10.3.0", True, True),
    ("jetson-orin-nx", "10.16.1", True, False),
    ("jetson-agx-orin", "10.3.0", True, True),
    ("jetson-agx-orin", "11.4.0", False, False),
    ("jetson-agx-orin", "11.4.1.2", True, True),
    ("jetson-thor", "10.3.0", False, False),
    ("jetson-thor", "11.4.1", True, False),
    ("tensorrt-rtx", "1.7.1.116", True, False),
])
def test_which_library_versions_a_board_takes(
    name: str, version: str, runs: bool, has_dla: bool
) -> None:
    target = load_target(name)
    assert target.accepts(version) == runs
    assert within(version, target.dla_versions) == has_dla


def test_the_onnx_form_has_no_engines() -> None:
    with pytest.raises(ConfigError, match=r"is the ONNX form itself.*openvino"):
        _ = load_target("onnx").library


def test_unknown_target_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'toaster'; allowed: jetson-agx-orin, .*tensorrt-rtx"):
        load_target("toaster")


def test_an_own_recipe_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_text('purpose = "Ours."\nbuilder = "openvino"\nagreement_floor = 0.9\n')
    target = load_target(str(path))
    assert (target.name, target.library, target.agreement_floor) == ("kiosk", "openvino", 0.9)
    path.write_text('purpose = "Ours."\nbulider = "openvino"\n')
    with pytest.raises(ConfigError, match=r"bulider"):
        load_target(str(path))


@pytest.mark.parametrize(("changes", "message"), [
    ({"builder": "tvm"}, "builder is 'tvm'"),
    ({"precision": "int4"}, "precision is 'int4'"),
    ({"weights": "int8"}, "weights is 'int8'"),
    ({"versions": ("10.3",)}, "versions is .*>=10.3,<10.4"),
    ({"compute_capability": "87"}, "compute_capability is '87'"),
    ({"memory_gb": 0}, "memory_gb is 0"),
    ({"workspace_share": 1.5}, "workspace_share is 1.5"),
    ({"optimization_level": 6}, "optimization_level is 6"),
    ({"agreement_floor": 97}, "agreement_floor is 97"),
    ({"dla_versions": (">=10.3",)}, "dla_cores is 0"),
    ({"hardware_compatible": True}, "portable is False"),
])
def test_wrong_values_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    target = Target(purpose="A test.", name="test", builder="tensorrt")
    with pytest.raises(ConfigError, match=message):
        replace(target, **changes)


@pytest.mark.parametrize(("board", "yes"), [
    ("NVIDIA Jetson Orin Nano Developer Kit, # R36", "jetson-orin-nano"),
    ("NVIDIA Jetson Orin NX Engineering Reference, # R36", "jetson-orin-nx"),
    ("NVIDIA Jetson AGX Orin Developer Kit, # R36", "jetson-agx-orin"),
    ("NVIDIA Jetson AGX Thor Developer Kit, # R38", "jetson-thor"),
    (None, None),
])
def test_a_board_is_one_target(
    board: str | None, yes: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "jetson", lambda: board)
    found = [n for n in engine_target_names()
             if load_target(n).jetson and load_target(n).is_this_board()]
    assert found == ([yes] if yes else [])
    assert load_target("openvino").is_this_board()
