"""Engines for the CPU of the tests' bundles, built in this process."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgepkd.bundle.engine_match import this_machine
from edgepkd.bundle.engines import EngineSet, PlanRecord, Precision, engines_folder
from edgepkd.bundle.reading import Bundle
from edgepkd.engines.builder import Settings, Shapes
from edgepkd.engines.openvino import OpenVinoBuilder
from tests.stored_engines import edit, store

TARGET = "openvino"


def add_openvino_engines(
    bundle: Bundle, *, target: str = TARGET, precision: Precision = "fp32",
    sources: Bundle | None = None, **changes: Any,
) -> Path:
    """Engines of every segment, built on this machine but for `changes` of BuiltOn.

    `sources` is another bundle whose networks are in the plans, though the sidecar denies it.
    """
    builder, folder = OpenVinoBuilder(), engines_folder(bundle.path, target)
    folder.mkdir(parents=True)
    plans = {}
    for entry in bundle.manifest.segments:
        frames = bundle.manifest.inputs[entry.modality].num_passes
        content = builder.build(
            ((sources or bundle).path / entry.file).read_bytes(), precision=precision,
            shapes=Shapes(entry.input_shape, frames, frames, frames), settings=Settings()).content
        name = entry.name
        (folder / f"{name}.engine").write_bytes(content)
        plans[name] = PlanRecord(
            file=f"{name}.engine", sha256=hashlib.sha256(content).hexdigest(), bytes=len(content),
            source=entry.file, source_sha256=bundle.manifest.files[entry.file].sha256,
            precision=precision, min_frames=frames, opt_frames=frames, max_frames=frames,
            build_s=0.1)
    here = replace(this_machine("openvino", builder.version), **changes)
    store(folder, EngineSet(target=target, built_on=here, precision=precision, plans=plans))
    return folder



def forge(folder: Path, segment: str, content: bytes) -> None:
    """Another plan, and a sidecar that vouches for it."""
    (folder / f"{segment}.engine").write_bytes(content)
    edit(folder, lambda values: values["plans"][segment].update(
        sha256=hashlib.sha256(content).hexdigest(), bytes=len(content)))
