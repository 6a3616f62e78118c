"""Files are written whole or not at all; a walk follows links, ends, and says what it skips."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgepkd.errors import StorageError
from edgepkd.files import Walk, append_line, walk_files, write_atomically
from tests.disks import FULL, full_disk, largest_file


@pytest.mark.smoke
def test_a_file_and_its_folder_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]


def test_a_full_disk_keeps_the_old_file_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(b"old")
    with full_disk(), pytest.raises(StorageError, match=rf"b\.json cannot be written: {FULL}"
                                    ) as caught:
        write_atomically(path, b"new")
    assert caught.value.hint == "Free some space, or name another folder."
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_way_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "b.json", b"new")


def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "log.jsonl"
    append_line(path, "one")
    with largest_file(6), pytest.raises(StorageError, match="cannot be written: No space left"):
        append_line(path, "second")
    with largest_file(4), pytest.raises(StorageError, match="cannot be written: File too large"):
        append_line(path, "second")
    assert path.read_text() == "one\n"
    with path.open("a") as file:
        file.write("cut sho")  # by a kill
    append_line(path, "three")
    assert path.read_text() == "one\ncut sho\nthree\n"


def test_a_walk_takes_all_files_below_and_no_hidden_ones(tmp_path: Path) -> None:
    fill(tmp_path, "b/c/1.mp4", "b/2.txt", "a.mp4", ".hidden/3.mp4", "b/.4.mp4")
    assert names(walk_files(tmp_path), tmp_path) == (["a.mp4", "b/2.txt", "b/c/1.mp4"], {})


def test_the_folder_walked_may_itself_be_hidden_or_a_link(tmp_path: Path) -> None:
    fill(tmp_path, ".store/1.mp4")
    (tmp_path / "link").symlink_to(".store")
    assert walk_files(tmp_path / ".store").files == (tmp_path / ".store" / "1.mp4",)
    assert walk_files(tmp_path / "link").files == (tmp_path / "link" / "1.mp4",)


def test_a_walk_follows_links_to_files_and_folders(tmp_path: Path) -> None:
    fill(tmp_path, "elsewhere/deep/1.mp4", "elsewhere/2.mp4", "here/3.mp4")
    (tmp_path / "here" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "here" / "again").symlink_to("../elsewhere/deep")
    (tmp_path / "here" / "file.mp4").symlink_to("../elsewhere/2.mp4")
    found, skipped = names(walk_files(tmp_path / "here"), tmp_path / "here")
    assert found == ["3.mp4", "again/1.mp4", "file.mp4", "folder/2.mp4", "folder/deep/1.mp4"]
    assert skipped == {}


def test_loops_end_and_are_named(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.mp4", "b/2.mp4")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "a" / "b").symlink_to("../b")
    (tmp_path / "b" / "a").symlink_to("../a")
    (tmp_path / "b" / "ouroboros").symlink_to("ouroboros")
    found, skipped = names(walk_files(tmp_path), tmp_path)
    assert found == ["a/1.mp4", "a/b/2.mp4", "b/2.mp4", "b/a/1.mp4"]
    lies_in = "a link to a folder that it lies in"
    endless = "a link to ouroboros, which cannot be read: too many levels of symbolic links"
    assert skipped == {
        "a/self": lies_in, "a/up": lies_in, "a/b/a": lies_in, "a/b/ouroboros": endless,
        "b/a/b": lies_in, "b/a/self": lies_in, "b/a/up": lies_in, "b/ouroboros": endless}


def test_broken_links_and_what_is_no_file_are_listed(tmp_path: Path) -> None:
    (tmp_path / "gone.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert names(walk_files(tmp_path), tmp_path) == ([], {
        "gone.mp4": "a broken link to nowhere.mp4, which cannot be read: "
                    "no such file or directory",
        "pipe.mp4": "neither a file nor a folder"})
    missing = walk_files(tmp_path / "missing").skipped
    assert [one.reason for one in missing] == ["cannot be read: no such file or directory"]


def test_a_folder_that_must_not_be_read_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "open/1.mp4", "shut/2.mp4")
    listdir = os.listdir

    def refuse(path: Path) -> list[str]:  # chmod does not stop root
        if path.name == "shut":
            raise PermissionError(errno.EACCES, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert names(walk_files(tmp_path), tmp_path) == (
        ["open/1.mp4"], {"shut": "cannot be read: permission denied"})


@pytest.mark.slow
def test_folders_nested_deeper_than_python_calls_are_walked(tmp_path: Path) -> None:
    folders = [f"{tmp_path}{'/d' * depth}" for depth in range(1, 1501)]
    for folder in folders:
        os.mkdir(folder)
    try:
        fill(Path(folders[-1]), "1.mp4")
        assert walk_files(tmp_path).files == (Path(folders[-1]) / "1.mp4",)
    finally:  # tmp_path is emptied by a recursion, which would not get that deep
        Path(folders[-1], "1.mp4").unlink(missing_ok=True)
        for folder in reversed(folders):
            os.rmdir(folder)


def fill(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def names(walk: Walk, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Paths relative to the folder: the files, and what was skipped why."""
    return ([path.relative_to(folder).as_posix() for path in walk.files],
            {one.path.relative_to(folder).as_posix(): one.reason for one in walk.skipped})
