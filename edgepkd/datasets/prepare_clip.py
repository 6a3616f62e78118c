"""One clip of a data set, from its source to a file in training form: what a worker process does.

The same function runs in local processes and on a Ray cluster; it gives a result for every clip
and raises nothing for what is wrong with a clip.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgepkd.datasets.hashes import sha256_of
from edgepkd.datasets.training_form import encode, training_form
from edgepkd.datasets.traits import Traits, probed_traits, traits_of
from edgepkd.errors import SourceError, StorageError
from edgepkd.files import write_atomically
from edgepkd.video.limits import DEFAULT_LIMITS, Limits
from edgepkd.video.source import open_video

MIN_FRAMES = 2

Status = Literal["done", "kept", "failed", "unwritable"]


@dataclass(frozen=True)
class ClipResult:
    """What became of one clip."""

    path: str
    """Of the file in training form, relative to the data set."""
    status: Status
    """'kept': it was there already; 'unwritable': so are all others, the disk is full."""
    reason: str = ""
    """Why it failed."""
    form: str = ""
    sha256: str = ""
    frames: int = 0
    source_sha256: str = ""
    num_damaged: int = 0
    """Places of the source that did not decode and were skipped."""
    fps: float | None = None
    """Frame rate it was read with, where it names none."""
    traits: Traits | None = None
    """Of the source; None: it failed."""


@dataclass(frozen=True)
class ClipJob:
    """One clip to prepare."""

    source: Path
    folder: Path
    """The data set."""
    path: str
    """Where the clip goes, relative to `folder`."""
    known: ClipResult | None = None
    """What an earlier run made of it."""
    fps: float | None = None
    """As in `open_video`."""
    limits: Limits = DEFAULT_LIMITS
    """How much the source may ask for."""


def prepare_clip(job: ClipJob) -> ClipResult:
    """Re-encode one clip, unless the same source was re-encoded to the same form before."""
    try:
        source_sha256 = sha256_of(job.source)
    except OSError as error:
        return ClipResult(job.path, "failed", f"it cannot be read: {error.strerror}")
    target = job.folder / job.path
    if job.known is not None and _is_current(job.known, source_sha256, job.fps, target):
        # Versions before traits were kept noted none.
        traits = job.known.traits or probed_traits(job.source, limits=job.limits)
        return replace(job.known, status="kept", traits=traits)
    try:
        with open_video(job.source, fps=job.fps, limits=job.limits) as video:
            encoded = encode(video)
            traits = traits_of(video, encoded.info, num_frames=encoded.num_frames,
                               num_bytes=job.source.stat().st_size)
    except SourceError as error:
        return ClipResult(job.path, "failed", str(error), source_sha256=source_sha256)
    except Exception as error:  # a hostile file may break PyAV anywhere; the other clips go on
        return ClipResult(job.path, "failed", f"{type(error).__name__}: {error}",
                          source_sha256=source_sha256)
    if encoded.num_frames < MIN_FRAMES:
        return ClipResult(job.path, "failed", f"{encoded.num_frames} frame decodes, which holds "
                          f"no motion; allowed: {MIN_FRAMES} or more", source_sha256=source_sha256)
    return _written(job, target, encoded.content, ClipResult(
        job.path, "done", form=training_form(), frames=encoded.num_frames,
        source_sha256=source_sha256, num_damaged=encoded.num_damaged, fps=job.fps,
        traits=traits))


def _is_current(
    known: ClipResult, source_sha256: str, fps: float | None, target: Path
) -> bool:
    if (known.form, known.source_sha256, known.fps) != (training_form(), source_sha256, fps):
        return False
    try:
        return sha256_of(target) == known.sha256
    except OSError:
        return False


def _written(job: ClipJob, target: Path, content: bytes, result: ClipResult) -> ClipResult:
    try:
        write_atomically(target, content)
    except StorageError as error:
        return ClipResult(job.path, "unwritable", error.message)
    return replace(result, sha256=hashlib.sha256(content).hexdigest())
