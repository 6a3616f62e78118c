"""The audit counts what is known, and pyproject.toml allows no version with a known fault."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.audit import FLOORS, faults_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads(
    (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_each_fault_is_a_line_and_skipped_packages_do_not_count() -> None:
    packages = [
        {"name": "good", "version": "1.0", "vulns": []},
        {"name": "bad", "version": "2.0", "vulns": [
            {"id": "GHSA-1", "fix_versions": ["2.1"]}, {"id": "GHSA-2", "fix_versions": []}]},
        {"name": "unknown", "skip_reason": "not found"},
    ]
    assert faults_of(packages) == (
        ["bad 2.0: GHSA-1, fixed in: 2.1", "bad 2.0: GHSA-2, fixed in: none yet"], 2)


@pytest.mark.parametrize("name", FLOORS)
def test_versions_with_known_faults_are_not_allowed(name: str) -> None:
    extras = PROJECT["optional-dependencies"].values()
    wanted = [Requirement(text) for texts in (PROJECT["dependencies"], *extras) for text in texts]
    specifiers = [one.specifier for one in wanted if one.name == name]
    assert specifiers
    for specifier in specifiers:
        lowest = [Version(re.sub(r"\.\*$", "", one.version)) for one in specifier
                  if one.operator in (">=", "==", "~=")]
        assert max(lowest, default=Version("0")) >= Version(FLOORS[name][0])
