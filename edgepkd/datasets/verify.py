"""Is a data set on disk what its index says?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from edgepkd import plain_json
from edgepkd.datasets.hashes import sha256_of
from edgepkd.datasets.index import samples_of_rows
from edgepkd.datasets.prepared import INDEX, SUMMARY, VIDEOS
from edgepkd.datasets.splits import split_three
from edgepkd.datasets.training_form import GOP_FRAMES, training_form
from edgepkd.errors import DataError, SourceError
from edgepkd.video.limits import DEFAULT_LIMITS, Limits
from edgepkd.video.oversize import check_refused
from edgepkd.video.probe import prepare, probe
from edgepkd.video.routes import choose_route
from edgepkd.video.source import open_video
from edgepkd.video.transforms import TRAINING_HEIGHT_PX, TRAINING_WIDTH_PX


@dataclass(frozen=True)
class CheckJob:
    """One row of an index, to be compared with its file."""

    folder: Path
    path: str
    sha256: str
    """Empty: not compared."""
    frames: int | None
    form: str
    decode: bool
    """Also decode every frame."""
    limits: Limits = DEFAULT_LIMITS
    """How much the clip may ask for."""


def check_clip(job: CheckJob) -> tuple[str, ...]:
    """What is wrong with a clip's file, in words; empty if nothing is."""
    path = job.folder / job.path
    try:
        differs = bool(job.sha256) and sha256_of(path) != job.sha256
        if not path.is_file():
            return ("is absent",)
    except FileNotFoundError:
        return ("is absent",)
    except OSError as error:
        return (f"cannot be read: {error.strerror}",)
    if differs:
        return ("has other content than when it was prepared (SHA-256)",)
    return _decoded(path, job) if job.decode else ()


def index_problems(folder: Path, rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """What is wrong with the index as a whole."""
    for path, count in Counter(row["path"] for row in rows).items():
        if count > 1:
            yield f"lists {path} {count} times"
    try:
        split_three(samples_of_rows(rows, folder))
    except DataError as error:
        yield error.message
    listed = {folder / row["path"] for row in rows}
    for file in sorted((folder / VIDEOS).glob("*/*")):
        if file not in listed and not file.name.startswith("."):
            yield f"does not list {file.relative_to(folder)}"
    try:
        told = plain_json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        if told["index_sha256"] != sha256_of(folder / INDEX):
            yield f"is not the one that {SUMMARY} was written with (SHA-256)"
    except FileNotFoundError:
        pass  # an index by hand has none
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"cannot be compared: {SUMMARY} is damaged ({error!r})"


def _decoded(path: Path, job: CheckJob) -> tuple[str, ...]:
    num_frames, num_errors, keys = 0, 0, []
    try:
        with open_video(str(path), limits=job.limits) as video:
            info = probe(video)
            context = video.stream.codec_context
            prepare(context, video.limits)
            for packet in [*video.packets(), None]:
                if packet is not None:
                    keys.append(packet.is_keyframe)
                try:
                    num_frames += len(context.decode(packet))
                except av.FFmpegError:
                    check_refused(context, packet, limits=job.limits, name=video.name)
                    num_errors += 1
    except SourceError as error:
        return (str(error),)
    found = [f"{num_errors} packets do not decode"] if num_errors else []
    if job.frames is not None and num_frames != job.frames:
        found.append(f"has {num_frames} frames; the index says {job.frames}")
    if job.form == training_form():
        size = info.width_px, info.height_px
        if (info.codec, *size) != ("mpeg4", TRAINING_WIDTH_PX, TRAINING_HEIGHT_PX) or keys != [
                number % GOP_FRAMES == 0 for number in range(len(keys))]:
            found.append(f"is {info.codec} {size[0]}x{size[1]}, not in the form {job.form}")
        elif not choose_route(info).native_possible:
            found.append(f"cannot be read natively: {choose_route(info).reason}")
    return tuple(found)
