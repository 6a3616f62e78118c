"""The list of what this user has made here: nobody else can have put anything on it."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepkd.bundle import trust

ONE, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_what_is_added_is_listed_until_it_is_forgotten(state: Path) -> None:
    assert not trust.is_listed(ONE)
    trust.forget(ONE)
    assert not state.exists(), "looking makes nothing"
    assert trust.add(ONE)
    assert trust.add(ONE)
    assert trust.add(OTHER)
    assert (trust.is_listed(ONE), trust.is_listed(OTHER)) == (True, True)
    assert trust.place() == state / "edgepkd/engines"
    assert stat.S_IMODE((state / "edgepkd/engines").stat().st_mode) == 0o700
    trust.forget(ONE)
    assert (trust.is_listed(ONE), trust.is_listed(OTHER)) == (False, True)
    assert [path.stat().st_size for path in (state / "edgepkd/engines").iterdir()] == [0]


@pytest.mark.parametrize("name", ["edgepkd", "edgepkd/engines"])
@pytest.mark.parametrize("mode", [0o777, 0o722, 0o770])
def test_a_folder_that_others_can_write_to_does_not_count(
    state: Path, name: str, mode: int
) -> None:
    assert trust.add(ONE)
    (state / name).chmod(mode)
    assert not trust.is_listed(ONE)
    assert not trust.add(OTHER)
    assert trust.place() is None


@pytest.mark.parametrize("name", ["edgepkd", "edgepkd/engines"])
def test_a_link_does_not_count(state: Path, tmp_path: Path, name: str) -> None:
    assert trust.add(ONE)
    (state / name).rename(tmp_path / "moved")
    (state / name).symlink_to(tmp_path / "moved")
    assert not trust.is_listed(ONE)
    assert not trust.add(OTHER)


def test_an_entry_that_is_no_plain_file_does_not_count(state: Path) -> None:
    assert trust.add(ONE)
    folder = state / "edgepkd/engines"
    (folder / OTHER).symlink_to(ONE)
    os.mkfifo(folder / ("c" * 64))
    (folder / ("d" * 64)).mkdir()
    assert [trust.is_listed(char * 64) for char in "abcd"] == [True, False, False, False]
    assert not trust.add(OTHER)


@pytest.mark.parametrize("foreign", ["state", "state/edgepkd", "state/edgepkd/engines"])
def test_what_another_user_owns_does_not_count(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: str
) -> None:
    """As root under sudo sees the home of whoever called it."""
    assert trust.add(ONE)
    real = os.fstat

    def owned(descriptor: int) -> Any:
        status = real(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}") != str(tmp_path / foreign):
            return status
        return SimpleNamespace(st_mode=status.st_mode, st_uid=status.st_uid + 1)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", owned)
        answers = trust.is_listed(ONE), trust.add(OTHER)
    assert answers == ((True, True) if foreign == "state" else (False, False))


def test_nothing_is_made_in_another_users_home(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "_is_own", lambda folder: False)
    assert not trust.add(ONE)
    assert not state.exists()


@pytest.mark.parametrize("home", ["", "relative", "/nonexistent"])
def test_without_a_home_the_user_databases_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative/too")
    monkeypatch.setenv("HOME", home)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pwd, "getpwuid", lambda user: SimpleNamespace(pw_dir=str(tmp_path)))
    assert trust.add(ONE) == (home != "/nonexistent")
    assert (tmp_path / ".local/state/edgepkd/engines" / ONE).exists() == (home != "/nonexistent")

    def unknown(user: int) -> Any:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert not trust.add(OTHER)
    assert trust.place() is None


def test_a_place_that_cannot_be_written_to(state: Path) -> None:
    state.write_text("a file")
    assert not trust.add(ONE)
    assert not trust.is_listed(ONE)
    assert trust.place() is None
