"""Segments on the CPU through OpenVINO: the bundle's ONNX files, or engines made of them.

Engines that were built for another machine are refused by what their sidecar says, before OpenVINO
sees a byte of them.
"""

from __future__ import annotations

from typing import Any

from edgepkd.bundle.engine_files import read_engines, read_plan
from edgepkd.bundle.engine_match import (
    SEVEN_BITS,
    mismatches,
    overflow_reason,
    rebuild_hint,
    refuse_uncovered,
    this_machine,
)
from edgepkd.bundle.engines import ENGINES, EngineSet
from edgepkd.bundle.manifest import SegmentEntry
from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Position
from edgepkd.errors import BundleError, ModelError
from edgepkd.libraries import openvino
from edgepkd.runtime.runner import Array, Features, closed


class OpenVinoRunner:
    """Makes a segment runnable when it is first asked for; one infer request per segment.

    Features are OpenVINO tensors handed to the next segment without a copy.
    """

    def __init__(
        self, bundle: Bundle, *, target: str | None = None, threads: int | None = None,
        trust_engines: bool = False,
    ) -> None:
        """Make a runner for `bundle` that compiles its ONNX files, or for its engines of `target`.

        `trust_engines`: also engines that `edgepkd export` has not built here for this user.

        Raises:
            BundleError: there are no engines for `target`, they do not belong to this machine or
                bundle, or were not built here: names every reason, and the command that builds
                them anew.
        """
        self._bundle, self._threads = bundle, threads
        self._engines = None if target is None else _fitting(bundle, target, trust_engines)
        self._segments: dict[Position, openvino.ReadySegment] | None = {}
        """None once it is closed."""
        self.backend = f"openvino {openvino.version()} CPU"
        if target is not None:
            self.backend += f" with {ENGINES}/{target}"

    def prepare(self, position: Position) -> None:
        """Compile or load the segment at `position`, once.

        Raises:
            BundleError: the segment's file, or its engine, is missing or not the one that the
                manifest or the sidecar describes.
            ModelError: OpenVINO refuses the file, its shapes or names are not the manifest's,
                this CPU would overflow on its weights, or the runner is closed.
        """
        self._ready(position)

    def run(self, position: Position, x: Array | Features) -> tuple[Features, Array]:
        """Run one segment, preparing it first if that was not done.

        Raises:
            BundleError: as `prepare`.
            ModelError: `x` does not fit, OpenVINO fails, or the runner is closed.
        """
        segment = self._ready(position)
        try:
            return segment.run(x)
        except RuntimeError as error:
            raise ModelError(f"segment {position} failed in OpenVINO: {error}") from error

    def close(self) -> None:
        """Drop all compiled segments; OpenVINO itself stays for the next runner."""
        self._segments = None

    def _ready(self, position: Position) -> openvino.ReadySegment:
        if self._segments is None:
            raise closed(self.backend)
        if position not in self._segments:
            loaded = (self._compiled(position) if self._engines is None
                      else self._imported(position, self._engines))
            self._segments[position] = openvino.ReadySegment(loaded)
        return self._segments[position]

    def _compiled(self, position: Position) -> Any:
        entry = self._bundle.manifest.segment(position.modality, position.exit)
        path = self._bundle.path / entry.file
        _refuse_overflow(position, entry)
        content = self._bundle.segment_content(position.modality, position.exit)
        try:
            compiled = openvino.compile_segment(
                content, frames=self._frames(position), frame_shape=entry.input_shape,
                threads=self._threads)
        except RuntimeError as error:
            raise ModelError(f"{path} cannot be compiled by OpenVINO: {openvino.reason_of(error)}",
                             hint="Run `edgepkd doctor`, and build the bundle again.") from error
        names = {name for output in compiled.outputs for name in output.get_names()}
        wanted = {"logits"} | ({"features"} if entry.features_shape else set())
        if not wanted <= names:
            raise ModelError(f"{path} has the outputs {', '.join(sorted(names))};"
                             f" allowed: {', '.join(sorted(wanted))}.")
        return compiled

    def _imported(self, position: Position, engines: EngineSet) -> Any:
        record, hint = engines.plans[str(position)], rebuild_hint(self._bundle.path, engines)
        entry = self._bundle.manifest.segment(position.modality, position.exit)
        if record.precision == "int8":
            _refuse_overflow(position, entry)
        plan = read_plan(self._bundle.path, engines, str(position))
        try:
            imported = openvino.import_segment(plan, threads=self._threads)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot load {record.file} of {engines.target!r}:"
                             f" {openvino.reason_of(error)}", hint=hint) from error
        shapes = {"x": entry.input_shape, "logits": (len(self._bundle.manifest.labels),)}
        if entry.features_shape is not None:
            shapes["features"] = entry.features_shape
        wanted = {name: (self._frames(position), *shape) for name, shape in shapes.items()}
        found = {port.any_name: tuple(port.shape) for port in (*imported.inputs, *imported.outputs)}
        if found != wanted:
            raise ModelError(f"{record.file} of {engines.target!r} has the tensors {found};"
                             f" allowed: {wanted}.", hint=hint)
        return imported

    def _frames(self, position: Position) -> int:
        return self._bundle.manifest.inputs[position.modality].num_passes


def _fitting(bundle: Bundle, target: str, trust_engines: bool) -> EngineSet:
    engines = read_engines(bundle.path, target)
    if reasons := mismatches(engines, bundle.manifest,
                             this_machine("openvino", openvino.version())):
        raise BundleError(f"the engines for {target!r} do not fit: {'; '.join(reasons)}.",
                          hint=rebuild_hint(bundle.path, engines))
    refuse_uncovered(bundle.path, engines, trusted=trust_engines)
    return engines


def _refuse_overflow(position: Position, entry: SegmentEntry) -> None:
    if reason := overflow_reason(entry):
        raise ModelError(f"segment {position}: {reason}.", hint=SEVEN_BITS)
