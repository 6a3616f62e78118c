"""What an export is asked for, and what is refused before anything is built."""

from __future__ import annotations

from dataclasses import dataclass

from edgepkd.bundle.engine_files import read_timing_cache
from edgepkd.bundle.engine_match import SEVEN_BITS, overflow_reason
from edgepkd.bundle.engines import ENGINES, TIMING_CACHE, AskedPrecision
from edgepkd.bundle.reading import Bundle
from edgepkd.bundle.sidecar import MAX_FRAMES
from edgepkd.config import check
from edgepkd.engines import graph
from edgepkd.engines.targets import Target, within
from edgepkd.errors import ConfigError
from edgepkd.machine import hardware
from edgepkd.text import command


@dataclass(frozen=True)
class Request:
    """What to build; None: as the recipe says."""

    bundle: Bundle
    target: Target
    precision: AskedPrecision | None = None
    workspace_mb: int | None = None
    max_frames: int | None = None
    """Largest batch of the profiles; None: the temporal segments of each network."""
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla: int | None = None
    require_timing_cache: bool = False

    @property
    def asked(self) -> AskedPrecision:
        """The precision asked for, or the recipe's."""
        return self.precision or self.target.precision


def refuse(request: Request) -> None:
    """Check all that can be checked without the builder.

    Raises:
        ConfigError: a setting. BundleError: a segment is not what the manifest says, or holds what
            no segment needs.
    """
    target = request.target
    allowed = (*target.precisions, "auto")
    _ = target.library
    _refuse_other_board(target)
    check(request.asked in allowed, f"precision for {target.name}", got=request.asked,
          allowed=", ".join(allowed))
    check(request.workspace_mb is None or request.workspace_mb >= 1, "workspace_mb",
          got=request.workspace_mb, allowed="1 or more")
    check(target.builder != "openvino" or request.workspace_mb is None, "workspace_mb",
          got=request.workspace_mb, allowed="only for TensorRT")
    most = max(spec.num_passes for spec in request.bundle.manifest.inputs.values())
    check(request.max_frames is None or request.max_frames >= most, "batch",
          got=request.max_frames, allowed=f"{most} or more: the temporal segments of one clip")
    check(request.max_frames is None or request.max_frames <= MAX_FRAMES, "batch",
          got=request.max_frames, allowed=f"up to {MAX_FRAMES}")
    _refuse_batch_of_fixed_size(request)
    for name in ("version_compatible", "hardware_compatible"):
        check(target.portable or not getattr(request, name), name, got=True,
              allowed=f"not for {target.name}")
    check(not request.require_timing_cache
          or read_timing_cache(request.bundle.path, target.name) != b"",
          "require_timing_cache", got=True, allowed="only where an export by this user has left"
          f" {ENGINES}/{target.name}/{TIMING_CACHE}")
    _refuse_dla(request)
    if request.asked != "fp32" and (reasons := too_wide(request.bundle, target)):
        raise ConfigError(f"{reasons[0]}.", hint="Quantise the run for it, then export that: "
                          + command("edgepkd", "quantize", "RUN", "--target", target.name,
                                    "--force"))
    if request.asked != "fp32" and (reasons := overflows(request.bundle, target)):
        raise ConfigError(f"{reasons[0]}.", hint=SEVEN_BITS)
    if request.asked == "int8" and not any(
            map(graph.is_quantized, contents_of(request.bundle).values())):
        raise ConfigError(
            f"precision is 'int8'; allowed: {', '.join(a for a in allowed if a != 'int8')},"
            f" because no segment of {request.bundle.path.name} is quantised.",
            hint="Quantise the run, then export that: edgepkd quantize RUN")


def too_wide(bundle: Bundle, target: Target) -> tuple[str, ...]:
    """Segments whose quantised weights have more bits than the target takes, and why."""
    most = target.weight_bits
    return tuple(f"{entry.name} in int8: its weights have {entry.weight_bits} bits, and"
                 f" {target.name!r} takes {most}" for entry in bundle.manifest.segments
                 if most and entry.weight_bits and entry.weight_bits > most)


def overflows(bundle: Bundle, target: Target) -> tuple[str, ...]:
    """Segments that OpenVINO would compute wrongly on this CPU, and why."""
    if target.builder != "openvino":
        return ()
    reasons = ((entry.name, overflow_reason(entry)) for entry in bundle.manifest.segments)
    return tuple(f"{segment} in int8: {reason}" for segment, reason in reasons if reason)


def _refuse_other_board(target: Target) -> None:
    if not target.is_this_board():
        raise ConfigError(
            f"target is {target.name!r}, whose engines are built on the board itself; this"
            f" machine is {hardware.jetson() or 'no Jetson'}.",
            hint="Copy the bundle there and give the same command.")


def _refuse_batch_of_fixed_size(request: Request) -> None:
    fixed = request.target.builder == "openvino" or request.dla is not None
    clip = {spec.num_passes for spec in request.bundle.manifest.inputs.values()}
    check(not fixed or request.max_frames is None or clip == {request.max_frames}, "batch",
          got=request.max_frames, allowed="none here: these engines take exactly the temporal"
          " segments of a clip")


def _refuse_dla(request: Request) -> None:
    target, core = request.target, request.dla
    if core is None:
        return
    check(0 <= core < target.dla_cores, f"dla for {target.name}", got=core,
          allowed=f"0..{target.dla_cores - 1}" if target.dla_cores else "none: it has no DLA")
    check(request.asked in ("fp16", "auto"), "precision on the DLA", got=request.asked,
          allowed="fp16: quantised segments on DLA are known to answer wrongly")


def refuse_version(request: Request, version: str) -> None:
    """Check the library's version.

    Raises:
        ConfigError: the recipe does not hold for it.
    """
    target = request.target
    check(target.accepts(version), f"{target.builder} for {target.name}", got=version,
          allowed=" or ".join(target.versions))
    check(request.dla is None or within(version, target.dla_versions),
          f"{target.builder} for the DLA of {target.name}", got=version,
          allowed=" or ".join(target.dla_versions))


def workspace_mb(target: Target, asked: int | None) -> int | None:
    """Scratch memory for the builder: as asked, else the target's share of what there is.

    None where there is nothing to share: the CPU, or no GPU to build for.
    """
    if asked is not None or target.builder == "openvino":
        return asked
    if target.memory_gb is not None:
        share = target.memory_gb * 1024 * target.workspace_share
        free = hardware.available_memory_mb()
        return int(share if free is None else min(share, free / 2))
    memory = next((gpu.memory_mb for gpu in hardware.gpus()), None)
    return int(memory * target.workspace_share) if memory else None


def contents_of(bundle: Bundle) -> dict[str, bytes]:
    """Segment -> its stored form."""
    return {entry.name: bundle.segment_content(entry.modality, entry.exit)
            for entry in bundle.manifest.segments}
