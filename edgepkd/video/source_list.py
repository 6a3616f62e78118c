"""From what a user names to a list of sources: folders, patterns, addresses, open files.

A folder of pictures, or a pattern that fits pictures, is one source: a video as an image sequence.
What lies in a folder and is no video is never passed over in silence.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edgepkd.errors import SourceError
from edgepkd.files import Skipped, walk_files
from edgepkd.video.source_names import (
    ALLOWED,
    STDIN,
    Source,
    SourceArgument,
    as_list,
    is_live_source,
    plain_source,
    shown_argument,
    shown_source,
)
from edgepkd.video.stills import SEQUENCE_HINT, STILL_SUFFIXES, is_still

VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".360", ".3g2", ".3gp", ".3gpp", ".amv", ".apng", ".asf", ".av1", ".avc",
    ".avi", ".dav", ".divx", ".dv", ".dvr-ms", ".f4v", ".flv", ".gif", ".h261", ".h263", ".h264",
    ".h265", ".h26l", ".hevc", ".insv", ".ivf", ".lrf", ".lrv", ".m1v", ".m2p", ".m2t", ".m2ts",
    ".m2v", ".m4v", ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mod", ".mov", ".mp4", ".mpe",
    ".mpeg", ".mpg", ".mpv", ".mts", ".mxf", ".nut", ".obu", ".ogm", ".ogv", ".qt", ".rm", ".rmvb",
    ".tod", ".tp", ".trp", ".ts", ".vc1", ".vob", ".webm", ".webp", ".wmv", ".wtv", ".xvid",
    ".y4m",
})
"""What counts as a video in a folder; a file named outright may have any name."""

_PRINTF = re.compile(r"%(0?\d*)d|%%")


class Sources(list[Source]):
    """Sources, in order.

    Attributes:
        skipped: what lies where they were looked for, and is none.
    """

    def __init__(self, sources: Iterable[Source] = (), *, skipped: Iterable[Skipped] = ()) -> None:
        super().__init__(sources)
        self.skipped: tuple[Skipped, ...] = tuple(skipped)


def resolve_sources(argument: SourceArgument) -> Sources:
    """Return the sources that `argument`, one or several, names; twice what is named twice.

    A folder gives all videos in it and below it, links followed, in natural order ('clip2' before
    'clip10'): files with a suffix of VIDEO_SUFFIXES. A folder without videos gives each folder of
    pictures as one source. A pattern ('clips/*.mp4', 'seq/*.jpg', 'seq/img_%05d.jpg') gives the
    videos that fit, or the pictures that fit as one source.

    Raises:
        SourceError: nothing is there, or the folder or pattern holds no video.
    """
    named = as_list(argument)
    if not named:
        raise SourceError(f"no source is named; allowed: {ALLOWED}.", hint="Name one or more.")
    found = [_resolve(source) for source in named]
    stills = [one for sources in found for one in sources if _is_still_file(one)]
    if len(stills) > 1 and len(stills) == sum(map(len, found)):
        raise SourceError(
            f"{shown_source(stills[0])} and {len(stills) - 1} more are pictures, not videos; "
            f"allowed: {ALLOWED}.", hint=SEQUENCE_HINT)
    return Sources((source for sources in found for source in sources),
                   skipped=(one for sources in found for one in sources.skipped))


def source_files(sources: Iterable[Source]) -> list[Path]:
    """Return what is read from this machine's disks for `sources`, each picture of a sequence too.

    A pipe that comes from a file is that file.
    """
    found: list[Path] = []
    for source in sources:
        if not isinstance(source, (str, os.PathLike)):
            with contextlib.suppress(OSError, AttributeError):  # of no file, such as BytesIO
                found.append(Path(f"/dev/fd/{source.fileno()}"))
        elif source == STDIN:
            found.append(Path("/dev/stdin"))
        elif os.path.isdir(name := plain_source(source)):
            found += [path for path in Path(name).iterdir() if is_still(path)]
        elif os.path.exists(name):
            found.append(Path(name))
        elif "://" not in name:
            found += pattern_matches(name)
    return found


def pattern_matches(pattern: str) -> list[Path]:
    """Return what fits a pattern with '*', '?', '[...]' or '%d', in natural order; links too."""
    names = glob.glob(pattern, recursive=True) if glob.has_magic(pattern) else []
    folder, number = os.path.split(pattern)
    if not names and _PRINTF.search(number):
        fits = _printf_fits(number)
        try:
            names = [os.path.join(folder, name) for name in os.listdir(folder or ".")
                     if fits(name)]
        except OSError:
            names = []
    return [Path(name) for name in sorted(names, key=natural_key)]


def is_video_file(path: Path) -> bool:
    """Return whether a file counts as a video in a folder, a moving picture included."""
    return path.suffix.lower() in VIDEO_SUFFIXES | STILL_SUFFIXES and not is_still(path)


def is_pattern(name: str) -> bool:
    """Return whether `name`, which is no file's, may stand for several files."""
    return glob.has_magic(name) or _PRINTF.search(os.path.basename(name)) is not None


def natural_key(name: str | os.PathLike[str]) -> list[tuple[int, int, str]]:
    """Return a sort key by which 'clip2' comes before 'clip10'."""
    parts = re.split(r"(\d+)", os.fspath(name))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]


def _resolve(source: Source) -> Sources:
    if not isinstance(source, (str, os.PathLike)):
        return Sources([source])
    name = plain_source(source)
    if name == STDIN or is_live_source(name):
        return Sources([name])
    if os.path.isdir(name):
        return _below(Path(name))
    if os.path.exists(name):
        return Sources([name])
    if "://" in name:
        raise SourceError(f"{shown_source(name)} is not a source that edgepkd can open; "
                          f"allowed: {ALLOWED}.",
                          hint="Download the video first, or pipe it in and pass '-'.")
    if is_pattern(name):
        return _fitting(name)
    raise SourceError(f"{shown_argument(name) or repr(name)} {why_absent(name)}; "
                      f"allowed: {ALLOWED}.", hint="Check the path.")


def why_absent(name: str) -> str:
    """Return why `name` is not there, in words that follow it."""
    try:
        os.stat(name)
    except FileNotFoundError:
        return "does not exist" + (": it is a broken link" if os.path.islink(name) else "")
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    except ValueError:
        return "is no name of a file"
    return "is no file"


def _fitting(pattern: str) -> Sources:
    files, skipped = [], []
    for path in pattern_matches(pattern):
        if path.is_file():
            files.append(path)
        elif not path.is_dir():
            skipped.append(Skipped(path, f"it {why_absent(str(path))}"))
        elif "**" not in pattern:
            skipped.append(Skipped(path, "a folder, the pattern is for files"))
    if not files:
        raise SourceError(f"No file fits the pattern {shown_argument(pattern)}"
                          f"{_found(skipped)}; allowed: {ALLOWED}.",
                          hint="Quote the pattern, or list the folder to see what is there.")
    stills = [path for path in files if is_still(path)]
    if len(stills) < len(files):
        skipped += [Skipped(path, "a picture, and there are videos") for path in stills]
        pictures = set(stills)
        return Sources([str(path) for path in files if path not in pictures], skipped=skipped)
    return Sources(_sequences(stills, pattern), skipped=skipped)


def _sequences(stills: Sequence[Path], pattern: str) -> list[str]:
    """Return a source for each folder of `stills`; a picture alone stands for itself."""
    folders = Counter(path.parent for path in stills)
    if len(folders) == 1 and len(stills) > 1:
        return [pattern]
    last = os.path.basename(pattern).replace("**", "*")
    return [str(Path(glob.escape(str(folder))) / last) if count > 1 else
            str(next(path for path in stills if path.parent == folder))
            for folder, count in folders.items()]


def _below(folder: Path) -> Sources:
    walk = walk_files(folder)
    files = sorted(walk.files, key=natural_key)
    stills = {path for path in files if is_still(path)}
    videos = [path for path in files if path not in stills and is_video_file(path)]
    taken = set(videos)
    if not videos:
        counts = Counter(path.parent for path in files if path in stills)
        videos = [parent for parent, count in counts.items() if count > 1]
        taken = {path for path in stills if counts[path.parent] > 1}
    left = [path for path in files if path not in taken]
    skipped = [*walk.skipped, *_by_suffix(folder, left, stills)]
    if not videos:
        raise SourceError(f"{folder} holds no video{_found(skipped)}; allowed suffixes: "
                          f"{' '.join(sorted(VIDEO_SUFFIXES))}.",
                          hint="Name the file itself if it has another suffix.")
    return Sources(map(str, videos), skipped=skipped)


def _by_suffix(folder: Path, files: Iterable[Path], stills: set[Path]) -> list[Skipped]:
    """Return one line for each kind of file, however many there are."""
    kinds = Counter((path in stills, path.suffix.lower()) for path in files)
    lines = []
    for (still, suffix), count in sorted(kinds.items()):
        name = f"{count} {'file' if count == 1 else 'files'} " + (
            f"with {suffix}" if suffix else "without a suffix")
        lines.append(Skipped(folder, f"{name}: " + ("a picture, not a video" if still else
                                                    "no suffix of a video")))
    return lines


def _found(skipped: Sequence[Skipped]) -> str:
    if not skipped:
        return ""
    first = [f"{one.path}: {one.reason}" for one in skipped[:5]]
    more = [f"{len(skipped) - 5} more"] if len(skipped) > 5 else []
    return f" (found: {'; '.join([*first, *more])})"


def _is_still_file(source: Source) -> bool:
    return isinstance(source, str) and os.path.isfile(source) and is_still(Path(source))


def _printf_fits(pattern: str) -> Callable[[str], bool]:
    """Return whether a name is what printf makes of `pattern` and some number."""
    text, at = "", 0
    for mark in _PRINTF.finditer(pattern):
        text += re.escape(pattern[at:mark.start()])
        text += "%" if mark[0] == "%%" else rf"\d{{{int(mark[1] or 1)},}}"
        at = mark.end()
    expression = re.compile(text + re.escape(pattern[at:]))
    return lambda name: expression.fullmatch(name) is not None
