"""A data set on disk: its tables, and what is done so far, which one process holds at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.datasets.index import Sample, read_index
from edgepkd.datasets.prepare_clip import ClipResult
from edgepkd.datasets.prepared import (
    PROGRESS,
    PreparedClip,
    Progress,
    write_failures,
    write_index,
)
from edgepkd.errors import DataError, StorageError
from tests.disks import FULL, full_disk

CLIP = PreparedClip("videos/run/a.mp4", "run, fast", "anna", "train", "5" * 64, 12, "a form",
                    "a.avi", "6" * 64, damaged=1)
DONE = ClipResult("videos/run/a.mp4", "done", form="a form", sha256="5" * 64, frames=12)
OTHER = ClipResult("videos/run/b.mp4", "failed", "it cannot be read: चलना")


def test_training_reads_the_index_that_was_written(tmp_path: Path) -> None:
    (tmp_path / "videos" / "run").mkdir(parents=True)
    (tmp_path / CLIP.path).touch()
    path = write_index(tmp_path, [CLIP])
    assert path == tmp_path / "index.csv"
    expected = Sample(tmp_path / CLIP.path, "run, fast", "anna", "train", "5" * 64, "a form")
    assert read_index(path) == (expected,)
    assert CLIP.sample(tmp_path) == expected
    assert path.read_text().splitlines()[0] == (
        "path,label,group,split,sha256,frames,form,source,source_sha256,damaged")


def test_failures_are_a_table_even_when_there_is_none(tmp_path: Path) -> None:
    assert write_failures(tmp_path, []).read_text() == "path,reason\n"
    path = write_failures(tmp_path, [("a.avi", "it is empty, or cut off")])
    assert path.read_text().splitlines()[1] == 'a.avi,"it is empty, or cut off"'


@pytest.mark.slow
def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    with full_disk(writes=0), pytest.raises(StorageError, match=FULL):
        write_index(tmp_path, [CLIP])
    assert not (tmp_path / "index.csv").exists()


def test_a_later_run_knows_what_is_done(tmp_path: Path) -> None:
    with Progress(tmp_path / "set") as progress:
        assert progress.known == {}
        progress.add(DONE)
        progress.add(OTHER)
    with Progress(tmp_path / "set") as progress:
        assert progress.known == {DONE.path: DONE, OTHER.path: OTHER}


def test_a_line_that_a_kill_cut_off_is_done_again(tmp_path: Path) -> None:
    with Progress(tmp_path) as progress:
        progress.add(DONE)
        progress.add(OTHER)
    file = tmp_path / PROGRESS
    file.write_bytes(file.read_bytes()[:-20])
    with Progress(tmp_path) as progress:
        assert progress.known == {DONE.path: DONE}
        progress.add(OTHER)
    with Progress(tmp_path) as progress:
        assert progress.known == {DONE.path: DONE, OTHER.path: OTHER}


def test_two_processes_never_work_in_one_folder(tmp_path: Path) -> None:
    with (Progress(tmp_path / "set"),
          pytest.raises(DataError, match="another process is preparing")):
        Progress(tmp_path / "set")
    with Progress(tmp_path / "set") as progress:  # left, it is free again
        assert progress.known == {}


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(DataError, match="not empty and no data set of `edgepkd data`"):
        Progress(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
