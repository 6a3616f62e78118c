"""Entries of a cache: what goes first, what never goes, and what fits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgepkd.errors import ConfigError, StorageError
from edgepkd.training.entries import (
    Room,
    cache_line,
    check_limit,
    entries,
    kind_of,
    remove,
    size_of,
    touch,
    trim,
)

CLIP = {"gop_lengths": [4], "modalities": {}, "settings": "mv x8"}


def name_of(number: int) -> str:
    return f"{number:032x}"


def make(folder: Path, number: int, *, kb: int = 1000, used_s: float = 0.0) -> Path:
    """An entry of about so many kilobytes."""
    entry = folder / name_of(number)
    entry.mkdir(parents=True)
    (entry / "iframe.npy").write_bytes(bytes(1000 * kb))
    (entry / "facts.json").write_text(json.dumps(CLIP))
    os.utime(entry, (used_s, used_s))
    return entry


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    for number in range(4):
        make(tmp_path, number, used_s=100.0 - number)
    touch(tmp_path / name_of(3))
    assert [entry.path.name for entry in entries(tmp_path)] == [
        name_of(number) for number in (2, 1, 0, 3)]
    left = trim(tmp_path, limit_gb=0.0021)
    assert names(tmp_path) == [name_of(0), name_of(3)]
    assert left == size_of(tmp_path) == pytest.approx(2e6, rel=0.001)


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    for number in range(3):
        make(tmp_path, number, used_s=number)
    assert trim(tmp_path, limit_gb=0.0001, keep={name_of(0)}) > 1e6
    assert names(tmp_path) == [name_of(0)]


def other_things(folder: Path) -> None:
    """What may lie in a folder that somebody calls a cache, and is none of ours."""
    (folder / "thesis.doc").write_text("years")
    (folder / name_of(100)).mkdir()
    (folder / name_of(101)).mkdir()
    (folder / name_of(101) / "facts.json").write_text('{"mine": 1}')
    stranger = make(folder, 102)
    (stranger / "thesis.doc").write_text("years")
    nested = make(folder, 103)
    (nested / "mv.npy").mkdir()
    linked = make(folder, 104)
    (linked / "mv.npy").symlink_to(folder / "thesis.doc")
    (folder / name_of(105)).symlink_to(make(folder.parent / "elsewhere", 105))
    (folder / name_of(106)).write_text("a file")
    (folder / name_of(107).upper().replace("0", "F")).mkdir()


def test_nothing_that_is_no_entry_is_ever_touched(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    other_things(folder)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    make(folder, 1)
    trim(folder, limit_gb=1e-9)
    for entry in entries(folder):
        assert not remove(entry)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_an_entry_that_changed_meanwhile_stays(tmp_path: Path) -> None:
    path = make(tmp_path, 1)
    [entry] = entries(tmp_path)
    (path / "notes.txt").write_text("mine")
    assert not remove(entry)
    assert path.is_dir()


def test_facts_say_what_an_entry_holds() -> None:
    assert kind_of(CLIP) == "clip"
    assert kind_of({"key": "ab"}) == "features"
    assert kind_of({"key": 1}) is kind_of({}) is None


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert entries(tmp_path / "no") == ()
    assert cache_line(tmp_path / "no", limit_gb=20) == f"cache {tmp_path}/no: 0.0 GB of 20"


def test_the_line_says_how_full_it_is(tmp_path: Path) -> None:
    make(tmp_path, 1, kb=160_000)
    assert cache_line(tmp_path, limit_gb=0.5).endswith(": 0.2 GB of 0.5")


def test_room_is_made_by_what_others_left(tmp_path: Path) -> None:
    for number in range(3):
        make(tmp_path, number, used_s=number)
    room = Room(tmp_path, {name_of(0), name_of(9)}, num=2, limit_gb=0.0031)
    make(tmp_path, 9)
    room.added(name_of(9))
    assert names(tmp_path) == [name_of(0), name_of(2), name_of(9)]


def test_what_does_not_fit_is_an_error_with_the_number_that_is_needed(tmp_path: Path) -> None:
    wanted = {name_of(number) for number in range(40)}
    room = Room(tmp_path, wanted, num=40, limit_gb=0.02)
    for number in range(7):
        make(tmp_path, number)
        room.added(name_of(number))
    make(tmp_path, 7)  # eight clips say enough
    with pytest.raises(StorageError, match=r"40 clips need about 0\.04 GB .* allowed: 0\.02 GB"
                       ) as caught:
        room.added(name_of(7))
    assert "--cache-gb" in str(caught.value.hint)


def test_a_limit_below_what_is_there_already_is_an_error_too(tmp_path: Path) -> None:
    for number in range(3):
        make(tmp_path, number)
    with pytest.raises(StorageError, match=r"3 clips need about 0\.003 GB"):
        Room(tmp_path, {name_of(n) for n in range(3)}, num=3, limit_gb=0.002)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_is_above_zero(limit: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        check_limit(limit)
