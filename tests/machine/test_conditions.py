"""Conditions are part of file schemas: their keys, and the order of these, do not change."""

from __future__ import annotations

import platform
from importlib import metadata

import pytest

from edgepkd import __version__
from edgepkd.machine import hardware
from edgepkd.machine.conditions import PACKAGES, conditions, machine_conditions, versions

NUMPY = metadata.version("numpy")
ABSENT = "edgepkd-is-not-called-this"


def test_a_bundle_says_what_its_answers_depend_on() -> None:
    found = conditions(cpu_capability="AVX2")
    assert list(found) == ["edgepkd", "python", "packages", "cpu_capability"]
    assert list(found["packages"]) == list(PACKAGES) == [
        "torch", "av", "numpy", "numba", "onnx", "openvino", "scipy", "nvidia-modelopt"]
    assert (found["edgepkd"], found["python"]) == (__version__, platform.python_version())
    assert (found["packages"]["numpy"], found["cpu_capability"]) == (NUMPY, "AVX2")


def test_a_fit_names_its_packages_and_no_processor() -> None:
    assert conditions((ABSENT, "numpy")) == {
        "edgepkd": __version__, "python": platform.python_version(),
        "packages": {ABSENT: None, "numpy": NUMPY}}


def test_a_run_has_all_versions_in_one_table() -> None:
    found = versions(("numpy", ABSENT))
    assert list(found.items()) == [
        ("edgepkd", __version__), ("python", platform.python_version()), ("numpy", NUMPY),
        (ABSENT, None)]


def test_measured_numbers_name_the_processor_and_what_is_installed(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu", lambda: "A CPU")
    monkeypatch.setattr(hardware, "num_cores", lambda: 3)
    assert list(machine_conditions(("numpy", ABSENT)).items()) == [
        ("cpu", "A CPU"), ("num_cores", 3), ("python", platform.python_version()),
        ("edgepkd", __version__), ("packages", {"numpy": NUMPY})]
