"""Groups in the names of files: what is proposed, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.datasets.group_patterns import PATTERNS, leak_note, propose_pattern
from edgepkd.datasets.index import Sample
from edgepkd.datasets.layouts import SourceSpec, list_clips


def clips(*names: str, label: str = "") -> list[Sample]:
    """A clip of each name; its label is the part of the name before '/'."""
    return [Sample(Path(f"{name}.avi"), label or name.partition("/")[0], name, "")
            for name in names]


PEOPLE = ("anna", "bob", "cleo")


@pytest.mark.parametrize(("names", "groups"), [
    ([f"{a}/v_{a}_g0{g}_c0{c}" for a in ("Biking", "Diving") for g in (1, 2) for c in (1, 2)],
     ("g01", "g02")),
    ([f"{a}/S001C00{c}P00{p}R001A0{a}" for a in (10, 11) for p in (1, 2) for c in (1, 2)],
     ("P001", "P002")),
    ([f"{a}/{t}_{a}_f_cm_np1_le_bad_{n}" for a in ("kick", "hug") for t in ("FilmA", "Film_B")
      for n in (0, 1)], ("FilmA", "Film_B")),
    ([f"{a}/person0{p}_{a}_d{d}_uncomp" for a in ("boxing", "walking") for p in (1, 2)
      for d in (1, 2)], ("person01", "person02")),
    ([f"{a}/clip_p{p}" for a in ("run", "walk") for p in (1, 2, 12)], ("p1", "p12", "p2")),
    ([f"{a}/a0{n}_s0{p}_t0{t}" for n, a in enumerate(("run", "walk")) for p in (1, 2)
      for t in (1, 2)], ("s01", "s02")),
    ([f"{a}/video{v}_{n:03d}" for a in ("run", "walk") for v in (1, 2) for n in (1, 2)],
     ("video1", "video2")),
    ([f"{a}/{p}_{a}" for a in ("bend", "wave1") for p in PEOPLE], PEOPLE),
    ([f"{a}/{a}_{p}" for a in ("bend", "wave1") for p in PEOPLE], PEOPLE),
    ([f"{a}/{p}_{n}" for a in ("bend", "jump") for p in PEOPLE for n in (1, 2)], PEOPLE),
])
def test_names_of_known_sets_are_recognised(names: list[str], groups: tuple[str, ...]) -> None:
    proposal = propose_pattern(clips(*names))
    assert proposal is not None
    assert (proposal.groups, proposal.unmatched) == (groups, ())


@pytest.mark.parametrize("names", [
    [f"run/clip_{n:03d}" for n in range(9)] + [f"walk/clip_{n:03d}" for n in range(9, 18)],
    [f"run/run_{n}" for n in range(9)] + [f"walk/walk_{n}" for n in range(9)],  # group is label
    [f"run/p{n}_x" for n in range(9)] + [f"walk/p{n}_x" for n in range(9, 18)],  # one clip each
    [f"run/{n * 7919:x}" for n in range(9)] + [f"walk/{n * 6007:x}" for n in range(9)],
])
def test_names_that_tell_no_groups_apart_give_no_proposal(names: list[str]) -> None:
    assert propose_pattern(clips(*names)) is None


def test_a_few_names_may_differ_and_are_named() -> None:
    names = [f"{a}/{p}_{a}{n}" for a in ("bend", "jump") for p in PEOPLE for n in range(9)]
    proposal = propose_pattern(clips(*names, "bend/99 luftballons!"))
    assert proposal is not None
    assert proposal.unmatched == ("99 luftballons!",)
    assert proposal.in_words() == (
        f"--group-pattern '{PATTERNS[6]}' finds 3 groups: anna, bob, cleo; 1 names do not fit and "
        "would have to be changed, the first: 99 luftballons!")
    assert propose_pattern(clips(*names, *(f"jump/99 {n}!" for n in range(9)))) is None


def test_the_note_says_what_may_happen_and_how_to_name_groups() -> None:
    samples = clips(*(f"{a}/{p}_{a}" for a in ("bend", "jump") for p in PEOPLE))
    assert "train and in test at once" in leak_note(samples)
    assert "--group-pattern '^([A-Za-z]+)_[A-Za-z]+\\d*$' finds 3 groups: anna, bob, cleo" in (
        leak_note(samples))
    assert "--group-pattern 'REGEX'" in leak_note(clips("a/x", "b/y"))


def test_a_proposal_can_be_pasted(tmp_path: Path) -> None:
    for label in ("bend", "jump"):
        (tmp_path / label).mkdir()
        for person in PEOPLE:
            (tmp_path / label / f"{person}_{label}.avi").touch()
    listing = list_clips(SourceSpec(tmp_path))
    proposal = propose_pattern(listing.samples)
    assert proposal is not None
    again = list_clips(SourceSpec(tmp_path, group_pattern=proposal.pattern))
    assert {s.group for s in again.samples} == set(PEOPLE)
    assert any("--group-pattern" in note for note in listing.notes)
    assert again.notes == ()
