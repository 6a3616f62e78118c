"""The sidecar `engines.json`: what it may say of the engines beside it.

It may come from a stranger, as all of a bundle; what it says becomes part of messages, of commands
to be typed, and of how plans are loaded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, get_args

from edgepkd.bundle import trust
from edgepkd.bundle.engines import (
    ENGINES_SCHEMA_VERSION,
    HARDWARE_COMPATIBLE,
    SIDECAR,
    VERSION_COMPATIBLE,
    BuiltOn,
    EngineSet,
    PlanRecord,
    Precision,
)
from edgepkd.bundle.schema import build, parse_json, require

MAX_FRAMES = 1024
"""Of one call of a plan."""
MAX_NOTE = 1000
"""Characters of a plan's note, of which there are not many."""
_MAX_NOTES = 20
_MAX_PLAN_BYTES = 1 << 30
_MAX_SETS = 100
_MAX_TEXT = 200
_VERSION = re.compile(r"[0-9]{1,6}\.[0-9]{1,6}(\.[A-Za-z0-9+_]{1,20}){0,4}")
_CAPABILITY = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
_SEGMENT = re.compile(r"[a-z]{1,20}_[1-9][0-9]?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def parse_sidecar(content: bytes, *, target: str) -> EngineSet:
    """The engines of `target` that the sidecar describes; every value is one that may be there.

    Raises:
        BundleError: it is damaged, of another target, or a newer edgepkd wrote it; names the key.
    """
    values = dict(parse_json(content, where=SIDECAR, newest=ENGINES_SCHEMA_VERSION))
    del values["schema_version"]
    require("sidecar_sha256" not in values, f"{SIDECAR}: key sidecar_sha256", "there", "no such")
    engines: EngineSet = build(EngineSet, values, where=SIDECAR)
    require(engines.target == target, f"{SIDECAR}: target", engines.target, target)
    _check_machine(engines.built_on)
    _check_flags(engines.flags)
    for segment, plan in engines.plans.items():
        _check_plan(segment, plan)
    return replace(engines, sidecar_sha256=trust.digest_of(content))


def sidecar_of(engines: EngineSet) -> bytes:
    """The sidecar that says what `engines` are."""
    values = asdict(engines)
    del values["sidecar_sha256"]
    return json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False).encode() + b"\n"


def _check_plan(segment: str, plan: PlanRecord) -> None:
    where = f"{SIDECAR}: plans.{segment}"
    require(_SEGMENT.fullmatch(segment) is not None, f"{SIDECAR}: a key of plans", segment,
            "such as mv_1")
    require(plan.file == f"{segment}.engine", f"{where}.file", plan.file, f"{segment}.engine")
    for name in ("sha256", "source_sha256"):
        require(_SHA256.fullmatch(getattr(plan, name)) is not None, f"{where}.{name}",
                getattr(plan, name), "64 hexadecimal digits")
    require(0 < plan.bytes <= _MAX_PLAN_BYTES, f"{where}.bytes", plan.bytes,
            f"1..{_MAX_PLAN_BYTES}")
    frames = plan.min_frames, plan.opt_frames, plan.max_frames
    require(1 <= frames[0] <= frames[1] <= frames[2] <= MAX_FRAMES,
            f"{where}: min_frames, opt_frames, max_frames", frames,
            f"in this order, 1..{MAX_FRAMES}")
    _check_time(f"{where}.build_s", plan.build_s)
    for precision, measured in (plan.measured_ms or {}).items():
        require(precision in get_args(Precision), f"{where}.measured_ms: a key", precision,
                ", ".join(get_args(Precision)))
        _check_time(f"{where}.measured_ms.{precision}", measured)
    require(len(plan.notes) <= _MAX_NOTES, f"{where}.notes: number", len(plan.notes),
            f"up to {_MAX_NOTES}")
    for note in plan.notes:
        _check_text(f"{where}.notes", note, MAX_NOTE)
    _check_text(f"{where}.source", plan.source, _MAX_TEXT)


def _check_time(where: str, time: float) -> None:
    require(math.isfinite(time) and 0 <= time <= 1e9, where, time, "0..1e9")


def _check_text(where: str, text: str, longest: int) -> None:
    require(len(text) <= longest, where, text, f"up to {longest} characters")


def _check_machine(machine: BuiltOn) -> None:
    where = f"{SIDECAR}: built_on"
    require(_VERSION.fullmatch(machine.library_version) is not None,
            f"{where}.library_version", machine.library_version, "such as 10.3.0")
    capability, sets = machine.compute_capability, machine.instruction_sets or ()
    require(capability is None or _CAPABILITY.fullmatch(capability) is not None,
            f"{where}.compute_capability", capability, "such as 8.7")
    for name, value in asdict(machine).items():
        if isinstance(value, str):
            _check_text(f"{where}.{name}", value, _MAX_TEXT)
    require(len(sets) <= _MAX_SETS, f"{where}.instruction_sets: number", len(sets),
            f"up to {_MAX_SETS}")
    for one in sets:
        _check_text(f"{where}.instruction_sets", one, _MAX_TEXT)


def _check_flags(flags: Mapping[str, Any]) -> None:
    where = f"{SIDECAR}: flags"
    numbers, switches = {"workspace_mb", "dla", "optimization_level"}, {
        VERSION_COMPATIBLE, HARDWARE_COMPATIBLE}
    known = {*numbers, *switches, "compute_capabilities"}
    require(set(flags) <= known, where, sorted(set(flags) - known), ", ".join(sorted(known)))
    for name in numbers & set(flags):
        value = flags[name]
        require(value is None or (type(value) is int and 0 <= value < 1 << 31), f"{where}.{name}",
                value, "a whole number from 0, or null")
    for name in switches & set(flags):
        require(isinstance(flags[name], bool), f"{where}.{name}", flags[name], "true, false")
    given = flags.get("compute_capabilities") or []
    require(isinstance(given, list) and len(given) <= 64
            and all(isinstance(one, str) and _CAPABILITY.fullmatch(one) for one in given),
            f"{where}.compute_capabilities", given, "a list such as [\"8.7\"]")
