"""The engines of a bundle for one target, and the sidecar that says what they are.

    engines/<target>/engines.json    library and version, machine, flags, source hashes
    engines/<target>/mv_1.engine …   plain plans, as trtexec loads them; for OpenVINO its own blobs
    engines/<target>/timing.cache    where the builder keeps one

Nothing here follows a link. What `edgepkd export` has not made here, for this user, is used only
when the user says so (`trust`).

A plan belongs to the library, system and GPU (for OpenVINO the kind of CPU) that it was built with.
`mismatches` compares before anything is deserialised.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from edgepkd import text
from edgepkd.bundle import trust
from edgepkd.bundle._schema import MAX_JSON_BYTES, build, parse_json, require
from edgepkd.bundle.folder import Folder, open_folder
from edgepkd.errors import BundleError, StorageError
from edgepkd.libraries.versions import Library
from edgepkd.machine import hardware

if TYPE_CHECKING:
    from edgepkd.bundle.manifest import Manifest, SegmentEntry

Precision = Literal["fp32", "fp16", "int8"]
AskedPrecision = Literal["fp32", "fp16", "int8", "auto"]
Via = Literal["onnx", "torch-tensorrt"]

ENGINES = "engines"
SIDECAR = "engines.json"
TIMING_CACHE = "timing.cache"
ENGINES_SCHEMA_VERSION = 1
SEVEN_BITS = "Quantise with weight_bits = 7, the default; or use a GPU, or a CPU with VNNI."

TRUST_HINT = "If you know who built them, add --trust-engines"
"""For engines that are not on this user's list."""

_TARGET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_VERSION = re.compile(r"[0-9]{1,6}\.[0-9]{1,6}(\.[A-Za-z0-9+_]{1,20}){0,4}")
_CAPABILITY = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
_SEGMENT = re.compile(r"[a-z]{1,20}_[1-9][0-9]?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_PLAN_BYTES = 1 << 30
MAX_CACHE_BYTES = 1 << 28
"""Of a builder's timing cache."""
MAX_FRAMES = 1024
"""Of one call of a plan."""
MAX_NOTE = 1000
"""Characters of a plan's note, of which there are not many."""
_MAX_NOTES = 20
_MAX_SETS = 100
_MAX_TEXT = 200
_LOST_S = 2.0

NOT_FROM_HERE = "were not built here by this user"
NO_GPU = "no NVIDIA GPU is seen here"
VERSION_COMPATIBLE = "version_compatible"
HARDWARE_COMPATIBLE = "hardware_compatible"


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


def overflow_reason(entry: SegmentEntry) -> str | None:
    """Why OpenVINO would answer wrongly with this segment on this CPU; None: it would not."""
    if entry.weight_bits != 8 or not hardware.overflows_bytes():
        return None
    return ("its weights use all 8 bits, and this CPU, which has no VNNI, overflows on them without"
            " a word")


def is_target_name(name: str) -> bool:
    """Whether a target may be called so: it is the name of a folder, and part of commands."""
    return _TARGET.fullmatch(name) is not None


def engines_folder(bundle_path: Path, target: str) -> Path:
    """What to call the folder of the engines of `target`; it is opened with `open_engines`."""
    return bundle_path / ENGINES / target


def partial_name(target: str) -> str:
    """What the folder beside it is called in which engines of `target` are put together."""
    return f".{target}.partial"


def open_engines(bundle_path: Path, target: str) -> Folder | None:
    """The folder of the engines of `target`; None: there is none.

    Raises:
        BundleError: it, or a folder above it in the bundle, is a link; `target` is no name.
    """
    require(is_target_name(target), "target", target, "letters, digits, '_', '-' and '.'")
    engines = _all_engines(bundle_path)
    if engines is None:
        return None
    with engines:
        return engines.folder(target)


def _all_engines(bundle_path: Path) -> Folder | None:
    """The folder `engines/`; None: there is none."""
    root = open_folder(bundle_path)
    if root is None:
        return None
    with root:
        engines = root.folder(ENGINES)
    if engines is not None:
        for target in filter(is_target_name, engines.lost()):
            _bring_back(engines, target)
    return engines


def _bring_back(engines: Folder, target: str) -> None:
    """Undo what an export has left that was killed while it replaced the engines of `target`.

    Where one is at work it is about to give them their name.
    """
    until = time.monotonic() + _LOST_S
    while engines.kind(target) is None and time.monotonic() < until:
        partial = engines.folder(partial_name(target))
        with partial or contextlib.nullcontext(), contextlib.suppress(StorageError):
            if partial is None or partial.lock(wait=False):
                engines.recover(target)
                return
        time.sleep(0.05)


def engine_targets(bundle_path: Path) -> tuple[str, ...]:
    """Targets that the bundle has engines for, sorted.

    Raises:
        BundleError: engines/ is a link or no folder.
    """
    engines = _all_engines(bundle_path)
    if engines is None:
        return ()
    with engines:
        names = [name for name in engines.names() if is_target_name(name)]
        # A link is listed, so that whoever opens it says what it is.
        return tuple(name for name in names if engines.kind(name) in ("link", "other")
                     or (engines.kind(name) == "folder"
                         and engines.kind(f"{name}/{SIDECAR}") is not None))


def read_engines(bundle_path: Path, target: str) -> EngineSet:
    """What the sidecar of `target` says; the plans themselves are not looked at.

    Raises:
        BundleError: there is none, it is damaged, or a newer edgepkd wrote it.
    """
    folder = open_engines(bundle_path, target)
    content = None
    if folder is not None:
        with folder:
            content = folder.read(SIDECAR, max_bytes=MAX_JSON_BYTES)
    if content is None:
        there = ", ".join(engine_targets(bundle_path)) or "none"
        raise BundleError(
            f"{bundle_path} has no engines for {target!r}; it has: {there}.",
            hint="Build them: " + text.command("edgepkd", "export", bundle_path, "--target",
                                               target))
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


def write_engines(folder: Folder, engines: EngineSet) -> EngineSet:
    """Write the sidecar into `folder`, and put it on this user's list.

    Raises:
        StorageError: it cannot be written.
    """
    content = sidecar_of(engines)
    folder.write(SIDECAR, content)
    digest = trust.digest_of(content)
    trust.add(digest)
    return replace(engines, sidecar_sha256=digest)


def refuse_uncovered(bundle_path: Path, engines: EngineSet, *, trusted: bool) -> None:
    """Refuse engines that were not built here by this user, unless they are `trusted`.

    Raises:
        BundleError: says how to build them, and how to trust them.
    """
    if not trusted and not engines.is_covered:
        raise BundleError(
            f"the engines for {engines.target!r} {NOT_FROM_HERE}.",
            hint=f"{rebuild_hint(bundle_path, engines)}. {TRUST_HINT}.")


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


# ---- this machine


def this_machine(library: Library, version: str) -> BuiltOn:
    """`library` on this machine; asks nvidia-smi if there is one."""
    gpu = next(iter(hardware.gpus()), None)
    on_gpu = library != "openvino"
    return BuiltOn(
        library=library, library_version=version, os=platform.system().lower(),
        machine=platform.machine(), python=platform.python_version(),
        compute_capability=hardware.compute_capability() if on_gpu else None,
        gpu=gpu.name if gpu else None, driver=gpu.driver if gpu else None,
        cuda=hardware.cuda_version() if on_gpu else None, jetson=hardware.jetson(),
        instruction_sets=None if on_gpu else hardware.instruction_sets(),
    )


def mismatches(engines: EngineSet, manifest: Manifest, here: BuiltOn) -> tuple[str, ...]:
    """Every reason why these plans must not be deserialised on `here`; empty: they may.

    `damaged` and `read_plan` look at the files.
    """
    return (*foreign(engines, here), *outdated(engines, manifest))


def damaged(bundle_path: Path, engines: EngineSet) -> tuple[str, ...]:
    """Plans that are missing or not those that the sidecar describes."""
    reasons = []
    for segment in engines.plans:
        try:
            _read_plan(bundle_path, engines, segment)
        except _Damaged as error:
            reasons.append(str(error))
        except BundleError as error:
            reasons.append(error.message.rstrip("."))
    return tuple(reasons)


def read_plan(bundle_path: Path, engines: EngineSet, segment: str) -> bytes:
    """The plan of `segment`, such as 'mv_1', which is the one that the sidecar describes.

    Raises:
        BundleError: it is not.
    """
    try:
        return _read_plan(bundle_path, engines, segment)
    except _Damaged as error:
        folder = engines_folder(bundle_path, engines.target)
        raise BundleError(f"{folder}: {error}.",
                          hint=rebuild_hint(bundle_path, engines)) from error


def read_timing_cache(bundle_path: Path, target: str) -> bytes:
    """The builder's timing cache of an export made here by this user; else empty.

    Raises:
        BundleError: it is a link, or no plain file.
    """
    folder = open_engines(bundle_path, target)
    if folder is None:
        return b""
    with folder:
        if (folder.size(TIMING_CACHE) or 0) > MAX_CACHE_BYTES:
            return b""
        content = folder.read(TIMING_CACHE, max_bytes=MAX_CACHE_BYTES) or b""
    return content if trust.is_listed(trust.digest_of(content)) else b""


class _Damaged(Exception):
    """Why a plan is not the one that its sidecar describes."""


def _read_plan(bundle_path: Path, engines: EngineSet, segment: str) -> bytes:
    record, folder = engines.plans[segment], open_engines(bundle_path, engines.target)
    size, content = None, None
    if folder is not None:
        with folder:
            size = folder.size(record.file)
            if size == record.bytes:
                content = folder.read(record.file, max_bytes=record.bytes)
    if size is None:
        raise _Damaged(f"{record.file} is missing")
    if content is None:
        raise _Damaged(f"{record.file} has {size} bytes; its sidecar says {record.bytes}")
    digest = trust.digest_of(content)
    if digest != record.sha256:
        raise _Damaged(f"{record.file} has SHA-256 {digest[:12]}…; its sidecar says"
                       f" {record.sha256[:12]}…")
    return content


def foreign(engines: EngineSet, here: BuiltOn) -> tuple[str, ...]:
    """What sets `here` apart from the machine that the plans were built for."""
    there = engines.built_on
    if there.library != here.library:
        return (f"built with {there.library}, here is {here.library}",)
    reasons = [f"built on {what} {got}, here is {now}"
               for what, got, now in (("system", there.os, here.os),
                                      ("machine", there.machine, here.machine)) if got != now]
    if not _version_fits(engines, here.library_version):
        reasons.insert(0, f"built with {there.library} {there.library_version},"
                          f" here is {here.library_version}")
    return (*reasons, *_foreign_cpu(there, here), *_foreign_gpu(engines, here))


def _version_fits(engines: EngineSet, version: str) -> bool:
    built = engines.built_on.library_version
    if not engines.flags.get(VERSION_COMPATIBLE):
        return built == version
    (major, minor), (major_here, minor_here) = _major_minor(built), _major_minor(version)
    return major == major_here and minor_here >= minor


def _major_minor(version: str) -> tuple[int, int]:
    found = re.match(r"([0-9]{1,6})(?:\.([0-9]{1,6}))?", version)
    return (int(found[1]), int(found[2] or 0)) if found else (-1, -1)


def _foreign_cpu(there: BuiltOn, here: BuiltOn) -> tuple[str, ...]:
    if there.library != "openvino":
        return ()
    if there.instruction_sets is None:
        return ("built on a CPU that the sidecar does not describe",)
    built, now = set(there.instruction_sets), set(here.instruction_sets or ())
    if built == now:
        return ()
    apart = [f"{word} {', '.join(sorted(sets))}"
             for word, sets in (("with", built - now), ("without", now - built)) if sets]
    return (f"built on another kind of CPU, {' and '.join(apart)}",)


def _foreign_gpu(engines: EngineSet, here: BuiltOn) -> tuple[str, ...]:
    there, now = engines.built_on, here.compute_capability
    if there.library == "openvino":
        return ()
    if now is None:
        return (NO_GPU,)
    allowed: list[str] = engines.flags.get("compute_capabilities") or []
    if allowed:
        fits = now in allowed
    elif engines.flags.get(HARDWARE_COMPATIBLE) or there.library == "tensorrt_rtx":
        # TensorRT-RTX makes no other plans unless it is told single GPUs.
        fits = _major_minor(now) >= (8, 0)
        allowed = ["8.0 and newer"]
    else:
        fits, allowed = now == there.compute_capability, [there.compute_capability or "unknown"]
    return () if fits else (
        f"built for compute capability {', '.join(allowed)}, here is {now}",)


def outdated(engines: EngineSet, manifest: Manifest) -> tuple[str, ...]:
    """Segments that the plans were not built from, or of whose clips they do not take."""
    reasons = []
    for segment in manifest.segments:
        name = f"{segment.modality}_{segment.exit}"
        plan = engines.plans.get(name)
        if plan is None:
            reasons.append(f"{name} has no engine")
        elif plan.source_sha256 != manifest.files[segment.file].sha256:
            reasons.append(f"{name} was built from another {segment.file}"
                           f" (SHA-256 {plan.source_sha256[:12]}…)")
        elif not plan.min_frames <= manifest.inputs[segment.modality].num_segments \
                <= plan.max_frames:
            reasons.append(f"{name} takes {plan.min_frames} to {plan.max_frames} frames, a clip has"
                           f" {manifest.inputs[segment.modality].num_segments}")
    return tuple(reasons)


def rebuild_hint(bundle_path: Path, engines: EngineSet) -> str:
    """The next step where the engines that are there cannot be used."""
    return f"Build them again: {rebuild_command(bundle_path, engines)} --force"


def rebuild_command(bundle_path: Path, engines: EngineSet) -> str:
    """The command that builds `engines` anew on the machine where it is typed, from ONNX.

    Torch-TensorRT needs the run, which a bundle does not hold.
    """
    words: list[str | Path] = ["--target", engines.target, "--precision", engines.precision]
    words += ["--version-compatible"] if engines.flags.get(VERSION_COMPATIBLE) else []
    words += ["--hardware-compatible"] if engines.flags.get(HARDWARE_COMPATIBLE) else []
    dla = engines.flags.get("dla")
    words += ["--dla", str(dla)] if dla is not None else []
    batch = max((plan.max_frames for plan in engines.plans.values()), default=0)
    if any(plan.max_frames != plan.opt_frames for plan in engines.plans.values()):
        words += ["--batch", str(batch)]
    return text.command("edgepkd", "export", bundle_path, *words)
