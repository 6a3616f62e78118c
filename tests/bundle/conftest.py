"""A tiny bundle, a copy of it to break, and engines of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle.engines import EngineSet, PlanRecord
from edgepkd.bundle.reading import Bundle
from tests.bundle.orin import ORIN
from tests.runtime.bundles import make_bundle


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def copy(pristine: Bundle, tmp_path: Path) -> Path:
    """A bundle of one's own to break."""
    return Path(shutil.copytree(pristine.path, tmp_path / "copy.edgepkd"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_bundle(tmp_path_factory.mktemp("bundle")).manifest


@pytest.fixture
def engines(manifest: Any) -> EngineSet:
    plans = {}
    for entry in manifest.segments:
        name = entry.name
        plans[name] = PlanRecord(
            file=f"{name}.engine", sha256="0" * 64, bytes=7, source=entry.file,
            source_sha256=manifest.files[entry.file].sha256, precision="int8", min_frames=1,
            opt_frames=2, max_frames=2, build_s=1.5, measured_ms={"int8": 0.5, "fp16": 0.75},
            notes=("a note",))
    return EngineSet(target="jetson-orin-nano", built_on=ORIN, precision="auto", plans=plans,
                     flags={"dla": None, "compute_capabilities": []})
