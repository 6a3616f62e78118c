"""Below an open folder nothing is followed, and nothing but plain files is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgepkd.bundle.folder import Folder, open_folder
from edgepkd.errors import BundleError, StorageError


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "b" / "in").mkdir(parents=True)
    (tmp_path / "b" / "in" / "f").write_bytes(b"plain")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "f").write_bytes(b"precious")
    opened = open_folder(tmp_path / "b")
    assert opened is not None
    with opened:
        yield opened


def _link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "secret")


def _link_inside(path: Path) -> None:
    path.symlink_to("in/f")


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent.parent / "new")


def _folder(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


STRANGE = (_link, _link_inside, _dangling, _folder, _fifo)


def test_plain_files_are_read_and_written(root: Folder, tmp_path: Path) -> None:
    assert root.read("in/f", max_bytes=5) == b"plain"
    assert root.read("in/none", max_bytes=5) is None
    assert root.read("none/f", max_bytes=5) is None
    root.write("in/f", b"other")
    root.write("new", b"first")
    assert (tmp_path / "b/in/f").read_bytes() == b"other"
    assert (tmp_path / "b/new").read_bytes() == b"first"
    assert root.names() == ("in", "new")
    assert [root.kind(name) for name in ("in", "new", "in/f", "none", "none/f")] == [
        "folder", "file", "file", None, None]


def test_a_long_file_is_refused(root: Folder) -> None:
    with pytest.raises(BundleError, match="has 5 bytes; allowed: 4"):
        root.read("in/f", max_bytes=4)


@pytest.mark.parametrize("make", STRANGE)
def test_what_is_no_plain_file_is_neither_read_nor_written(
    root: Folder, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "b" / "x")
    before = sorted(map(str, tmp_path.rglob("*")))
    calls: tuple[Callable[[], object], ...] = (
        lambda: root.read("x", max_bytes=9), lambda: root.write("x", b"mine"))
    for call in calls:
        with pytest.raises(BundleError, match="allowed: a plain file"):
            call()
    assert sorted(map(str, tmp_path.rglob("*"))) == before
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_links_to_folders_are_not_followed(root: Folder, tmp_path: Path) -> None:
    (tmp_path / "b" / "x").symlink_to(tmp_path / "elsewhere")
    calls: tuple[Callable[[], object], ...] = (
        lambda: root.read("x/f", max_bytes=9), lambda: root.write("x/f", b"mine"),
        lambda: root.folder("x"), lambda: root.kind("x/f"),
        lambda: root.folder("x/new", create=True))
    for call in calls:
        with pytest.raises(BundleError, match="b/x is a link; allowed: a plain folder"):
            call()
    assert os.listdir(tmp_path / "elsewhere") == ["f"]


def test_paths_that_leave_are_refused(root: Folder) -> None:
    for relative in ("../secret", "/etc/passwd", "in/../../secret", "", ".", "a\0b"):
        with pytest.raises(BundleError, match="leaves the bundle"):
            root.read(relative, max_bytes=9)


def test_removing_takes_links_as_links(root: Folder, tmp_path: Path) -> None:
    inner = tmp_path / "b" / "old" / "deep"
    inner.mkdir(parents=True)
    (inner / "out").symlink_to(tmp_path / "elsewhere")
    (inner / "plain").write_bytes(b"")
    os.mkfifo(inner / "fifo")
    root.remove("old")
    (tmp_path / "b" / "link").symlink_to(tmp_path / "elsewhere")
    root.remove("link")
    root.remove("none")
    assert root.names() == ("in",)
    assert (tmp_path / "elsewhere" / "f").read_bytes() == b"precious"


@pytest.mark.slow
def test_removing_goes_as_deep_as_folders_are(root: Folder, tmp_path: Path) -> None:
    here = os.open(tmp_path / "b", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    root.remove("d")
    assert root.names() == ("in",)


def test_the_folder_stays_the_one_that_was_opened(root: Folder, tmp_path: Path) -> None:
    (tmp_path / "b").rename(tmp_path / "moved")
    (tmp_path / "b").symlink_to(tmp_path / "elsewhere")
    assert root.read("in/f", max_bytes=9) == b"plain"
    root.write("f", b"mine")
    assert (tmp_path / "elsewhere" / "f").read_bytes() == b"precious"
    assert (tmp_path / "moved" / "f").read_bytes() == b"mine"


def test_a_write_that_fails_leaves_what_was_there(
    root: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="in/f cannot be written: No space left"):
        root.write("in/f", b"other")
    assert os.listdir(tmp_path / "b" / "in") == ["f"]
    assert (tmp_path / "b/in/f").read_bytes() == b"plain"


def test_folders_are_made_and_renamed(root: Folder, tmp_path: Path) -> None:
    made = root.folder("engines/x", create=True)
    assert made is not None
    with made:
        made.write("plan", b"p")
    root.rename("engines", "other")
    assert stat.S_ISDIR((tmp_path / "b/other/x").stat().st_mode)
    assert root.read("other/x/plan", max_bytes=9) == b"p"
    assert root.folder("none") is None


def test_only_the_way_to_the_bundle_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "current").symlink_to("b")
    opened = open_folder(tmp_path / "current")
    assert opened is not None
    opened.close()
    assert open_folder(tmp_path / "none") is None
    (tmp_path / "file").write_bytes(b"")
    assert open_folder(tmp_path / "file") is None
    with pytest.raises(BundleError, match="cannot be read"):
        open_folder(tmp_path / ("n" * 300))
