"""The verb `data prepare`: clips of any kind to a set that networks are trained on.

    >>> *clips, summary = prepare(PrepareConfig(SourceSpec(Path("my-videos")), Path("my-set")))
    >>> summary.num_clips, summary.failures, summary.skipped
    (8, (), ())

Every clip goes to the training form (`video.normalize`), because a network must not see which
encoder made a clip.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from edgepkd.config import check, check_fps
from edgepkd.datasets.index import Sample, labels_of
from edgepkd.datasets.layouts import SourceSpec, list_clips, output_names, source_name
from edgepkd.datasets.no_look import NoLook
from edgepkd.datasets.official import Listing
from edgepkd.datasets.pools import Crash, LocalPool, Pool
from edgepkd.datasets.prepare_clip import ClipJob, ClipResult, prepare_clip
from edgepkd.datasets.prepared import (
    GO_ON_HINT,
    INDEX,
    VIDEOS,
    PreparedClip,
    Progress,
    write_failures,
    write_traits,
)
from edgepkd.datasets.splits import Shares, absent_classes, check_splits, draw_splits
from edgepkd.datasets.training_form import SUFFIX
from edgepkd.datasets.traits import Traits
from edgepkd.errors import DataError, StorageError
from edgepkd.machine.hardware import num_cores
from edgepkd.outputs import check_folder
from edgepkd.pipeline.data import ClipPrepared, DataEvent, DataStarted, finish, settings_of
from edgepkd.pipeline.no_look_floor import measured
from edgepkd.video.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class PrepareConfig:
    """Settings of `prepare`."""

    source: SourceSpec
    folder: Path
    """Where the data set goes: a new folder, or one of an interrupted run, which is
    continued."""
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
    drawn = draw_splits(listing.samples, shares=config.shares)
    samples, told = drawn.samples, (*listing.notes, *drawn.notes)
    check_splits(samples)
    root = config.source.folder
    names = output_names(samples, root=root, suffix=SUFFIX)
    skipped = tuple((source_name(one.path, root), one.reason) for one in listing.skipped)
    yield DataStarted(listing.layout, len(samples), len(labels_of(samples)), told, skipped)
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
        yield finish(
            config.folder, outcome.clips, progress, settings=settings_of(config),
            layout=listing.layout, failures=outcome.failures,
            notes=(*told, *outcome.notes), skipped=skipped, no_look=outcome.no_look,
            num_kept=statuses["kept"], wall_s=time.perf_counter() - begin)


@dataclass(frozen=True)
class _Outcome:
    clips: list[PreparedClip]
    failures: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    no_look: NoLook | None


def _judged(
    config: PrepareConfig, listing: Listing, samples: Sequence[Sample],
    results: Sequence[ClipResult],
) -> _Outcome:
    """Clips and failures, in the order of the listing; writes failures and traits.

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
    kept = [replace(c.sample(config.folder), sha256="") for c in clips]
    check_splits(kept)
    traits = [result.traits for result in results if result.status != "failed"]
    write_traits(config.folder, [(clip.path, one) for clip, one in zip(clips, traits, strict=True)
                                 if one])
    floor, why_none = _floor(kept, traits)
    return _Outcome(clips, failures, (*notes, *absent_classes(kept), *why_none), floor)


def _floor(
    samples: Sequence[Sample], traits: Sequence[Traits | None]
) -> tuple[NoLook | None, tuple[str, ...]]:
    """The no-look floor of the clips that are not for test."""
    pairs = [(s, one) for s, one in zip(samples, traits, strict=True) if s.split != "test"]
    return measured([s for s, _ in pairs], [asdict(one) if one else None for _, one in pairs])


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
    """Refuse equal clips in two splits; where the splits are published they are only noted.

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
        return (f"{len(pairs)} clips of the published split have the same content as one in "
                f"another split, the first: {text}",)
    raise DataError(f"{text} have the same content ({len(pairs)} such pairs); allowed: none in two "
                    "splits.", hint="Delete one of each pair, or give both the same group.")
