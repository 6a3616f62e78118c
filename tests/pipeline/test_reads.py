"""What a verb reads, which nothing that it writes may replace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgepkd.pipeline.reads import run_read, sources_read


def test_videos_are_files_and_bundles_are_folders(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "notes.txt"):
        (tmp_path / name).touch()
    named = tmp_path / "x.edgepkd"
    other = tmp_path / "other"
    for bundle in (named, other):
        bundle.mkdir()
    (other / "manifest.json").touch()
    found = list(sources_read([str(tmp_path / "*.mp4"), named, str(other)]))
    assert sorted(found[:2]) == [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    assert found[2:] == [named, other]
    assert set(sources_read(str(tmp_path))) >= {tmp_path / "a.mp4", tmp_path / "b.mp4"}


def test_what_is_no_source_is_left_to_the_verb_to_say(tmp_path: Path) -> None:
    assert list(sources_read(str(tmp_path / "absent.mp4"))) == []
    assert list(sources_read("rtsp://127.0.0.1:1/x")) == []


def test_a_run_brings_the_folder_of_its_data(tmp_path: Path) -> None:
    index = tmp_path / "data" / "index.csv"
    (tmp_path / "run.json").write_text(json.dumps({"index": str(index)}))
    assert list(run_read(tmp_path, None, "a.toml", tmp_path / "cache")) == [
        tmp_path, index.parent, Path("a.toml"), tmp_path / "cache"]


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"index": 3}'])
def test_a_folder_that_is_no_run_is_read_all_the_same(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    assert list(run_read(tmp_path, "data")) == [tmp_path, Path("data")]
