"""A pattern for `--group-pattern`, proposed where the names of clips tell groups apart.

A group is a person or a recording. Names of known data sets and common habits are tried; a
proposal is a guess that a person who knows the clips must look at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepkd.datasets.index import Sample

PATTERNS = (
    r"_(g\d+)_c\d+$",  # UCF-101: v_Basketball_g01_c03
    r"S\d{3}C\d{3}(P\d{3})",  # NTU: S001C002P003R001A050
    r"^(.+)_[a-z_]+_[fhlu]_[cn]m_np\d",  # HMDB-51: TITLE_kick_f_cm_np1_le_bad_0
    r"(?i)((?:person|subject|subj|actor|people|user)[_-]?\d+)",  # KTH: person03_boxing_d2
    r"(?i)(?:^|[_\-. ])([ps]\d+)(?=[_\-. ]|$)",  # clip_p12, a01_s03_t02
    r"(?i)((?:video|scene|seq|recording|session|take|cam|camera)[_-]?\d+)[_\-. ]",  # video3_012
    r"^([A-Za-z]+)_[A-Za-z]+\d*$",  # Weizmann: anna_run, anna_wave1
    r"^[A-Za-z]+\d*_([A-Za-z]+)$",  # run_anna
    r"^([A-Za-z]+)\d+$",  # anna12
    r"^(.+)[_\-. ]\d+$",  # anna_12, recording-7_003
)
MAX_ODD = 0.1
"""Share of clips that a pattern need not find, and share of its groups that may hold one clip."""


@dataclass(frozen=True)
class Proposal:
    """A pattern that cuts the clips into groups."""

    pattern: str
    groups: tuple[str, ...]
    """Those it finds, sorted."""
    unmatched: tuple[str, ...]
    """Names of clips it finds nothing in, which it would refuse."""

    def in_words(self) -> str:
        """The option, ready to paste, and what it finds."""
        shown = ", ".join(self.groups[:3]) + (", ..." if len(self.groups) > 3 else "")
        text = f"--group-pattern '{self.pattern}' finds {len(self.groups)} groups: {shown}"
        if self.unmatched:
            text += (f"; {len(self.unmatched)} names do not fit and would have to be changed, the "
                     f"first: {self.unmatched[0]}")
        return text


def propose_pattern(samples: Sequence[Sample]) -> Proposal | None:
    """The first of PATTERNS that fits nearly all file names, or None.

    It fits where there are two groups or more and fewer than clips, nearly all of more than one
    clip, and every label comes in two groups or more, because else no split could be drawn.
    """
    found = (_tried(pattern, samples) for pattern in PATTERNS)
    return next((one for one in found if one), None)


def leak_note(samples: Sequence[Sample]) -> str:
    """One line on clips whose groups nobody named, and how to name them."""
    text = ("one person or recording may be in train and in test at once, which makes the test "
            "look better than it is")
    if proposal := propose_pattern(samples):
        return f"{text}; this may fit, if these are persons or recordings: {proposal.in_words()}"
    return (f"{text}; name the groups by --group-pattern 'REGEX', whose first (...) is the person "
            "or recording in the file's name, or in a column group of an index")


def _tried(pattern: str, samples: Sequence[Sample]) -> Proposal | None:
    compiled = re.compile(pattern)
    pairs = [(Path(s.path).stem, s.label) for s in samples]
    found = [(match[1], label) for stem, label in pairs if (match := compiled.search(stem))]
    unmatched = tuple(stem for stem, _ in pairs if not compiled.search(stem))
    sizes = Counter(group for group, _ in found)
    single = sum(size == 1 for size in sizes.values())
    if (not 2 <= len(sizes) < len(found) or single > MAX_ODD * len(sizes)
            or len(unmatched) > MAX_ODD * len(pairs)):
        return None
    groups_of_label = Counter(label for _, label in set(found))
    if min(groups_of_label.values()) < 2:
        return None
    return Proposal(pattern, tuple(sorted(sizes)), unmatched)
