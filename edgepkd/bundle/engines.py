"""The engines of a bundle for one target, and the sidecar that says what they are.

    engines/<target>/engines.json    library and version, machine, flags, source hashes
    engines/<target>/mv_1.engine …   plain plans, as trtexec loads them; for OpenVINO its own blobs
    engines/<target>/timing.cache    where the builder keeps one

A plan belongs to the library, system and GPU (for OpenVINO the kind of CPU) that it was built with.
`mismatches` compares before anything is deserialised.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgepkd import hardware
from edgepkd.bundle._schema import MAX_JSON_BYTES, build, parse_json, require
from edgepkd.bundle.folder import open_folder
from edgepkd.errors import BundleError
from edgepkd.files import write_atomically
from edgepkd.libraries import openvino

if TYPE_CHECKING:
    from edgepkd.bundle import Manifest, SegmentEntry

Precision = Literal["fp32", "fp16", "int8"]
AskedPrecision = Literal["fp32", "fp16", "int8", "auto"]
Library = Literal["tensorrt", "tensorrt_rtx", "openvino"]
Via = Literal["onnx", "torch-tensorrt"]

ENGINES = "engines"
SIDECAR = "engines.json"
TIMING_CACHE = "timing.cache"
ENGINES_SCHEMA_VERSION = 1
SEVEN_BITS = "Quantise with weight_bits = 7, the default; or use a GPU, or a CPU with VNNI."

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


def overflow_reason(entry: SegmentEntry) -> str | None:
    """Why OpenVINO would answer wrongly with this segment on this CPU; None: it would not."""
    if entry.weight_bits != 8 or not hardware.overflows_bytes():
        return None
    return ("its weights use all 8 bits, and this CPU, which has no VNNI, overflows on them without"
            " a word")


def engines_folder(bundle_path: Path, target: str) -> Path:
    """Where the engines of `target` lie."""
    return bundle_path / ENGINES / target


def engine_targets(bundle_path: Path) -> tuple[str, ...]:
    """Targets that the bundle has engines for, sorted."""
    return tuple(sorted(path.parent.name
                        for path in (bundle_path / ENGINES).glob(f"*/{SIDECAR}")
                        if not path.parent.name.startswith(".")))


def read_engines(bundle_path: Path, target: str) -> EngineSet:
    """What the sidecar of `target` says; the plans themselves are not looked at.

    Raises:
        BundleError: there is none, it is damaged, or a newer edgepkd wrote it.
    """
    folder, content = open_folder(bundle_path), None
    if folder is not None:
        with folder:
            content = folder.read(f"{ENGINES}/{target}/{SIDECAR}", max_bytes=MAX_JSON_BYTES)
    if content is None:
        there = ", ".join(engine_targets(bundle_path)) or "none"
        raise BundleError(
            f"{bundle_path} has no engines for {target!r}; it has: {there}.",
            hint=f"Build them: edgepkd export {shlex.quote(str(bundle_path))} --target {target}")
    values = dict(parse_json(content, where=SIDECAR, newest=ENGINES_SCHEMA_VERSION))
    del values["schema_version"]
    engines: EngineSet = build(EngineSet, values, where=SIDECAR)
    require(engines.target == target, f"{SIDECAR}: target", engines.target, target)
    for segment, plan in engines.plans.items():
        require(plan.file == f"{segment}.engine", f"{SIDECAR}: plans.{segment}.file", plan.file,
                f"{segment}.engine")
    return engines


def write_engines(folder: Path, engines: EngineSet) -> None:
    """Write the sidecar into `folder`.

    Raises:
        StorageError: it cannot be written.
    """
    text = json.dumps(asdict(engines), indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(folder / SIDECAR, text.encode() + b"\n")


# ---- this machine


def library_version(library: Library) -> str | None:
    """Version of `library` as it is imported here; None if it cannot be imported."""
    try:
        module = (openvino.module() if library == "openvino"
                  else importlib.import_module(library))
    except (ImportError, OSError):  # OSError: a shared library of it is missing
        return None
    return str(module.__version__).split("-")[0]


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
    for plan in engines.plans.values():
        try:
            content = (engines_folder(bundle_path, engines.target) / plan.file).read_bytes()
        except FileNotFoundError:
            reasons.append(f"{plan.file} is missing")
        except OSError as error:
            reasons.append(f"{plan.file} cannot be read: {error.strerror}")
        else:
            if hashlib.sha256(content).hexdigest() != plan.sha256:
                reasons.append(f"{plan.file} has another SHA-256 than {SIDECAR} says")
    return tuple(reasons)


def read_plan(bundle_path: Path, engines: EngineSet, segment: str) -> bytes:
    """The plan of `segment`, such as 'mv_1', which is the one that the sidecar describes.

    Raises:
        BundleError: it is not.
    """
    record, hint = engines.plans[segment], rebuild_hint(bundle_path, engines)
    path = engines_folder(bundle_path, engines.target) / record.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.", hint=hint) from error
    if len(content) != record.bytes:
        raise BundleError(f"{path} has {len(content)} bytes; its sidecar says {record.bytes}.",
                          hint=hint)
    digest = hashlib.sha256(content).hexdigest()
    if digest != record.sha256:
        raise BundleError(f"{path} has SHA-256 {digest[:12]}…; its sidecar says"
                          f" {record.sha256[:12]}….", hint=hint)
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
    major, minor, *_ = (*version.split("."), "0")
    return int(major), int(minor)


def _foreign_cpu(there: BuiltOn, here: BuiltOn) -> tuple[str, ...]:
    if there.library != "openvino" or there.instruction_sets == here.instruction_sets:
        return ()
    if there.instruction_sets is None:
        return ("built on a CPU that the sidecar does not describe",)
    built, now = set(there.instruction_sets), set(here.instruction_sets or ())
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
    options = [f"--target {engines.target}", f"--precision {engines.precision}"]
    options += ["--version-compatible"] if engines.flags.get(VERSION_COMPATIBLE) else []
    options += ["--hardware-compatible"] if engines.flags.get(HARDWARE_COMPATIBLE) else []
    dla = engines.flags.get("dla")
    options += [f"--dla {dla}"] if dla is not None else []
    batch = max((plan.max_frames for plan in engines.plans.values()), default=0)
    if any(plan.max_frames != plan.opt_frames for plan in engines.plans.values()):
        options.append(f"--batch {batch}")
    return f"edgepkd export {shlex.quote(str(bundle_path))} {' '.join(options)}"
