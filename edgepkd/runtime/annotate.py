"""Writes a video with each clip's answer drawn on its frames: a second pass over the source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

import av

from edgepkd.errors import StorageError, UsageError
from edgepkd.outputs import Output, check_outputs
from edgepkd.runtime.answers import ClipAnswer
from edgepkd.runtime.caption import Caption, CaptionBar
from edgepkd.runtime.video_writer import CODECS, Bytes, redraw
from edgepkd.temporaries import TemporaryFile
from edgepkd.text import shown
from edgepkd.video.limits import DEFAULT_LIMITS, Limits
from edgepkd.video.source import STDIN, Source, is_live_source, shown_source
from edgepkd.video.source_list import source_files


def check_target(
    out: Path, *, sources: Sequence[Source], model: Path, force: bool = False
) -> Output:
    """Refuse what cannot be written, before any work is done.

    Raises:
        UsageError: several sources or one that cannot be read twice, an unknown suffix, or a place
            where nothing may be written: see `check_outputs`.
    """
    if len(sources) != 1 or not can_be_read_again(sources[0]):
        what = f"{len(sources)} sources" if len(sources) != 1 else shown_source(sources[0])
        raise UsageError(f"--save with {what}; allowed: exactly one video file.",
                         hint="The file is read a second time; run once for each file.")
    if out.suffix.lower() not in CODECS:
        raise UsageError(f"--save is {str(out)!r}; allowed suffixes: {', '.join(CODECS)}.")
    (target,) = check_outputs([("--save", out)], reads=[*source_files(sources), model],
                              force=force)
    if target.is_stream:
        raise UsageError(f"--save {out} cannot be written: it is a pipe or a device.",
                         hint="Name a file: a video is written back and forth.")
    return target


def can_be_read_again(source: Source) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a second reading gives the same: a file, not a pipe or a camera."""
    return (isinstance(source, (str, os.PathLike)) and source != STDIN
            and not is_live_source(source))


def save_annotated(
    source: Source, answers: Sequence[ClipAnswer], out: Output, *,
    fps: float | None, timed: bool = True, until_s: float | None = None,
    source_fps: float | None = None, limits: Limits = DEFAULT_LIMITS,
) -> Iterator[float]:
    """Write `source` with `answers` drawn on it to `out`; yields seconds done.

    Frames show at their own times, or at a constant `fps` where these are missing or not `timed`;
    those from `until_s` on are left out. `source_fps` and `limits` are those of `open_video`.
    `out` appears when it is complete; on any error, or if the caller stops early, nothing is left.

    Raises:
        StorageError: it cannot be written. DecodeError: no frame could be decoded.
        MissingExtraError: Pillow is not installed.
    """
    try:
        with TemporaryFile(out.place) as temporary:
            yield from redraw(source, temporary.path, _Answers(answers).draw,
                              suffix=out.path.suffix.lower(), fps=fps, timed=timed,
                              until_s=until_s, source_fps=source_fps, limits=limits)
            temporary.commit(before=out.before)
    except (OSError, av.FFmpegError) as error:
        raise StorageError(f"{out.path} cannot be written: {error.strerror or error}.",
                           hint="Check the folder and the free space.") from error


def _answer_at(answers: Sequence[ClipAnswer], time_s: float) -> ClipAnswer | None:
    """The last clip that has begun at `time_s` (clips may overlap), unless it is over."""
    begun = [answer for answer in answers if answer.start_s <= time_s + 1e-6]
    if not begun:
        return None
    over = time_s >= begun[-1].end_s and begun[-1] is not answers[-1]
    return None if over else begun[-1]


class _Answers:
    """Draws the answer that holds at a time; the bar of one answer is made once."""

    def __init__(self, answers: Sequence[ClipAnswer]) -> None:
        self._answers = answers
        self._bar: CaptionBar | None = None

    def draw(self, planes: list[Bytes], time_s: float) -> None:
        answer = _answer_at(self._answers, time_s)
        if answer is None:
            return
        height, width = planes[0].shape
        text = _caption(answer)
        # A stream of two recordings may change its size within one answer.
        if self._bar is None or not self._bar.fits(text, width=width, height=height):
            self._bar = CaptionBar(text, width=width, height=height)
        self._bar.draw(planes)


def _caption(answer: ClipAnswer) -> Caption:
    total = len(answer.segments_run) + len(answer.segments_skipped)
    return Caption(f"{shown(answer.label)}  {answer.confidence:.0%}",
                   f"{answer.exit.modality} exit {answer.exit.exit}"
                   f" ({answer.exit_number}/{total})")
