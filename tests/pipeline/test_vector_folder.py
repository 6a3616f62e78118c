"""The folder of a source: whole or absent, and where it may be."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from edgepkd.errors import (
    StorageError,
    UsageError,
)
from edgepkd.pipeline.run import SourceFailed, SourcesSkipped
from edgepkd.pipeline.vectors import (
    FolderWritten,
    VectorsConfig,
    VectorsSummary,
    VectorsWritten,
    vectors,
)
from tests.disks import largest_file
from tests.pipeline.writing_vectors import (
    drained,
    index,
    stopped_after,
    written,
)


def test_each_of_several_sources_has_a_folder(tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "clips"
    for name in ("a/walk.mp4", "b/walk.mp4", "b/Walk.mp4", "run.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(clip.read_bytes())
    (folder / "bad.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("no video either")
    events, error = drained(vectors(VectorsConfig(str(folder), tmp_path / "out", gops=1)))
    assert error is None
    assert any(isinstance(event, SourcesSkipped) for event in events)
    (failed,) = [event for event in events if isinstance(event, SourceFailed)]
    assert failed.source.endswith("bad.mp4")
    names = sorted(os.listdir(tmp_path / "out"))
    assert len(names) == 4
    assert "run" in names
    assert sum(re.fullmatch("[Ww]alk-[0-9a-f]+", name) is not None for name in names) == 3, (
        "names that a disk may hold for the same are told apart")
    sources = {index(tmp_path / "out" / name)[0]["source"] for name in names}
    assert len(sources) == 4
    assert {event.folder.name for event in events if isinstance(event, FolderWritten)} == set(names)
    assert isinstance(events[-1], VectorsSummary)
    assert (events[-1].ended, events[-1].num_failed) == ("source failed", 1)


def test_what_is_named_twice_is_written_twice(tmp_path: Path, clip: Path) -> None:
    written([clip, clip], tmp_path / "out", gops=1)
    assert len(os.listdir(tmp_path / "out")) == 2


def test_folders_that_are_done_stay_when_the_next_is_stopped(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "other.mp4").write_bytes(clip.read_bytes())
    events = vectors(VectorsConfig([clip, tmp_path / "other.mp4"], tmp_path / "out"))
    summary = stopped_after(events, FolderWritten, KeyboardInterrupt())
    assert (summary.ended, summary.num_files) == ("interrupted", 3)
    assert os.listdir(tmp_path / "out") == ["right"]


def test_only_an_earlier_folder_is_replaced_and_only_with_force(
    tmp_path: Path, clip: Path
) -> None:
    out = tmp_path / "out"
    written(clip, out, gops=1)
    with pytest.raises(UsageError, match=r"is there already; it is not overwritten.*--force"):
        written(clip, out)
    written(clip, out, force=True)
    assert len(index(out)) == 3
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(UsageError, match="is there already and holds other things"):
            written(clip, mine, force=force)
    assert os.listdir(mine) == ["thesis.txt"]
    assert sorted(os.listdir(tmp_path)) == ["mine", "out"]


def test_an_older_folder_survives_a_failure(tmp_path: Path, clip: Path) -> None:
    out = tmp_path / "out"
    written(clip, out, gops=1)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with largest_file(9_000), pytest.raises(StorageError):
        written(clip, out, force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert os.listdir(tmp_path) == ["out"]


def test_places_that_are_refused(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    written(clip, out, plot="video", gops=1)
    (tmp_path / "file").write_text("x")
    (tmp_path / "x.edgepkd").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for place, message in (
        (tmp_path / "file", "no folder"), (tmp_path / "file" / "x", "can be written to"),
        (tmp_path / "x.edgepkd" / "y", "lies in the bundle"), (Path(), "the folder you are in"),
    ):
        with pytest.raises(UsageError, match=message):
            written(clip, place, force=True)
    with pytest.raises(UsageError, match=r"holds .*motion.mp4, which is read"):
        written(out / "motion.mp4", out, force=True)
    assert (out / "motion.mp4").is_file()


def test_another_process_that_was_first_keeps_the_name(tmp_path: Path, clip: Path) -> None:
    events = vectors(VectorsConfig(clip, tmp_path / "out"))
    while not isinstance(next(events), VectorsWritten):
        pass
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").write_text("dear")
    _, error = drained(events)
    assert isinstance(error, StorageError)
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == ["theirs"]
