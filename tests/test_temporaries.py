"""What is not whole yet: it is locked by its writer, and goes with the next one when that died."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepkd import renames, temporaries
from edgepkd.errors import StorageError
from edgepkd.files import new_folder, recover_folder, write_atomically
from edgepkd.temporaries import Temporary, TemporaryFile, discard, identity, recover, sweep
from tests.processes import started

KILLED = -signal.SIGKILL
DYING = """
import os, signal, sys
from pathlib import Path
from edgepkd import renames, temporaries
from edgepkd.files import new_folder, write_atomically
folder = Path(sys.argv[1])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def die_at(call, module, name):
    real, calls = getattr(module, name), []
    def counted(*arguments, **settings):
        calls.append(name)
        return die() if len(calls) == call else real(*arguments, **settings)
    setattr(module, name, counted)
"""


@pytest.fixture(autouse=True)
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between two sweeps of one folder."""
    monkeypatch.setattr(temporaries, "_quiet_until", {})


def killed(code: str, folder: Path) -> None:
    """Run `code` until it kills itself."""
    done = subprocess.run([sys.executable, "-c", DYING + code, str(folder)], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == KILLED, done.stderr


def left(folder: Path) -> list[str]:
    return sorted(path.name.rpartition(".")[2] for path in folder.iterdir()
                  if ".edgepkd-" in path.name)


def test_a_killed_write_keeps_the_old_file_and_the_next_write_sweeps(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    killed("die_at(1, temporaries, '_sync')\nwrite_atomically(folder / 'a.json', b'new')", tmp_path)
    assert (tmp_path / "a.json").read_bytes() == b"old"
    assert left(tmp_path) == ["tmp"]
    write_atomically(tmp_path / "another.json", b"2")
    assert left(tmp_path) == []
    assert (tmp_path / "a.json").read_bytes() == b"old"


def test_a_killed_folder_is_swept(tmp_path: Path) -> None:
    killed("""
with new_folder(folder / 'entry', what='it') as made:
    (made / 'deep').mkdir()
    (made / 'deep' / 'a').write_bytes(b'1')
    die()
""", tmp_path)
    assert left(tmp_path) == ["tmp"]
    with new_folder(tmp_path / "other", what="it"):
        assert left(tmp_path) == ["tmp"], "its own, and no other"
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_another_process_is_writing_stays(tmp_path: Path, kind: str) -> None:
    make = {"file": "TemporaryFile(folder / 'a')", "folder": "Temporary.new_folder(folder / 'a')"}
    code = f"""
import sys, time
from pathlib import Path
from edgepkd.temporaries import Temporary, TemporaryFile
folder = Path(sys.argv[1])
held = {make[kind]}
print(held.path, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with started(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        path = Path(writer.stdout.readline().strip())
        sweep(tmp_path)
        assert path.exists()
        writer.kill()
        writer.wait()
        temporaries._quiet_until.clear()
        sweep(tmp_path)
        assert not path.exists()


def test_what_this_process_is_writing_stays(tmp_path: Path) -> None:
    with TemporaryFile(tmp_path / "a") as first, Temporary.new_folder(tmp_path / "b") as second:
        write_atomically(tmp_path / "a", b"2")
        sweep(tmp_path)
        assert first.path.is_file()
        assert second.path.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_of_another_machine_only_what_is_a_day_old_goes(tmp_path: Path) -> None:
    young, old = (tmp_path / f".a.edgepkd-00000000-0000000{n}.tmp" for n in (1, 2))
    young.write_bytes(b"1")
    old.write_bytes(b"2")
    os.utime(old, (time.time() - 90_000,) * 2)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


def test_links_pipes_and_names_of_others_stay(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "dear").write_bytes(b"precious")
    place = tmp_path / "place"
    place.mkdir()
    kernel = temporaries._kernel()
    (place / f".a.edgepkd-{kernel}-00000001.tmp").symlink_to(outside)
    (place / f".a.edgepkd-{kernel}-00000002.tmp").symlink_to(outside / "deep" / "dear")
    os.mkfifo(place / f".a.edgepkd-{kernel}-00000003.tmp")
    for name in (".a.tmp", ".a.1234.abcd1234.tmp", "a.edgepkd-00000000-00000000.tmp", ".a.old"):
        (place / name).write_bytes(b"1")
    before = sorted(os.listdir(place))
    inside = place / f".b.edgepkd-{kernel}-00000004.tmp"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    sweep(place)
    assert sorted(os.listdir(place)) == before
    assert (outside / "deep" / "dear").read_bytes() == b"precious"


def test_what_belongs_to_another_user_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / f".a.edgepkd-{temporaries._kernel()}-00000001.tmp"
    theirs.write_bytes(b"1")
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    sweep(tmp_path)
    assert theirs.exists()


def test_a_full_folder_is_looked_at_only_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    listdir = os.listdir

    def slow(path: Path) -> list[str]:
        looks.append(path)
        time.sleep(0.05)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", slow)
    for _ in range(20):
        write_atomically(tmp_path / "a", b"1")
    assert len(looks) == 1


@pytest.mark.parametrize("length", [1, 199, 200, 201, 255])
def test_every_name_that_a_file_may_have_can_be_written(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("é" * (length // 2) + "a" * (length % 2))
    write_atomically(path, b"1")
    with new_folder(tmp_path / ("b" * length), what="it"):
        pass
    assert path.read_bytes() == b"1"
    assert left(tmp_path) == []


def test_permissions_are_those_of_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"1")
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    path.chmod(0o600)
    write_atomically(path, b"2")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("supported", [True, False])
def test_a_name_that_must_be_free_or_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    if not supported:
        monkeypatch.setattr(renames, "_renameat2", lambda: None)
    path = tmp_path / "a"
    with TemporaryFile(path) as first:
        first.commit(before=None)
    there = identity(path)
    for before in (None, (0, 0)):
        with TemporaryFile(path) as second, pytest.raises(FileExistsError):
            second.commit(before=before)
        assert identity(path) == there
    with TemporaryFile(path) as third:
        third.commit(before=there)
    assert identity(path) != there
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def noting(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def noted(*arguments: object) -> object:
            calls.append(name)
            return real(*arguments)
        return noted

    monkeypatch.setattr(os, "fsync", noting("sync", os.fsync))
    monkeypatch.setattr(os, "rename", noting("rename", os.rename))
    write_atomically(tmp_path / "a", b"1")
    assert calls == ["sync", "rename", "sync"]
    calls.clear()
    with new_folder(tmp_path / "b", what="it") as made:
        (made / "1").write_bytes(b"1")
    assert calls == ["sync", "sync", "rename", "sync"]


def test_a_disk_that_is_full_only_when_synced_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="a cannot be written: Disk quota exceeded"):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


# ---- folders that are replaced

REPLACE = """
with new_folder(folder / 'it', what='the model', replaces=True) as made:
    (made / 'deep').mkdir()
    (made / 'deep' / 'file').write_text('new')
"""


def old_in(place: Path) -> Path:
    (place / "it" / "deep").mkdir(parents=True)
    (place / "it" / "deep" / "file").write_text("old")
    return place


def replace(folder: Path, text: str = "new") -> None:
    with new_folder(folder, what="the model", replaces=True) as made:
        (made / "deep").mkdir()
        (made / "deep" / "file").write_text(text)


def content(folder: Path) -> str:
    return (folder / "deep" / "file").read_text()


@pytest.mark.parametrize("supported", [True, False])
def test_a_folder_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    if not supported:
        monkeypatch.setattr(renames, "_renameat2", lambda: None)
    replace(old_in(tmp_path) / "it")
    assert content(tmp_path / "it") == "new"
    replace(tmp_path / "it", "third")
    assert content(tmp_path / "it") == "third"
    replace(tmp_path / "where none is")
    assert content(tmp_path / "where none is") == "new"
    assert sorted(os.listdir(tmp_path)) == ["it", "where none is"]


@pytest.mark.slow
@pytest.mark.parametrize("supported", [True, False])
@pytest.mark.parametrize("step", range(1, 12))
def test_killed_anywhere_a_folder_is_the_old_or_the_new_one(
    tmp_path: Path, step: int, supported: bool
) -> None:
    code = "" if supported else "renames._renameat2 = lambda: None\n"
    code += """
counted = []
def counting(real):
    def call(*arguments, **settings):
        counted.append(real)
        if len(counted) == int(sys.argv[2]):
            die()
        return real(*arguments, **settings)
    return call
os.rename = counting(os.rename)
renames._rename = counting(renames._rename)
temporaries._remove = counting(temporaries._remove)
temporaries.os.rmdir = counting(os.rmdir)
temporaries.sync_names = counting(temporaries.sync_names)
""" + REPLACE
    done = subprocess.run([sys.executable, "-c", DYING + code, str(old_in(tmp_path)), str(step)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, KILLED), done.stderr
    if supported:
        assert (tmp_path / "it").is_dir(), "at no time without a folder"
    recover_folder(tmp_path / "it")
    assert content(tmp_path / "it") in ("old", "new")
    sweep(tmp_path)
    recover(tmp_path / "it")
    assert os.listdir(tmp_path) == ["it"]
    assert content(tmp_path / "it") == "new" or done.returncode == KILLED


def test_the_old_folder_comes_back(tmp_path: Path) -> None:
    killed("renames._renameat2 = lambda: None\n"
           "die_at(2, os, 'rename')\n" + REPLACE, old_in(tmp_path))
    assert not (tmp_path / "it").exists()
    assert left(tmp_path) == ["old", "tmp"]
    sweep(tmp_path)
    assert left(tmp_path) == ["old"], "the only one is not swept"
    recover_folder(tmp_path / "it")
    assert content(tmp_path / "it") == "old"
    assert os.listdir(tmp_path) == ["it"]


@pytest.mark.parametrize("supported", [True, False])
def test_a_replacement_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    rename = os.rename

    def failing(old: Path, new: Path, **where: object) -> None:
        if Path(new).name == "it" and Path(old).suffix == ".tmp":
            raise OSError(errno.EIO, "disk on fire")
        rename(old, new)

    def no_exchange(old: Path, new: Path, flag: int, **where: object) -> bool:
        if supported:
            raise OSError(errno.EIO, "disk on fire")
        return False

    monkeypatch.setattr(renames, "_rename", no_exchange)
    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(StorageError, match=r"the model cannot be written to .*: disk on fire"):
        replace(old_in(tmp_path) / "it")
    assert content(tmp_path / "it") == "old"
    assert os.listdir(tmp_path) == ["it"]


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_link_or_a_file_is_not_replaced_by_a_folder(tmp_path: Path, kind: str) -> None:
    (old_in(tmp_path) / "it").rename(tmp_path / "elsewhere")
    if kind == "link":
        (tmp_path / "it").symlink_to("elsewhere")
    else:
        (tmp_path / "it").write_bytes(b"1")
    with pytest.raises(StorageError, match="a link or a file has this name"):
        replace(tmp_path / "it")
    assert content(tmp_path / "elsewhere") == "old"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "it"]


def test_what_is_discarded_is_gone_and_a_kill_leaves_what_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("content")
    discard(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    monkeypatch.setattr(temporaries, "_remove", lambda _: None)  # killed after the rename
    discard(tmp_path / "b")
    assert not (tmp_path / "b").exists()
    monkeypatch.undo()
    temporaries._quiet_until.clear()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
