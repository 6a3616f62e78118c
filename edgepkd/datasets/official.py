"""UCF-101 and HMDB-51 with the split files their authors publish.

The official train and test sides are kept as they are, or results could not be compared.
Calibration is cut out of the training side, by whole groups.

UCF-101: `v_CLASS_gNN_cNN.avi`; group gNN. The official splits hold out whole numbers gNN, so one
on both sides means that the files are wrong, and is an error.

HMDB-51 names no groups. The group here is the source video, taken to be the file name up to the
meta tags (`NAME_CLASS_u_nm_np1_ba_med_23.avi`: visible body, camera motion, people, view, quality,
number). Its authors choose test clips by source video, but files of one name may still be on both
sides; then each side counts as a group of its own (`NAME@train`, `NAME@test`), the clips stay where
they were published, and the listing says how many there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgepkd.datasets.index import Sample
from edgepkd.errors import DataError
from edgepkd.files import Skipped

OfficialLayout = Literal["ucf101", "hmdb51"]
_UCF_GROUP = re.compile(r"_(g\d\d)_c\d\d$")
_HMDB_TAGS = re.compile(r"_[hufl]_(?:nm|cm)_np\d+_(?:ba|fr|le|ri)_(?:bad|med|goo)_\d+$")
_HMDB_FILE = re.compile(r"(.+)_test_split([123])\.txt")


@dataclass(frozen=True)
class Listing:
    """The clips of a data set before anything is read of them."""

    layout: str
    samples: tuple[Sample, ...]
    """With an empty split where the set does not name one."""
    notes: tuple[str, ...] = ()
    """What a user should know of the list."""
    is_official: bool = False
    """Train and test are as published, and stay so."""
    skipped: tuple[Skipped, ...] = ()
    """What lies in the folder and is not taken."""


@dataclass(frozen=True)
class OfficialSet:
    """What is known of a published data set."""

    num_classes: int
    counts: tuple[tuple[int, int], ...]
    """Clips of (train, test) in splits 1, 2 and 3."""
    pattern: str
    """A file of the split files, {} is the number of the split."""
    usual_folder: str


SETS: dict[OfficialLayout, OfficialSet] = {
    "ucf101": OfficialSet(101, ((9537, 3783), (9586, 3734), (9624, 3696)),
                          "trainlist0{}.txt", "ucfTrainTestlist"),
    "hmdb51": OfficialSet(51, ((3570, 1530),) * 3,
                          "*_test_split{}.txt", "testTrainMulti_7030_splits"),
}


def find_split_files(layout: OfficialLayout, folder: Path, given: Path | None) -> Path | None:
    """The folder of the split files: `given`, or in or beside `folder` under its usual name."""
    known = SETS[layout]
    usual = (folder, folder / known.usual_folder, folder.parent / known.usual_folder)
    for candidate in (given,) if given else usual:
        if any(candidate.glob(known.pattern.format("[123]"))):
            return candidate
    return None


def list_official(
    layout: OfficialLayout, folder: Path, *, split_files: Path | None, split: int, partial: bool
) -> Listing:
    """Clips of official `split` 1..3, each in train or test.

    Raises:
        DataError: no split files, a line that is not of their form, other counts than published,
            or listed videos that are absent (both allowed with `partial`).
    """
    files = find_split_files(layout, folder, split_files)
    if files is None:
        raise DataError(
            f"no split files of {layout} ({SETS[layout].pattern.format(split)}) in "
            f"{split_files or folder}.",
            hint="Download them from the data set's page and name their folder: --split-files DIR")
    listed = list(_ucf101(files, split) if layout == "ucf101" else _hmdb51(files, split))
    notes = _count_notes(layout, listed, split=split, partial=partial)
    samples = [found for s in listed if (found := _located(s, folder)) is not None]
    if len(samples) < len(listed):
        text = f"{len(listed) - len(samples)} of {len(listed)} listed clips are not in {folder}"
        if not partial or not samples:
            absent = next(s for s in listed if _located(s, folder) is None)
            raise DataError(f"{text}, the first: {absent.label}/{absent.path.name}.",
                            hint="Unpack all videos, or accept what is there with --partial.")
        notes.append(f"partial: {text}")
    if layout == "hmdb51":
        samples, num_shared = _parted(samples)
        if num_shared:
            notes.append(f"the official split has {num_shared} source names on both sides; "
                         "it is kept as published")
    return Listing(layout, tuple(samples), tuple(notes), is_official=True)


def _count_notes(
    layout: OfficialLayout, listed: Sequence[Sample], *, split: int, partial: bool
) -> list[str]:
    known = SETS[layout]
    train = sum(s.split == "train" for s in listed)
    got = (len({s.label for s in listed}), train, len(listed) - train)
    official = (known.num_classes, *known.counts[split - 1])
    if got == official:
        return []
    text = ("{} classes, {} train and {} test clips".format(*got)
            + f" are listed; {layout} split {split} has " + "{}, {} and {}".format(*official))
    if not partial:
        raise DataError(f"{text}.", hint="Get the original split files, or accept these with "
                        "--partial.")
    return [f"partial: {text}"]


def _ucf101(files: Path, split: int) -> Iterator[Sample]:
    """Lines 'CLASS/v_CLASS_gNN_cNN.avi NUMBER' (train) and without the number (test)."""
    classes: dict[str, str] = {}
    for where, words in _lines(files / "classInd.txt"):
        if len(words) != 2 or not words[0].isdigit() or words[0] in classes:
            raise DataError(f"{where} is {' '.join(words)!r}; allowed: NUMBER CLASS, each once.")
        classes[words[0]] = words[1]
    for part, num_words in (("train", 2), ("test", 1)):
        for where, words in _lines(files / f"{part}list0{split}.txt"):
            folder, _, name = words[0].partition("/")
            group = _UCF_GROUP.search(Path(name).stem)
            if len(words) != num_words or folder not in classes.values() or group is None:
                raise DataError(f"{where} is {' '.join(words)!r}; allowed: CLASS/v_CLASS_gNN_cNN"
                                f".avi{' NUMBER' * (num_words - 1)}, CLASS from classInd.txt.")
            if num_words == 2 and classes.get(words[1]) != folder:
                raise DataError(f"{where} gives {folder} the number {words[1]}, which is "
                                f"{classes.get(words[1], 'no class')} in classInd.txt.")
            yield Sample(Path(folder, name), folder, group[1], part)


def _hmdb51(files: Path, split: int) -> Iterator[Sample]:
    """Files CLASS_test_splitN.txt with lines 'NAME.avi 0|1|2': unused, train, test."""
    for path in sorted(files.glob(SETS["hmdb51"].pattern.format(split))):
        found = _HMDB_FILE.fullmatch(path.name)
        assert found is not None
        for where, words in _lines(path):
            if len(words) != 2 or words[1] not in ("0", "1", "2") or "/" in words[0]:
                raise DataError(f"{where} is {' '.join(words)!r}; allowed: NAME.avi 0|1|2.")
            if words[1] != "0":
                group = _HMDB_TAGS.sub("", Path(words[0]).stem)
                yield Sample(Path(found[1], words[0]), found[1], group,
                             "train" if words[1] == "1" else "test")


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Lines of a split file as words, each with the place it stands at."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"split file {path} cannot be read: {error.strerror}.",
                        hint="All files of the official list are needed.") from error
    except UnicodeDecodeError:
        raise DataError(f"split file {path} is not text.") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{path.name} line {number}", line.split()


def _located(sample: Sample, folder: Path) -> Sample | None:
    """`sample` with its path in `folder`: CLASS/NAME or just NAME."""
    for path in (folder / sample.path, folder / sample.path.name):
        if ".." not in sample.path.parts and path.is_file():
            return replace(sample, path=path)
    return None


def _parted(samples: Sequence[Sample]) -> tuple[list[Sample], int]:
    """Groups on both sides become two groups; returns how many there were."""
    sides: dict[str, set[str]] = {}
    for sample in samples:
        sides.setdefault(sample.group, set()).add(sample.split)
    shared = {group for group, splits in sides.items() if len(splits) > 1}
    return [replace(s, group=f"{s.group}@{s.split}") if s.group in shared else s
            for s in samples], len(shared)
