"""The verbs of data: prepare, verify, synth.

    >>> *clips, summary = prepare(PrepareConfig(SourceSpec(Path("my-videos")), Path("my-set")))
    >>> summary.num_clips, summary.failures, summary.skipped
    (8, (), ())

Every clip goes to the training form (`video.normalize`), because a network must not see which
encoder made a clip.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import av

from edgepkd import __version__, plain_json
from edgepkd.config import check, check_fps
from edgepkd.datasets import synth as moving
from edgepkd.datasets.hashes import sha256_of
from edgepkd.datasets.index import Sample, labels_of
from edgepkd.datasets.layouts import SourceSpec, list_clips, output_names, source_name
from edgepkd.datasets.official import Listing
from edgepkd.datasets.pools import Crash, LocalPool, Pool
from edgepkd.datasets.prepare_clip import ClipJob, ClipResult, Status, prepare_clip
from edgepkd.datasets.prepared import (
    FAILURES,
    GO_ON_HINT,
    INDEX,
    PROGRESS,
    SUMMARY,
    VIDEOS,
    PreparedClip,
    Progress,
    write_failures,
    write_index,
)
from edgepkd.datasets.splits import SPLITS, Shares, assign_splits, check_splits
from edgepkd.datasets.table import read_table
from edgepkd.datasets.training_form import SUFFIX, training_form
from edgepkd.datasets.verify import CheckJob, check_clip, index_problems
from edgepkd.errors import DataError, StorageError
from edgepkd.files import write_atomically
from edgepkd.machine.hardware import num_cores
from edgepkd.outputs import check_folder
from edgepkd.video.limits import DEFAULT_LIMITS, Limits

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PrepareConfig:
    """Settings of `prepare`."""

    source: SourceSpec
    folder: Path
    """Where the data set goes: a new folder, or one of an earlier run, which is gone on with."""
    shares: Shares = field(default_factory=Shares)
    """Of what the source does not split."""
    jobs: int = field(default_factory=num_cores)
    """Processes, one thread each."""
    ray: str | None = None
    """Address of a Ray cluster that does the work instead, or 'local'."""
    max_failures: float = 0.1
    """Largest share of clips that may fail; above it no index is written."""
    fps: float | None = None
    """Frames per second of raw streams that name none."""
    limits: Limits = DEFAULT_LIMITS
    """How much a source may ask for."""

    def __post_init__(self) -> None:
        check(self.jobs >= 1, "jobs", got=self.jobs, allowed="1 or more")
        check(0 <= self.max_failures <= 1, "max_failures", got=self.max_failures,
              allowed="0..1, a share of the clips")
        check_fps(self.fps)


@dataclass(frozen=True)
class DataStarted:
    """The clips are listed and their splits drawn."""

    layout: str
    num_clips: int
    num_labels: int
    notes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    """(path, reason) of what lies in a folder of classes and is no clip."""


@dataclass(frozen=True)
class ClipPrepared:
    """One clip is done, was done before, or failed."""

    path: str
    source: str
    status: Status
    reason: str
    number: int
    """1-based, in the order they get done."""


@dataclass(frozen=True)
class DataSummary:
    """A data set that is whole."""

    folder: Path
    layout: str
    num_clips: int
    """In the index."""
    num_done: int
    num_kept: int
    """Done by an earlier run."""
    failures: tuple[tuple[str, str], ...]
    """(source, reason)."""
    num_damaged: int
    """Clips in the index some part of whose source did not decode."""
    counts: Mapping[str, Mapping[str, int]]
    """Split -> label -> clips."""
    num_groups: Mapping[str, int]
    """Split -> groups."""
    notes: tuple[str, ...]
    wall_s: float
    skipped: tuple[tuple[str, str], ...] = ()
    """(path, reason) of what lies in a folder of classes and is no clip."""


DataEvent = DataStarted | ClipPrepared | DataSummary


def prepare(
    config: PrepareConfig, *, pool: Pool | None = None
) -> Generator[DataEvent, None, None]:
    """Make a data set in training form; the last event is a DataSummary.

    A clip that is done stays done: started again after any end, it goes on where it was.

    Raises:
        DataError: nothing to prepare, a wrong list, a leak, too many failures.
        StorageError: the disk is full; what is done is kept.
        MissingExtraError: `ray` without Ray.
    """
    begin = time.perf_counter()
    _check_places(config)
    listing = list_clips(config.source)
    _check_no_own_clip(config, listing)
    samples = assign_splits(listing.samples, shares=config.shares)
    check_splits(samples)
    root = config.source.folder
    names = output_names(samples, root=root, suffix=SUFFIX)
    skipped = tuple((source_name(one.path, root), one.reason) for one in listing.skipped)
    yield DataStarted(listing.layout, len(samples), len(labels_of(samples)), listing.notes, skipped)
    with Progress(config.folder) as progress:
        # Absolute: a process on a cluster starts in a folder of its own.
        jobs = [ClipJob(s.path.absolute(), config.folder.absolute(), name,
                        progress.known.get(name), config.fps, config.limits)
                for s, name in zip(samples, names, strict=True)]
        sources = {name: source_name(s.path, root)
                   for s, name in zip(samples, names, strict=True)}
        results: dict[str, ClipResult] = {}
        for job, result in _results(config, jobs, pool):
            _keep(progress, config.folder, result)
            results[job.path] = result
            yield ClipPrepared(job.path, sources[job.path], result.status, result.reason,
                               len(results))
        outcome = _judged(config, listing, samples, [results[name] for name in names])
        statuses = Counter(result.status for result in results.values())
        yield _finish(
            config.folder, outcome.clips, progress, settings=_settings(config),
            layout=listing.layout, failures=outcome.failures,
            notes=(*listing.notes, *outcome.notes), skipped=skipped,
            num_kept=statuses["kept"], wall_s=time.perf_counter() - begin)


@dataclass(frozen=True)
class _Outcome:
    clips: list[PreparedClip]
    failures: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def _judged(
    config: PrepareConfig, listing: Listing, samples: Sequence[Sample],
    results: Sequence[ClipResult],
) -> _Outcome:
    """Clips and failures, in the order of the listing; writes the list of failures.

    Raises:
        DataError: too many failures, or what is left cannot be trained and tested with.
    """
    root, pairs = config.source.folder, list(zip(samples, results, strict=True))
    clips = [_prepared(s, result, root) for s, result in pairs if result.status != "failed"]
    failures = tuple((source_name(s.path, root), result.reason)
                     for s, result in pairs if result.status == "failed")
    write_failures(config.folder, failures)
    _check_failures(failures, samples, clips, config)
    notes = _check_content(clips, is_official=listing.is_official)
    check_splits([replace(c.sample(config.folder), sha256="") for c in clips])
    return _Outcome(clips, failures, notes)


def files_of(folder: Path) -> tuple[Path, ...]:
    """What a set in `folder` has besides its clips."""
    return tuple(folder / name for name in (INDEX, FAILURES, SUMMARY, PROGRESS))


def _check_places(config: PrepareConfig) -> None:
    source, folder = config.source.folder.resolve(), config.folder.resolve()
    if folder.is_relative_to(source) or source.is_relative_to(folder / VIDEOS):
        raise DataError(f"{config.folder} lies in {config.source.folder} or is it, so its clips "
                        "would be mixed up with the source.", hint="Name a folder elsewhere.")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{config.folder} is a file; allowed: a folder, new or of an earlier run.")
    check_folder("DST", config.folder)


def _check_no_own_clip(config: PrepareConfig, listing: Listing) -> None:
    made = config.folder.resolve() / VIDEOS
    own = [s.path for s in listing.samples if s.path.resolve().is_relative_to(made)]
    if own:
        raise DataError(f"{own[0]} is a clip that was made in {config.folder}, not a source.",
                        hint="Remove the link that leads there, or name another folder.")


def _results(
    config: PrepareConfig, jobs: Sequence[ClipJob], pool: Pool | None
) -> Iterator[tuple[ClipJob, ClipResult]]:
    """Every job with its result.

    Raises:
        StorageError: nothing more can be written.
    """
    for job, result in (pool or _pool(config)).run(prepare_clip, jobs):
        if isinstance(result, Crash):
            result = ClipResult(job.path, "failed", result.reason)
        if result.status == "unwritable":
            raise StorageError(result.reason, hint=GO_ON_HINT)
        yield job, result


def _pool(config: PrepareConfig) -> Pool:
    if config.ray is None:
        return LocalPool(config.jobs)
    from edgepkd.datasets.ray_pool import RayPool

    return RayPool(config.ray)


def _keep(progress: Progress, folder: Path, result: ClipResult) -> None:
    if result.status == "done":
        (folder / INDEX).unlink(missing_ok=True)  # that of an earlier run is not true any more
        progress.add(result)


def _prepared(sample: Sample, result: ClipResult, root: Path) -> PreparedClip:
    return PreparedClip(
        result.path, sample.label, sample.group, sample.split, result.sha256, result.frames,
        result.form, source_name(sample.path, root), result.source_sha256, result.num_damaged)


def _check_failures(
    failures: Sequence[tuple[str, str]], samples: Sequence[Sample],
    clips: Sequence[PreparedClip], config: PrepareConfig,
) -> None:
    if len(failures) > config.max_failures * len(samples):
        raise DataError(
            f"{len(failures)} of {len(samples)} clips failed ({len(failures) / len(samples):.0%}); "
            f"allowed: {config.max_failures:.0%}. The first: {failures[0][0]}: {failures[0][1]}",
            hint=f"See {config.folder / 'failures.csv'}; to leave them out, raise --max-failures.")
    if gone := sorted(set(labels_of(samples)) - {clip.label for clip in clips}):
        raise DataError(f"no clip of {', '.join(gone)} could be prepared.",
                        hint=f"See {config.folder / 'failures.csv'}.")


def _check_content(clips: Sequence[PreparedClip], *, is_official: bool) -> tuple[str, ...]:
    """Refuse equal clips on two sides; in a published split they are only noted.

    Raises:
        DataError: names two such clips.
    """
    first: dict[str, PreparedClip] = {}
    pairs = []
    for clip in clips:
        for content in {clip.sha256, clip.source_sha256}:
            other = first.setdefault(content, clip)
            if other.split != clip.split:
                pairs.append((other, clip))
                break
    if not pairs:
        return ()
    text = "{0.source} ({0.split}) and {1.source} ({1.split})".format(*pairs[0])
    if is_official:
        return (f"{len(pairs)} clips of the published split have the same content as one on "
                f"another side, the first: {text}",)
    raise DataError(f"{text} have the same content ({len(pairs)} such pairs); allowed: none on two "
                    "sides.", hint="Delete one of each pair, or give both one group.")


def _finish(
    folder: Path, clips: Sequence[PreparedClip], progress: Progress, *,
    settings: Mapping[str, Any], layout: str, failures: tuple[tuple[str, str], ...],
    notes: tuple[str, ...], num_kept: int, wall_s: float,
    skipped: tuple[tuple[str, str], ...] = (),
) -> DataSummary:
    """Write the index and prepare.json, remove what earlier runs left."""
    for stale in set(progress.known) - {clip.path for clip in clips}:
        if stale.startswith(f"{VIDEOS}/") and ".." not in Path(stale).parts:
            (folder / stale).unlink(missing_ok=True)
    parts = {name: [clip for clip in clips if clip.split == name] for name in SPLITS}
    made = DataSummary(
        folder=folder, layout=layout, num_clips=len(clips), num_done=len(clips) - num_kept,
        num_kept=num_kept, failures=failures, notes=notes, wall_s=wall_s, skipped=skipped,
        num_damaged=sum(clip.damaged > 0 for clip in clips),
        counts={name: dict(sorted(Counter(c.label for c in part).items()))
                for name, part in parts.items()},
        num_groups={name: len({c.group for c in part}) for name, part in parts.items()})
    write_index(folder, clips)
    document = {
        "schema_version": SCHEMA_VERSION, "form": training_form(), **asdict(made),
        "folder": str(folder), "settings": dict(settings),
        "versions": {"edgepkd": __version__, "av": av.__version__,
                     "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
                     "python": platform.python_version()},
        "index_sha256": sha256_of(folder / INDEX),
    }
    text = plain_json.dumps(document, indent=2) + "\n"
    write_atomically(folder / SUMMARY, text.encode("utf-8", "backslashreplace"))
    return made


def _settings(config: object) -> dict[str, Any]:
    values = asdict(config)  # type: ignore[call-overload]
    return dict(plain_json.loads(plain_json.dumps(values, default=str)))


# ---- synth


@dataclass(frozen=True)
class SynthConfig:
    """Settings of `synth`."""

    folder: Path
    num_classes: int = 4
    num_clips: int = 48
    clip_frames: int = 36
    seed: int = 0
    shares: Shares = field(default_factory=Shares)

    def __post_init__(self) -> None:
        most = len(moving.MOTIONS)
        check(2 <= self.num_classes <= most, "classes", got=self.num_classes, allowed=f"2..{most}")
        check(self.num_clips >= 4 * self.num_classes, "clips", got=self.num_clips,
              allowed=f"{4 * self.num_classes} or more (4 scenes of {self.num_classes} classes)")
        check(self.clip_frames >= 2, "clip_frames", got=self.clip_frames, allowed="2 or more")
        check(self.seed >= 0, "seed", got=self.seed, allowed="0 or more")


def synth(config: SynthConfig) -> Generator[DataEvent, None, None]:
    """Make a small procedural action set (`datasets.synth`); the last event is a DataSummary.

    Clips are dealt to scenes in turn, so each scene (the group) shows each class once.

    Raises:
        DataError: the folder holds something else.
        StorageError: it cannot be written, or the disk is full.
    """
    begin = time.perf_counter()
    check_folder("DST", config.folder)
    samples = assign_splits(_synth_samples(config), shares=config.shares)
    check_splits(samples)
    yield DataStarted("synth", len(samples), config.num_classes, ())
    clips = []
    with Progress(config.folder) as progress:
        (config.folder / INDEX).unlink(missing_ok=True)
        scenes = {group: moving.make_scene(number, seed=config.seed)
                  for number, group in enumerate(dict.fromkeys(s.group for s in samples))}
        for number, sample in enumerate(samples, start=1):
            clip, result = _make_synth_clip(config, sample, scenes[sample.group])
            progress.add(result)
            clips.append(clip)
            yield ClipPrepared(clip.path, clip.source, "done", "", number)
        write_failures(config.folder, ())
        yield _finish(config.folder, clips, progress, settings=_settings(config), layout="synth",
                      failures=(), notes=(), num_kept=0, wall_s=time.perf_counter() - begin)


def _synth_samples(config: SynthConfig) -> tuple[Sample, ...]:
    labels = moving.MOTIONS[: config.num_classes]
    places = [(label, f"scene{scene:02d}")
              for scene in range(-(-config.num_clips // len(labels))) for label in labels]
    return tuple(Sample(Path(VIDEOS, label, f"{group}{SUFFIX}"), label, group, "")
                 for label, group in places[: config.num_clips])


def _make_synth_clip(
    config: SynthConfig, sample: Sample, scene: moving.Scene
) -> tuple[PreparedClip, ClipResult]:
    made = moving.make_clip(sample.label, scene, num_frames=config.clip_frames)
    path = config.folder / sample.path
    write_atomically(path, made.content)
    source = f"synth:{sample.label}/{sample.group}/seed{config.seed}"
    result = ClipResult(sample.path.as_posix(), "done", form=training_form(),
                        sha256=sha256_of(path), frames=made.num_frames)
    return PreparedClip(result.path, sample.label, sample.group, sample.split, result.sha256,
                        result.frames, result.form, source, "", 0), result


# ---- verify


@dataclass(frozen=True)
class VerifyConfig:
    """Settings of `verify`."""

    folder: Path
    """A data set with an index.csv, of `prepare`, of `synth`, or by hand."""
    decode: bool = False
    """Also decode every frame, and compare counts and form."""
    jobs: int = field(default_factory=num_cores)
    limits: Limits = DEFAULT_LIMITS
    """How much a clip may ask for when it is decoded."""


@dataclass(frozen=True)
class ClipVerified:
    """One clip was looked at."""

    path: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class VerifyReport:
    """What is wrong with a data set."""

    folder: Path
    num_clips: int
    counts: Mapping[str, int]
    """Split -> clips."""
    problems: tuple[tuple[str, str], ...]
    """(path, what is wrong with it); a path may come twice."""
    decoded: bool


def verify(
    config: VerifyConfig, *, pool: Pool | None = None
) -> Generator[ClipVerified | VerifyReport, None, None]:
    """Compare a data set with its index; the last event is a VerifyReport.

    Raises:
        DataError: there is no index, or it lacks columns.
    """
    rows = read_table(config.folder / INDEX).rows
    problems = [(INDEX, text) for text in index_problems(config.folder, rows)]
    jobs = [CheckJob(config.folder, row["path"], row.get("sha256") or "", _frames(row),
                     row.get("form") or "", config.decode, config.limits) for row in rows]
    for job, found in (pool or LocalPool(config.jobs)).run(check_clip, jobs):
        texts = (found.reason,) if isinstance(found, Crash) else found
        problems += [(job.path, text) for text in texts]
        yield ClipVerified(job.path, texts)
    yield VerifyReport(config.folder, len(rows), dict(Counter(row["split"] for row in rows)),
                       tuple(sorted(problems)), config.decode)


def _frames(row: Mapping[str, str]) -> int | None:
    text = row.get("frames") or ""
    return int(text) if text.isdecimal() else None
