"""What clips a data set has, with their labels, groups and splits: folders of classes, or CSV."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from edgepkd.config import check
from edgepkd.datasets import official
from edgepkd.datasets.group_patterns import leak_note
from edgepkd.datasets.index import Sample, labels_of, open_index
from edgepkd.datasets.labels import checked_labels, file_stems, folder_names
from edgepkd.datasets.official import Listing
from edgepkd.datasets.splits import SPLITS, SYNONYMS
from edgepkd.errors import ConfigError, DataError
from edgepkd.files import Skipped, walk_files
from edgepkd.video.source import VIDEO_SUFFIXES

Layout = Literal["auto", "folder", "csv", "ucf101", "hmdb51"]
INDEX = "index.csv"
NO_VIDEO, NO_CLASS = "its suffix is not that of a video", "it lies in no folder of a class"


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
    """The first capture group, searched in the file's stem, is the clip's group: in folders of
    classes, and in an index without a column group."""

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
        listing = _from_folders(spec)
    elif layout == "csv":
        listing = _from_index(spec)
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


def _from_index(spec: SourceSpec) -> Listing:
    path = spec.index or spec.folder / INDEX
    index = open_index(path, dataset=spec.dataset, root=spec.folder)
    if index.has_groups:
        if spec.group_pattern is not None:
            raise DataError(f"{path} has a column of groups, and group_pattern is "
                            f"{spec.group_pattern!r}.", hint="Leave the pattern or the column out.")
        return Listing("csv", index.samples, index.notes)
    samples = tuple(replace(s, group=_group_of(s.path, spec.group_pattern)) for s in index.samples)
    return Listing("csv", samples, (*index.notes, *_leak_notes(spec, samples)))


def _leak_notes(spec: SourceSpec, samples: Sequence[Sample]) -> tuple[str, ...]:
    """What may leak where each file is a group; nothing where splits are named already."""
    if spec.group_pattern is not None or any(s.split for s in samples):
        return ()
    return (f"a clip's group is its file's name, so {leak_note(samples)}",)


def _from_folders(spec: SourceSpec) -> Listing:
    """Videos in CLASS/ and below, links followed; one that several paths lead to counts once."""
    walk = walk_files(spec.folder)
    skipped = list(walk.skipped)
    clips: dict[tuple[str, Path], Path] = {}
    for path in walk.files:
        label = path.relative_to(spec.folder).parts[0]
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            skipped.append(Skipped(path, NO_VIDEO))
        elif path.parent == spec.folder:
            skipped.append(Skipped(path, NO_CLASS))
        elif (first := clips.setdefault((label, path.resolve()), path)) != path:
            skipped.append(Skipped(path, f"the same file as {source_name(first, spec.folder)}"))
    if not clips:
        raise DataError(f"no folder in {spec.folder} holds a video; allowed: CLASS/clip with a "
                        f"suffix of {' '.join(sorted(VIDEO_SUFFIXES))}.")
    labels = checked_labels(label for label, _ in clips)
    if set(labels.values()) <= {*SPLITS, *SYNONYMS}:
        raise DataError(f"the folders in {spec.folder} are splits ({', '.join(labels)}), not "
                        "classes.", hint="List the clips in a CSV index with a split column.")
    samples = tuple(Sample(path, labels[label], _group_of(path, spec.group_pattern), "")
                    for (label, _), path in clips.items())
    return Listing("folder", samples, _leak_notes(spec, samples), skipped=tuple(skipped))


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
    checked_labels(labels_of(samples))
    by_file: dict[Path, list[Path]] = {}
    for sample in samples:
        by_file.setdefault(sample.path.resolve(), []).append(sample.path)
    if twice := [paths for paths in by_file.values() if len(paths) > 1]:
        raise DataError(f"{len(twice)} clips are listed more than once, the first: "
                        f"{' and '.join(dict.fromkeys(map(str, twice[0])))}.",
                        hint="A clip has one label and one split; delete the other lines or links.")
    if nameless := [s.path for s in samples if not s.group]:
        raise DataError(f"{len(nameless)} clips have no group, the first: {nameless[0]}.",
                        hint="Where nothing is known, the file name may be the group.")


def output_names(samples: Sequence[Sample], *, root: Path, suffix: str) -> list[str]:
    """A path videos/LABEL/NAME for each clip, unique also where file names are not."""
    folders = folder_names(labels_of(samples))
    stems = file_stems([folders[s.label] for s in samples], [s.path.stem for s in samples],
                       [source_name(s.path, root) for s in samples])
    return [f"videos/{folders[sample.label]}/{stem}{suffix}"
            for sample, stem in zip(samples, stems, strict=True)]


def source_name(path: Path, root: Path) -> str:
    """How an index names a source: relative to the data set where it lies in it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
