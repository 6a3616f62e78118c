"""Engines are read back as written, through no link, and no further than their sidecar says."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle import trust
from edgepkd.bundle.engine_files import (
    damaged,
    engine_targets,
    read_engines,
    read_plan,
    read_timing_cache,
)
from edgepkd.bundle.engines import SIDECAR, EngineSet, engines_folder, is_target_name
from edgepkd.errors import BundleError
from tests.stored_engines import store


def test_round_trip(engines: EngineSet, tmp_path: Path) -> None:
    folder = engines_folder(tmp_path, engines.target)
    store(folder, engines)
    assert [path.name for path in folder.iterdir()] == [SIDECAR]
    assert read_engines(tmp_path, engines.target) == engines
    assert engine_targets(tmp_path) == ("jetson-orin-nano",)


def test_no_engines_says_what_there_is_and_how_to_build(
    engines: EngineSet, tmp_path: Path
) -> None:
    store(engines_folder(tmp_path, engines.target), engines)
    with pytest.raises(BundleError, match=r"it has: jetson-orin-nano.*export .*--target openvino"):
        read_engines(tmp_path, "openvino")


@pytest.mark.parametrize("target", ["", ".", "..", "../x", "a/b", ".hidden", "a b", "a\nb", "ä",
                                    "-rf", "x" * 65, "a\0"])
def test_names_that_are_no_target_are_refused(tmp_path: Path, target: str) -> None:
    assert not is_target_name(target)
    with pytest.raises(BundleError, match="target is"):
        read_engines(tmp_path, target)
    assert engine_targets(tmp_path) == ()


def test_only_folders_with_a_sidecar_are_targets_and_links_are_told(
    engines: EngineSet, tmp_path: Path
) -> None:
    store(engines_folder(tmp_path, engines.target), engines)
    folder = tmp_path / "engines"
    (folder / "README").write_text("a file")
    (folder / "empty").mkdir()
    (folder / ".jetson.partial").mkdir()
    (folder / ".jetson.partial" / SIDECAR).write_text("{}")
    (folder / "elsewhere").symlink_to(folder / engines.target)
    os.mkfifo(folder / "fifo")
    assert engine_targets(tmp_path) == ("elsewhere", "fifo", engines.target)
    for name, what in (("elsewhere", "a link"), ("fifo", "neither a file nor a folder")):
        with pytest.raises(BundleError, match=f"engines/{name} is {what}"):
            read_engines(tmp_path, name)


@pytest.mark.parametrize("name", ["engines", "engines/jetson-orin-nano",
                                  "engines/jetson-orin-nano/engines.json",
                                  "engines/jetson-orin-nano/mv_1.engine"])
def test_nothing_is_read_through_a_link(
    engines: EngineSet, manifest: Any, tmp_path: Path, name: str
) -> None:
    here = tmp_path / "here"
    folder = engines_folder(here, engines.target)
    content = b"a plan."
    plans = {name: replace(one, sha256=hashlib.sha256(content).hexdigest())
             for name, one in engines.plans.items()}
    store(folder, replace(engines, plans=plans))
    (folder / "mv_1.engine").write_bytes(content)
    assert read_plan(here, read_engines(here, engines.target), "mv_1") == content
    (here / name).rename(tmp_path / "moved")
    (here / name).symlink_to(tmp_path / "moved")
    with pytest.raises(BundleError, match=f"{name} is a link"):
        read_plan(here, read_engines(here, engines.target), "mv_1")


def test_a_plan_is_read_no_further_than_its_sidecar_says(
    engines: EngineSet, tmp_path: Path
) -> None:
    """A sparse file may say that it is as long as all memory."""
    store(engines_folder(tmp_path, engines.target), engines)
    with open(engines_folder(tmp_path, engines.target) / "mv_1.engine", "wb") as plan:
        plan.truncate(1 << 40)
    with pytest.raises(BundleError, match="has 1099511627776 bytes; its sidecar says 7"):
        read_plan(tmp_path, engines, "mv_1")
    assert damaged(tmp_path, engines)[0].startswith("mv_1.engine has 1099511627776 bytes")


def test_a_timing_cache_is_one_that_is_listed_and_no_larger_than_one_is(
    engines: EngineSet, tmp_path: Path
) -> None:
    folder = engines_folder(tmp_path, engines.target)
    store(folder, engines)
    assert read_timing_cache(tmp_path, engines.target) == b""
    (folder / "timing.cache").write_bytes(b"tactics")
    assert read_timing_cache(tmp_path, engines.target) == b""
    trust.add(trust.digest_of(b"tactics"))
    assert read_timing_cache(tmp_path, engines.target) == b"tactics"
    with open(folder / "timing.cache", "wb") as cache:
        cache.truncate(1 << 40)
    assert read_timing_cache(tmp_path, engines.target) == b""
