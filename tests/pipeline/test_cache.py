"""`data cache`: what is listed, what is cleared, and what no option can remove."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgepkd.errors import ConfigError
from edgepkd.pipeline.cache import DAY_S, CacheConfig, caches
from tests.training.test_entries import make, name_of, names, other_things


def test_entries_are_listed_by_what_they_were_made_for(tmp_path: Path) -> None:
    for number in range(3):
        make(tmp_path, number, used_s=100.0 + number)
    old = make(tmp_path, 9, kb=10)
    (old / "facts.json").write_text('{"gop_lengths": [4], "modalities": {}}')
    made = make(tmp_path, 10, kb=20)
    (made / "facts.json").write_text('{"key": "ab", "settings": "mv: 6 views of 60 clips"}')
    [report] = caches(CacheConfig(folders=(tmp_path, tmp_path)))
    assert [(g.kind, g.settings, g.num_entries) for g in report.groups] == [
        ("clip", "mv x8", 3), ("features", "mv: 6 views of 60 clips", 1),
        ("clip", "made by an earlier version", 1)]
    assert report.groups[0].used_s == 102
    assert (report.num_entries, report.num_removed) == (5, 0)
    assert report.num_bytes == report.left_bytes == pytest.approx(3.03e6, rel=0.001)


def test_all_or_what_was_not_used_for_long_is_cleared(tmp_path: Path) -> None:
    now = time.time()
    make(tmp_path, 1, used_s=now - 10 * DAY_S)
    make(tmp_path, 2, used_s=now - 1 * DAY_S)
    [listed] = caches(CacheConfig(folders=(tmp_path,), older_than_days=5))
    assert (listed.num_entries, len(names(tmp_path))) == (1, 2)
    [report] = caches(CacheConfig(folders=(tmp_path,), clear=True, older_than_days=5))
    assert (report.num_removed, names(tmp_path)) == (1, [name_of(2)])
    assert report.left_bytes == pytest.approx(1e6, rel=0.001)
    caches(CacheConfig(folders=(tmp_path,), clear=True))
    assert names(tmp_path) == []


def test_a_folder_of_other_things_loses_none_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    other_things(folder)
    before = sorted(tmp_path.rglob("*"))
    make(folder, 1)
    [report] = caches(CacheConfig(folders=(folder,), clear=True))
    assert report.num_removed == report.num_entries == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_days_are_not_negative() -> None:
    with pytest.raises(ConfigError, match="0 or more days"):
        CacheConfig(folders=(), older_than_days=-1)
