"""Labels and clips as names: what a label may be, and what its folder and its files are called.

A label is kept in Unicode form NFC. The folder of its clips bears its name as far as all common
file systems allow; the index holds the label itself.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256

from edgepkd.errors import DataError

MAX_NAME_BYTES = 255
"""Of a file or folder, on common file systems."""
_STEM_CHARS, _STEM_BYTES = 100, 180
_FOLDER_BYTES = 240
_DIGEST = 8
_UNPRINTED = {"Cc": "a control character", "Zl": "a line break", "Zp": "a line break",
              "Cs": "a byte that is not UTF-8"}
# Besides '/': what exFAT and NTFS do not take, or use for other things.
_UNPORTABLE = re.compile(r'[<>:"|?*\\/]')


def checked_labels(raw: Iterable[str]) -> dict[str, str]:
    """Labels as they are kept, by how they were written: NFC, no blanks around them.

    Raises:
        DataError: one cannot name a folder, or two would name the same one on some file system.
    """
    labels = {text: unicodedata.normalize("NFC", text.strip()) for text in sorted(set(raw))}
    seen: dict[str, str] = {}
    for text, label in labels.items():
        if fault := _fault(label):
            raise DataError(f"label {text!r} cannot name a folder: {fault}; allowed: any text "
                            f"without '/', '\\' and control characters that does not begin with "
                            f"a dot, of {MAX_NAME_BYTES} bytes at most.", hint=_hint())
        other = seen.setdefault(_same_on_disk(label), text)
        if other != text:
            # Two Unicode forms look alike, so these are shown as code points.
            one, two = map(ascii if label == labels[other] else repr, (other, text))
            raise DataError(f"labels {one} and {two} differ only in case, blanks or Unicode form, "
                            "which some file systems take for one name; allowed: labels that "
                            "differ in more.", hint="Give both one spelling, or rename one.")
    return labels


def _hint() -> str:
    encoding = sys.getfilesystemencoding()
    return "Rename it." if encoding == "utf-8" else (
        f"File names are {encoding} here; set PYTHONUTF8=1, or a locale with UTF-8.")


def _fault(label: str) -> str:
    """What keeps a label from naming a folder; empty if nothing does."""
    if not label:
        return "it is empty"
    if label.startswith("."):
        return "it begins with a dot, as hidden files do"
    for char in label:
        if char in "/\\":
            return f"it holds {char!r}"
        if kind := _UNPRINTED.get(unicodedata.category(char)):
            return f"it holds {kind}"
    try:
        os.fsencode(label)
    except UnicodeEncodeError:
        return "file names here cannot hold its letters"
    size = len(label.encode())
    return f"it has {size} bytes" if size > MAX_NAME_BYTES else ""


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """The folder of each label: its name, or, where a file system refuses that, one like it."""
    return {label: _portable_folder(label) for label in labels}


def _portable_folder(label: str) -> str:
    name = _UNPORTABLE.sub("_", label)
    if name.endswith("."):
        name = f"{name[:-1]}_"
    if name == label:
        return name
    return f"{_cut(name, _FOLDER_BYTES)}-{_digest(label)}"


def file_stems(folders: Sequence[str], stems: Sequence[str], sources: Sequence[str]) -> list[str]:
    """A file name without suffix for each clip, unique within its folder, like the clip's own.

    `sources` tell clips of one name apart; they differ from one another.
    """
    names = [_portable_stem(stem) for stem in stems]
    for digits in (_DIGEST, 2 * _DIGEST):  # again: a clip may be called like another with its hash
        keys = [_same_on_disk(f"{folder}/{name}")
                for folder, name in zip(folders, names, strict=True)]
        counts = Counter(keys)
        names = [f"{name}-{_digest(source, digits)}" if counts[key] > 1 else name
                 for name, key, source in zip(names, keys, sources, strict=True)]
    return names


def _portable_stem(stem: str) -> str:
    text = unicodedata.normalize("NFC", stem)
    text = "".join("_" if unicodedata.category(c) in _UNPRINTED else c for c in text)
    text = _cut(_UNPORTABLE.sub("_", text)[:_STEM_CHARS], _STEM_BYTES)
    return text.lstrip(".").strip() or "_"


def _same_on_disk(name: str) -> str:
    """Equal for names that a file system may hold for the same: other case, other Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _cut(text: str, num_bytes: int) -> str:
    return text.encode()[:num_bytes].decode(errors="ignore")


def _digest(text: str, digits: int = _DIGEST) -> str:
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:digits]
