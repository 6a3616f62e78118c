"""What engines are called, and when they count as built here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.bundle import trust
from edgepkd.bundle.engines import EngineSet, engines_folder, is_target_name, partial_name


@pytest.mark.parametrize("name", ["openvino", "jetson-orin-nano", "_x", "10.3", "A" * 64])
def test_names_of_targets_are_names_of_folders(name: str) -> None:
    assert is_target_name(name)
    assert engines_folder(Path("b.edgepkd"), name) == Path("b.edgepkd/engines") / name


@pytest.mark.parametrize("name", ["openvino", "A" * 64])
def test_the_folder_of_a_build_is_no_target(name: str) -> None:
    assert not is_target_name(partial_name(name))
    assert partial_name(name) != partial_name(f"{name[:-1]}b")


def test_engines_are_covered_where_their_sidecar_is_on_this_users_list(engines: EngineSet) -> None:
    assert not engines.is_covered, "they were read from nowhere"
    digest = trust.digest_of(b"a sidecar")
    read = replace(engines, sidecar_sha256=digest)
    assert read == engines, "where it was read from is no part of what they are"
    assert not read.is_covered
    trust.add(digest)
    assert read.is_covered
    trust.forget(digest)
    assert not read.is_covered
