"""What clips a data set has, with their labels, groups and splits: folders of classes, or CSV."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

from edgepkd.config import check
from edgepkd.datasets import official
from edgepkd.datasets.index import Sample, labels_of, read_index
from edgepkd.datasets.official import Listing
from edgepkd.datasets.splits import SPLITS, SYNONYMS
from edgepkd.errors import ConfigError, DataError
from edgepkd.video.source import VIDEO_SUFFIXES

Layout = Literal["auto", "folder", "csv", "ucf101", "hmdb51"]
INDEX = "index.csv"
_SAFE_LABEL = re.compile(r"[\w(][\w ()&+,.'=#@!-]*")


@dataclass(frozen=True)
class SourceSpec:
    """Where the clips of a data set are, and how they are listed."""

    folder: Path
    layout: Layout = "auto"
    index: Path | None = None
    """CSV index with paths relative to `folder`; None: index.csv in it."""
    dataset: str | None = None
    """Only the rows of an index with this in their column `dataset`."""
    split_files: Path | None = None
    """Folder of the official split files; None: looked for in `folder`."""
    split: int = 1
    """Which of the three official splits."""
    partial: bool = False
    """Accept other clip counts than the official ones; clips that are not there are left out."""
    group_pattern: str | None = None
    """Folder layout: the first capture group, searched in the file's stem, is the clip's group."""

    def __post_init__(self) -> None:
        check(self.layout in get_args(Layout), "layout", got=self.layout,
              allowed=", ".join(get_args(Layout)))
        check(self.split in (1, 2, 3), "split", got=self.split, allowed="1, 2, 3")
        if self.group_pattern is not None:
            _compiled(self.group_pattern)


def list_clips(spec: SourceSpec) -> Listing:
    """The clips of a data set.

    Raises:
        DataError: no such folder, no clips, a list that is not what it should be, a clip listed
            twice, or a label that cannot name a folder.
    """
    if not spec.folder.is_dir():
        raise DataError(f"{spec.folder} is not a folder.", hint="Give the folder of the data set.")
    layout = _recognised(spec) if spec.layout == "auto" else spec.layout
    if layout == "folder":
        listing = Listing(layout, _from_folders(spec))
    elif layout == "csv":
        listing = Listing(layout, read_index(spec.index or spec.folder / INDEX,
                                             dataset=spec.dataset, root=spec.folder))
    else:
        listing = official.list_official(
            layout, spec.folder, split_files=spec.split_files, split=spec.split,
            partial=spec.partial)
    _check_listing(listing.samples)
    return listing


def _recognised(spec: SourceSpec) -> Literal["folder", "csv", "ucf101", "hmdb51"]:
    if spec.index is not None or (spec.folder / INDEX).is_file():
        return "csv"
    for layout in official.SETS:
        if official.find_split_files(layout, spec.folder, spec.split_files) is not None:
            return layout
    if spec.split_files is not None:
        raise DataError(f"{spec.split_files} holds no official split files; looked for: "
                        f"{', '.join(s.pattern for s in official.SETS.values())}.")
    return "folder"


def _from_folders(spec: SourceSpec) -> tuple[Sample, ...]:
    samples = [
        Sample(path, folder.name, _group_of(path, spec.group_pattern), "")
        for folder in sorted(spec.folder.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")
        and path.is_file()
    ]
    if not samples:
        raise DataError(f"no folder in {spec.folder} holds a video; allowed: CLASS/clip with a "
                        f"suffix of {' '.join(sorted(VIDEO_SUFFIXES))}.")
    labels = labels_of(samples)
    if set(labels) <= {*SPLITS, *SYNONYMS}:
        raise DataError(f"the folders in {spec.folder} are splits ({', '.join(labels)}), not "
                        "classes.", hint="List the clips in a CSV index with a split column.")
    return tuple(samples)


def _group_of(path: Path, pattern: str | None) -> str:
    if pattern is None:
        return path.stem
    found = _compiled(pattern).search(path.stem)
    if found is None or not found[1]:
        raise DataError(f"group_pattern {pattern!r} finds no group in {path.name!r}.",
                        hint="It is searched in the file name without suffix.")
    return str(found[1])


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"group_pattern {pattern!r} is no regular expression: {error}.") from None
    check(compiled.groups >= 1, "group_pattern", got=pattern,
          allowed="a regular expression with a (capture group)")
    return compiled


def _check_listing(samples: Sequence[Sample]) -> None:
    twice = [path for path, n in Counter(s.path for s in samples).items() if n > 1]
    if twice:
        raise DataError(f"{len(twice)} clips are listed more than once, the first: {twice[0]}.")
    for label in labels_of(samples):
        if not _SAFE_LABEL.fullmatch(label):
            raise DataError(f"label {label!r} cannot name a folder; allowed: letters, digits, "
                            "_ and, after the first, spaces and ().&+,'=#@!-.")
    if nameless := [s.path for s in samples if not s.group]:
        raise DataError(f"{len(nameless)} clips have no group, the first: {nameless[0]}.",
                        hint="Where nothing is known, the file name may be the group.")


def output_names(samples: Sequence[Sample], *, root: Path, suffix: str) -> list[str]:
    """A path videos/LABEL/NAME for each clip, unique also where file names are not."""
    names = [(s.label, re.sub(r"[^\w()&+,.'=#@! -]", "_", s.path.stem)[:100].lstrip(".") or "_")
             for s in samples]
    # Some file systems hold Clip and clip for the same name.
    counts = Counter((label, name.lower()) for label, name in names)
    made = []
    for sample, (label, name) in zip(samples, names, strict=True):
        if counts[label, name.lower()] > 1:
            source = source_name(sample.path, root).encode("utf-8", "surrogateescape")
            name = f"{name}-{sha256(source).hexdigest()[:8]}"
        made.append(f"videos/{label}/{name}{suffix}")
    return made


def source_name(path: Path, root: Path) -> str:
    """How an index names a source: relative to the data set where it lies in it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
