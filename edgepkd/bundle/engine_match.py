"""Whether the engines of a bundle may be used here: machine, library, bundle, and who built them.

A plan belongs to the library, system and GPU (for OpenVINO the kind of CPU) that it was built with.
`mismatches` compares before anything is deserialised.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

from edgepkd import text
from edgepkd.bundle.engines import HARDWARE_COMPATIBLE, VERSION_COMPATIBLE, BuiltOn, EngineSet
from edgepkd.bundle.manifest import Manifest, SegmentEntry
from edgepkd.errors import BundleError
from edgepkd.libraries.versions import Library
from edgepkd.machine import hardware

SEVEN_BITS = "Quantise with weight_bits = 7, the default; or use a GPU, or a CPU with VNNI."
"""The next step after `overflow_reason`."""
TRUST_HINT = "If you know who built them, add --trust-engines"
"""For engines that are not on this user's list."""
NOT_FROM_HERE = "were not built here by this user"
NO_GPU = "no NVIDIA GPU is seen here"


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


def outdated(engines: EngineSet, manifest: Manifest) -> tuple[str, ...]:
    """Segments that the plans were not built from, or of whose clips they do not take."""
    reasons = []
    for segment in manifest.segments:
        name, plan = segment.name, engines.plans.get(segment.name)
        if plan is None:
            reasons.append(f"{name} has no engine")
        elif plan.source_sha256 != manifest.files[segment.file].sha256:
            reasons.append(f"{name} was built from another {segment.file}"
                           f" (SHA-256 {plan.source_sha256[:12]}…)")
        elif not plan.min_frames <= manifest.inputs[segment.modality].num_passes \
                <= plan.max_frames:
            reasons.append(f"{name} takes {plan.min_frames} to {plan.max_frames} frames, a clip has"
                           f" {manifest.inputs[segment.modality].num_passes}")
    return tuple(reasons)


def overflow_reason(entry: SegmentEntry) -> str | None:
    """Why OpenVINO would answer wrongly with this segment on this CPU; None: it would not."""
    if entry.weight_bits != 8 or not hardware.overflows_bytes():
        return None
    return ("its weights use all 8 bits, and this CPU, which has no VNNI, overflows on them"
            " silently")


def refuse_uncovered(bundle_path: Path, engines: EngineSet, *, trusted: bool) -> None:
    """Refuse engines that were not built here by this user, unless they are `trusted`.

    Raises:
        BundleError: says how to build them, and how to trust them.
    """
    if not trusted and not engines.is_covered:
        raise BundleError(
            f"the engines for {engines.target!r} {NOT_FROM_HERE}.",
            hint=f"{rebuild_hint(bundle_path, engines)}. {TRUST_HINT}.")


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


# ---- small parts


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
