"""The verb `export` by Torch-TensorRT: engines straight from the networks of a run.

The plans land where those built from ONNX would, with the same sidecar.
"""

from __future__ import annotations

import time
from collections.abc import Generator

from edgepkd.bundle.engine_match import this_machine
from edgepkd.bundle.engines import EngineSet, PlanRecord, Precision, Via, engines_folder
from edgepkd.bundle.manifest import SegmentEntry
from edgepkd.bundle.reading import Bundle
from edgepkd.bundle.trust import digest_of
from edgepkd.config import check
from edgepkd.deploy.torch_tensorrt import build_segment, require_torch_tensorrt
from edgepkd.engines.build import (
    BuildEvent,
    EnginesBuilt,
    SegmentBuilt,
    SegmentStarted,
    notes_on,
    opened,
)
from edgepkd.engines.place import Place, open_place
from edgepkd.engines.request import Request, refuse
from edgepkd.engines.targets import load_target
from edgepkd.libraries.versions import library_version
from edgepkd.models.fold import fold_batch_norm
from edgepkd.models.segmented import Networks, Segment
from edgepkd.pipeline.export_bundle import ExportConfig
from edgepkd.quantize.network import is_quantized

VIA: Via = "torch-tensorrt"


def export_by_torch(
    config: ExportConfig, bundle: Bundle, networks: Networks
) -> Generator[BuildEvent, None, None]:
    """Build the engines of `bundle`, which was made from `networks`; the last event is
    EnginesBuilt.

    Raises:
        MissingExtraError: Torch-TensorRT is not installed. ConfigError: the target is not one of
            TensorRT, or an option does not go with it. ModelError: there is no CUDA, or a segment
            cannot be built.
    """
    require_torch_tensorrt()
    target = load_target(config.target)
    check(target.builder == "tensorrt", "target for torch-tensorrt", got=target.name,
          allowed="targets whose builder is tensorrt")
    request = Request(bundle=bundle, target=target, precision=config.precision,
                      max_frames=config.max_frames)
    refuse(request)
    quantized = any(map(is_quantized, networks.values()))
    check(not quantized or request.asked in ("int8", "auto"), "precision", got=request.asked,
          allowed="int8, auto: the quantisers of a network stay in it on this way")
    ready = {m: n if is_quantized(n) else fold_batch_norm(n.pool_first())
             for m, n in networks.items()}
    folder = engines_folder(bundle.path, target.name)
    plans: dict[str, PlanRecord] = {}
    place = yield from opened(open_place(bundle.path, target.name), target.name)
    with place:
        place.clear()
        for number, entry in enumerate(bundle.manifest.segments, start=1):
            yield SegmentStarted(entry.name, number, len(bundle.manifest.segments))
            segment = list(ready[entry.modality])[entry.exit - 1]
            plans[entry.name] = plan = _build(request, entry, segment, place)
            yield SegmentBuilt(entry.name, plan, reused=False)
        engines = place.finish(EngineSet(
            target=target.name, plans=plans, precision=request.asked, via=VIA,
            built_on=this_machine("tensorrt", library_version("tensorrt") or "0.0")))
    yield EnginesBuilt(folder, engines, up_to_date=False, notes=notes_on(engines))


def refuse_options(config: ExportConfig) -> None:
    """Refuse what the ONNX route does and this one does not.

    Raises:
        ConfigError: names the options.
    """
    given = [name for name in ("workspace_mb", "dla") if getattr(config, name) is not None]
    given += [name for name in ("version_compatible", "hardware_compatible", "resume",
                                "require_timing_cache") if getattr(config, name)]
    options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
    check(not given, "options with --via torch-tensorrt", got=options,
          allowed="--precision and --batch; the others go with the ONNX route")


def _build(request: Request, entry: SegmentEntry, segment: Segment, place: Place) -> PlanRecord:
    frames = request.bundle.manifest.inputs[entry.modality].num_passes
    most, start = request.max_frames or frames, time.perf_counter()
    precision: Precision = "int8" if is_quantized(segment) else "fp16"
    if request.asked == "fp32":
        precision = "fp32"
    channels, height, width = entry.input_shape
    content = build_segment(segment, example_shape=(channels, height, width), min_frames=1,
                            opt_frames=frames, max_frames=most, precision=precision)
    file = f"{entry.name}.engine"
    place.write(file, content)
    return PlanRecord(
        file=file, sha256=digest_of(content), bytes=len(content),
        source=entry.file, source_sha256=request.bundle.manifest.files[entry.file].sha256,
        precision=precision, min_frames=1, opt_frames=frames, max_frames=most,
        build_s=round(time.perf_counter() - start, 2))
