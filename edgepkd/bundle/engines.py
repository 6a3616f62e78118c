"""The engines of a bundle for one target: what is known of them, and what they are called.

    engines/<target>/engines.json    the sidecar: library and version, machine, flags, source hashes
    engines/<target>/mv_1.engine …   plain plans, as trtexec loads them; for OpenVINO its own blobs
    engines/<target>/timing.cache    where the builder keeps one

`sidecar` says what may be in the JSON, `engine_files` reads and writes the folder, `engine_match`
says whether the plans may be used here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgepkd.bundle import trust
from edgepkd.libraries.versions import Library

Precision = Literal["fp32", "fp16", "int8"]
AskedPrecision = Literal["fp32", "fp16", "int8", "auto"]
Via = Literal["onnx", "torch-tensorrt"]

ENGINES = "engines"
SIDECAR = "engines.json"
TIMING_CACHE = "timing.cache"
ENGINES_SCHEMA_VERSION = 1
VERSION_COMPATIBLE = "version_compatible"
HARDWARE_COMPATIBLE = "hardware_compatible"
_TARGET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class PlanRecord:
    """One plan, and the segment that it was built from."""

    file: str
    """Name within the folder of the target."""
    sha256: str
    bytes: int
    source: str
    """The segment's ONNX file within the bundle."""
    source_sha256: str
    precision: Precision
    min_frames: int
    """Smallest batch, counted in temporal segments."""
    opt_frames: int
    max_frames: int
    build_s: float
    measured_ms: Mapping[str, float] | None = None
    """Precision -> median of one call at opt_frames; None where it could not be measured."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuiltOn:
    """Library and machine; None where there is nothing to see."""

    library: Library
    library_version: str
    os: str
    machine: str
    """Architecture: x86_64, aarch64."""
    python: str
    compute_capability: str | None = None
    gpu: str | None = None
    driver: str | None = None
    cuda: str | None = None
    jetson: str | None = None
    instruction_sets: tuple[str, ...] | None = None
    """Of the CPU; only for OpenVINO, whose plans are for no other."""


@dataclass(frozen=True)
class EngineSet:
    """All plans of a bundle for one target."""

    target: str
    built_on: BuiltOn
    precision: AskedPrecision
    """As asked for; each plan says its own."""
    plans: Mapping[str, PlanRecord]
    """Segment ('mv_1') -> its plan."""
    via: Via = "onnx"
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the builder, and the GPUs it was told to build for."""
    schema_version: int = ENGINES_SCHEMA_VERSION
    sidecar_sha256: str = field(default="", compare=False)
    """Of the sidecar that this was read from; it is in no file."""

    @property
    def is_covered(self) -> bool:
        """Whether `edgepkd export` has built them here, for this user."""
        return trust.is_listed(self.sidecar_sha256)


def is_target_name(name: str) -> bool:
    """Whether a target may be called so: it is the name of a folder, and part of commands."""
    return _TARGET.fullmatch(name) is not None


def engines_folder(bundle_path: Path, target: str) -> Path:
    """What to call the folder of the engines of `target`; it is opened with `open_engines`."""
    return bundle_path / ENGINES / target


def partial_name(target: str) -> str:
    """What the folder beside it is called in which engines of `target` are put together."""
    return f".{target}.partial"
