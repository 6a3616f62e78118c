"""A bundle's segments into engines of one target: one at a time, each in a process of its own.

What is built lies in `engines/.<target>.partial/` until all is there; then the folder becomes
`engines/<target>` at once (`engines.place`). A child is handed the bytes that were verified, and
gives a plan back; it knows of no bundle. After a crash of the builder `resume` goes on with what
was built from the same segment with the same settings. Needs no torch.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgepkd.bundle.engine_files import damaged, read_engines
from edgepkd.bundle.engine_match import outdated, this_machine
from edgepkd.bundle.engines import (
    TIMING_CACHE,
    BuiltOn,
    EngineSet,
    PlanRecord,
    Precision,
    engines_folder,
)
from edgepkd.bundle.manifest import SegmentEntry
from edgepkd.bundle.sidecar import MAX_NOTE
from edgepkd.bundle.trust import digest_of
from edgepkd.config import from_mapping
from edgepkd.engines import graph
from edgepkd.engines.builder import BUILDERS, Settings, Shapes
from edgepkd.engines.child import Job
from edgepkd.engines.place import RECORD, Place, known_timing_cache, open_place, sweep
from edgepkd.engines.process import Died, ask
from edgepkd.engines.request import Request, refuse, refuse_version, workspace_mb
from edgepkd.errors import BundleError, ConfigError, ModelError
from edgepkd.text import command

# These say how hard a builder may try, not what it makes: a plan stays good without them.
_EFFORT = ("workspace_mb", "require_timing_cache")


@dataclass(frozen=True)
class Waiting:
    """Another export builds engines of this bundle for this target; this one goes on after it."""

    target: str


@dataclass(frozen=True)
class SegmentStarted:
    """A segment is being built."""

    segment: str
    number: int
    """1-based."""
    num_segments: int


@dataclass(frozen=True)
class SegmentBuilt:
    """A plan is there."""

    segment: str
    plan: PlanRecord
    reused: bool
    """It was there before."""


@dataclass(frozen=True)
class EnginesBuilt:
    """All plans are in place."""

    folder: Path
    engines: EngineSet
    up_to_date: bool
    """They all were before, and nothing was built."""
    notes: tuple[str, ...] = ()


BuildEvent = Waiting | SegmentStarted | SegmentBuilt | EnginesBuilt


def build_engines(
    request: Request, *, resume: bool = False, force: bool = False, builder: str | None = None
) -> Generator[BuildEvent, None, None]:
    """Build all segments of a bundle; the last event is EnginesBuilt.

    Engines that already are what is asked for stay, unless `force`. `builder` is the
    `module:callable` that child processes make their builder with, the target's own by default.

    Raises:
        ConfigError: the target, this machine or the library cannot do what is asked for.
        ModelError: a segment cannot be built; names it and what the builder said.
        StorageError: the bundle cannot be written to. MissingExtraError: no builder here.
        The bundle's engines are then as they were before.
    """
    refuse(request)
    build = _Build(request, builder or BUILDERS[request.target.library])
    there = None if force else build.up_to_date()
    if there is None:
        opening = open_place(request.bundle.path, request.target.name)
        with (yield from opened(opening, request.target.name)) as place:
            there = None if force else build.up_to_date()  # by whoever was waited for
            if there is None:
                yield from build.all(place, resume=resume)
                return
    sweep(request.bundle.path, request.target.name)
    yield EnginesBuilt(build.folder, there, up_to_date=True)


def notes_on(engines: EngineSet) -> tuple[str, ...]:
    """What a user of engines that were just built should know."""
    return () if engines.is_covered else (
        "this user has no private folder to note in that these engines were built here: they are"
        " used with --trust-engines",)


def opened(
    opening: Generator[None, None, Place], target: str
) -> Generator[BuildEvent, None, Place]:
    """The place, once it is free; says so where it must be waited for."""
    while True:
        try:
            next(opening)
        except StopIteration as done:
            place: Place = done.value
            return place
        yield Waiting(target)


# ---- one build


class _Build:
    """Paths, settings and the machine of one build."""

    def __init__(self, request: Request, builder: str) -> None:
        self._request, self._builder = request, builder
        self._bundle, self._target = request.bundle, request.target
        try:
            version = ask({"builder": builder}, self._target.name)[0]["version"]
        except Died as died:
            raise ModelError(f"{self._target.library} {died.what} when it was started.",
                             hint="Run `edgepkd doctor`, and install it again.") from died
        refuse_version(request, version)
        self._here = this_machine(self._target.library, version)
        self._settings = Settings(
            workspace_mb=workspace_mb(self._target, request.workspace_mb),
            version_compatible=request.version_compatible or self._target.version_compatible,
            hardware_compatible=request.hardware_compatible or self._target.hardware_compatible,
            compute_capabilities=self._target.compute_capabilities, dla=request.dla,
            optimization_level=self._target.optimization_level,
            require_timing_cache=request.require_timing_cache)
        self.folder = engines_folder(self._bundle.path, self._target.name)

    def up_to_date(self) -> EngineSet | None:
        """The engines that are there, if they are what is asked for."""
        try:
            there = read_engines(self._bundle.path, self._target.name)
        except BundleError:
            return None
        same = (there.is_covered and there.precision == self._request.asked
                and there.via == "onnx"
                and _lasting(there.flags) == _lasting(asdict(self._settings))
                and _identity(there.built_on) == _identity(self._here)
                and not outdated(there, self._bundle.manifest)
                and not damaged(self._bundle.path, there)
                and all(_frames(self._shapes(self._entry(segment))) == _frames(plan)
                        for segment, plan in there.plans.items()))
        return there if same else None

    def all(self, place: Place, *, resume: bool) -> Generator[BuildEvent, None, None]:
        """Build every segment in `place`; the last event is EnginesBuilt."""
        if not resume:
            place.clear()
        segments = self._bundle.manifest.segments
        place.timing_cache = known_timing_cache(self._bundle.path, self._target.name, place)
        plans: dict[str, PlanRecord] = {}
        for number, entry in enumerate(segments, start=1):
            segment = entry.name
            yield SegmentStarted(segment, number, len(segments))
            known = self._known(entry, place) if resume else None
            plans[segment] = known or self._one(entry, place, num_built=len(plans))
            yield SegmentBuilt(segment, plans[segment], reused=known is not None)
        engines = self._finish(plans, place)
        yield EnginesBuilt(self.folder, engines, up_to_date=False, notes=notes_on(engines))

    def _known(self, entry: SegmentEntry, place: Place) -> PlanRecord | None:
        """The plan of an earlier build of the same segment with the same settings."""
        try:
            record = json.loads(place.kept(f"{entry.name}.{RECORD}") or b"")
            plan = from_mapping(PlanRecord, record["plan"], where="record")
        except (ValueError, KeyError, TypeError, ConfigError):
            return None
        same = record["key"] == _plain(self._key(entry))
        return plan if same and place.holds(plan) else None

    def _one(self, entry: SegmentEntry, place: Place, *, num_built: int) -> PlanRecord:
        """Build one segment."""
        segment, shapes = entry.name, self._shapes(entry)
        request, blocks = Job(
            builder=self._builder, source=self._content(entry), timing_cache=place.timing_cache,
            precisions=self._precisions(entry), shapes=shapes, settings=self._settings).request()
        try:
            done, (content, place.timing_cache) = ask(request, segment, blocks=blocks)
        except Died as died:
            raise self._explained(died, segment, num_built) from died
        plan = PlanRecord(
            file=f"{segment}.engine", sha256=digest_of(content),
            bytes=len(content), source=entry.file, source_sha256=self._source_sha256(entry),
            min_frames=shapes.min_frames, opt_frames=shapes.opt_frames,
            max_frames=shapes.max_frames, precision=done["precision"], build_s=done["build_s"],
            measured_ms=done["measured_ms"],
            notes=tuple(note[:MAX_NOTE] for note in (*self._float_note(entry), *done["notes"])))
        place.write(plan.file, content)
        if place.timing_cache:
            place.keep(TIMING_CACHE, place.timing_cache)
        record = {"key": self._key(entry), "plan": asdict(plan)}
        place.keep(f"{segment}.{RECORD}", json.dumps(record).encode())
        return plan

    def _finish(self, plans: Mapping[str, PlanRecord], place: Place) -> EngineSet:
        """Write the sidecar, and put the folder in its place."""
        flags = asdict(self._settings)
        del flags["require_timing_cache"]
        return place.finish(EngineSet(
            target=self._target.name, built_on=self._here, plans=plans,
            precision=self._request.asked, flags=flags))

    def _entry(self, segment: str) -> SegmentEntry:
        return next(e for e in self._bundle.manifest.segments if e.name == segment)

    def _shapes(self, entry: SegmentEntry) -> Shapes:
        frames = self._bundle.manifest.inputs[entry.modality].num_passes
        most = self._request.max_frames or frames
        # A DLA takes one size only, and on the CPU a fixed size is faster.
        fixed = self._request.dla is not None or self._target.builder == "openvino"
        return Shapes(frame=entry.input_shape, min_frames=most if fixed else 1,
                      opt_frames=most if fixed else frames, max_frames=most)

    def _precisions(self, entry: SegmentEntry) -> tuple[Precision, ...]:
        asked, fallback = self._request.asked, self._target.float_precision
        if asked in ("fp32", "fp16"):
            return (asked,)
        if self._request.dla is not None or "int8" not in self._target.precisions \
                or not self._is_quantized(entry):
            return (fallback,)
        return ("int8",) if asked == "int8" else ("int8", fallback)

    def _float_note(self, entry: SegmentEntry) -> tuple[str, ...]:
        if self._request.asked in ("int8", "auto") and not self._is_quantized(entry):
            return ("the segment is not quantised",)
        return ()

    def _is_quantized(self, entry: SegmentEntry) -> bool:
        return graph.is_quantized(self._content(entry))

    def _content(self, entry: SegmentEntry) -> bytes:
        return self._bundle.segment_content(entry.modality, entry.exit)

    def _source_sha256(self, entry: SegmentEntry) -> str:
        return self._bundle.manifest.files[entry.file].sha256

    def _key(self, entry: SegmentEntry) -> dict[str, Any]:
        """All that makes a plan what it is."""
        return {"source_sha256": self._source_sha256(entry), "builder": self._builder,
                "precisions": self._precisions(entry), "shapes": asdict(self._shapes(entry)),
                "settings": _lasting(asdict(self._settings)), "here": _identity(self._here)}

    def _explained(self, died: Died, segment: str, num_built: int) -> ModelError:
        kept = f"{num_built} of {len(self._bundle.manifest.segments)} segments are built and kept"
        words = ("edgepkd", "export", self._bundle.path, "--target", self._target.name,
                 "--precision", self._request.asked)
        if died.signal == signal.SIGKILL:
            less = max(16, (self._settings.workspace_mb or 512) // 2)
            return ModelError(
                f"{segment}: the builder was killed (SIGKILL), most likely because memory ran"
                f" out; {kept}.",
                hint="Close other programs, give it less workspace, and go on: "
                     + command(*words, "--workspace-mb", str(less), "--resume"))
        return ModelError(f"{segment}: the builder {died.what}; {kept}."
                          + (f" It said last: {died.said_last}" if died.said_last else ""),
                          hint="Go on with: " + command(*words, "--resume"))


# ---- small parts


def _identity(machine: BuiltOn) -> tuple[str | None, ...]:
    return (machine.library, machine.library_version, machine.os, machine.machine,
            machine.compute_capability, *(machine.instruction_sets or ()))


def _plain(values: Mapping[str, Any]) -> Any:
    """As JSON gives it back: lists, no tuples."""
    return json.loads(json.dumps(values))


def _lasting(settings: Mapping[str, Any]) -> Any:
    return _plain({k: v for k, v in settings.items() if k not in _EFFORT})


def _frames(plan: Shapes | PlanRecord) -> tuple[int, int, int]:
    return plan.min_frames, plan.opt_frames, plan.max_frames

