"""Where machine code is kept: by numba, by us, nowhere; and what a damaged cache does.

Permissions do not bind root, so what cannot be written to is a path through a file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from edgepkd.video import jit
from tests.clips import encode_clip, moving_scene

SOURCE = "def twice(numbers):\n    return numbers * 2\n"
PACKAGE = Path(jit.__file__).parents[1]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No home, a temporary folder of the test's own, and a module whose cache is not writable."""
    (tmp_path / "kernel.py").write_text(SOURCE)
    (tmp_path / "__pycache__").write_text("a file")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    forget()
    yield
    forget()


def forget() -> None:
    """As a new process begins."""
    jit.private_folder.cache_clear()
    jit.lasting_folder.cache_clear()


def fresh(tmp_path: Path) -> Callable[..., Any]:
    """`twice` of kernel.py, as a new process would compile it."""
    spec = importlib.util.spec_from_file_location("kernel", tmp_path / "kernel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(SOURCE, str(tmp_path / "kernel.py"), "exec"), vars(module))
    return jit.compiled(module.twice)


def works(function: Callable[..., Any]) -> bool:
    return function(np.arange(3)).tolist() == [0, 2, 4]


def was_kept(function: Any) -> bool:
    """Call it; whether its machine code came from a file."""
    assert works(function)
    return sum(function.stats.cache_hits.values()) == 1


@pytest.mark.slow
def test_numbas_own_place_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "__pycache__").unlink()
    assert jit.cache_folder(fresh(tmp_path)) == tmp_path / "__pycache__"
    assert not jit.is_temporary(fresh(tmp_path))
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "wanted"))
    function = fresh(tmp_path)
    folder = jit.cache_folder(function)
    assert folder is not None
    assert folder.parent == tmp_path / "wanted"
    assert not was_kept(function)
    assert was_kept(fresh(tmp_path))
    assert not list((tmp_path / "tmp").iterdir())


def test_a_private_folder_where_numba_has_no_place(tmp_path: Path) -> None:
    assert not was_kept(fresh(tmp_path))
    function = fresh(tmp_path)
    assert was_kept(function)
    private = tmp_path / "tmp" / f"edgepkd-{os.geteuid()}"
    folder = jit.cache_folder(function)
    assert folder is not None
    assert folder.parent == private == jit.private_folder()
    assert jit.is_temporary(function)
    assert private.stat().st_mode & 0o777 == 0o700
    assert numba.config.CACHE_DIR == ""


def test_a_user_folder_that_cannot_be_written_to_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/dev/null/wanted")
    folder = jit.cache_folder(fresh(tmp_path))
    assert folder is not None
    assert folder.parent == jit.private_folder()
    assert numba.config.CACHE_DIR == "/dev/null/wanted"


def _others_may_write(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def _a_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def _anybody_can_replace_it(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.parent.chmod(0o777)


@pytest.mark.slow
@pytest.mark.parametrize("make", [_others_may_write, _a_link, _anybody_can_replace_it, Path.touch])
def test_a_folder_that_others_could_fill_is_refused(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "tmp" / f"edgepkd-{os.geteuid()}")
    assert jit.private_folder() is None
    function = fresh(tmp_path)
    assert jit.cache_folder(function) is None
    assert works(function)


def test_another_users_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of this test's user, seen by another one."""
    other = os.geteuid() + 1
    (tmp_path / "tmp" / f"edgepkd-{other}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert jit.private_folder() is None


def test_a_sticky_folder_is_good_enough(tmp_path: Path) -> None:
    (tmp_path / "tmp").chmod(0o1777)
    assert jit.private_folder() is not None


def test_no_temporary_folder_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    function = fresh(tmp_path)
    assert jit.cache_folder(function) is None
    assert works(function)


@pytest.mark.slow
@pytest.mark.parametrize("home", ["", "cache", None])
def test_nothing_is_left_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    """Of a home that is not known, numba would make a folder '~' here and trust it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if home is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", home)
    assert works(fresh(tmp_path))
    assert not list((tmp_path / "here").iterdir())


def _files(suffix: str) -> list[Path]:
    folder = jit.private_folder()
    assert folder is not None
    return sorted(folder.rglob(f"*{suffix}"))


def _shared(folder: Path) -> None:
    folder.chmod(0o777)


def _of_the_group(folder: Path) -> None:
    folder.chmod(0o775)


def _in_a_shared_folder(folder: Path) -> None:
    folder.parent.chmod(0o777)


def _a_link_to_a_shared_folder(folder: Path) -> None:
    folder.rmdir()
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere").chmod(0o777)
    folder.symlink_to("elsewhere")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["__pycache__", "wanted"])
@pytest.mark.parametrize("share", [_shared, _of_the_group, _in_a_shared_folder,
                                   _a_link_to_a_shared_folder])
def test_a_place_of_numbas_that_others_may_fill_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, share: Callable[[Path], None]
) -> None:
    (tmp_path / "__pycache__").unlink()
    if name == "wanted":
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "wanted"))
    assert not was_kept(fresh(tmp_path))
    place = jit.cache_folder(fresh(tmp_path))
    assert place is not None
    for path in place.iterdir():
        path.unlink()
    share(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "tmp" / "home"))
    forget()
    function = fresh(tmp_path)
    assert not was_kept(function)
    if share is _in_a_shared_folder and name == "__pycache__":
        # the temporary folder and the home of this test lie in the shared one, too
        assert jit.cache_folder(function) is None
    else:
        folder = jit.cache_folder(function)
        assert folder is not None
        assert folder.parent == tmp_path / "tmp" / "home" / "edgepkd"
        assert folder.parent.stat().st_mode & 0o777 == 0o700
        assert not jit.is_temporary(function)
        assert was_kept(fresh(tmp_path))
    assert not list(place.glob("*.nb?"))


def test_a_place_of_another_users_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "__pycache__").unlink()
    there = fresh(tmp_path)
    assert works(there)
    lstat = Path.lstat

    def theirs(path: Path) -> os.stat_result:
        found = list(lstat(path))
        if path.name == "__pycache__":
            found[4] = os.geteuid() + 1
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", theirs)
    assert not was_kept(fresh(tmp_path))
    folder = jit.cache_folder(fresh(tmp_path))
    assert folder is not None
    assert folder.parent == jit.private_folder()


@pytest.mark.slow
def test_a_cache_cut_anywhere_is_mended(tmp_path: Path) -> None:
    """Every length of the index, and every 500th and the last of the machine code."""
    assert works(fresh(tmp_path))
    index, code = _files(".nbi") + _files(".nbc")
    wholes = {index: index.read_bytes(), code: code.read_bytes()}
    for cut, step in ((index, 1), (code, 500)):
        for path, whole in wholes.items():
            path.write_bytes(whole)
        assert _loads(fresh(tmp_path))
        for length in (*range(0, len(wholes[cut]), step), len(wholes[cut]) - 1):
            index.write_bytes(wholes[index])  # which an earlier turn has emptied
            cut.write_bytes(wholes[cut][:length])
            assert not _loads(fresh(tmp_path)), (cut.suffix, length)
        assert works(fresh(tmp_path))
        assert was_kept(fresh(tmp_path))


def _loads(function: Any) -> bool:
    """Whether the machine code comes from the cache; nothing is compiled anew."""
    kernel = numba.typeof(np.arange(3))
    return function._cache.load_overload((kernel,), function.targetctx) is not None


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80", b"not a pickle at all", pickle.dumps(17)])
def test_a_damaged_cache_is_mended(tmp_path: Path, suffix: str, content: bytes) -> None:
    assert works(fresh(tmp_path))
    (damaged,) = _files(suffix)
    damaged.write_bytes(content)
    assert works(fresh(tmp_path))
    assert was_kept(fresh(tmp_path))


@pytest.mark.slow
def test_a_cache_that_cannot_be_read_or_written_any_more(tmp_path: Path) -> None:
    function = fresh(tmp_path)
    assert works(function)
    folder = jit.cache_folder(function)
    assert folder is not None
    for file in folder.iterdir():
        file.unlink()
        file.mkdir()
    assert works(fresh(tmp_path))
    function = fresh(tmp_path)
    shutil.rmtree(folder)
    folder.write_text("a file")
    assert works(function)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "save", full)
    assert works(fresh(tmp_path))


@pytest.fixture
def read_only_package(tmp_path: Path) -> Path:
    """A copy of edgepkd whose folders take no cache, as if it were another user's."""
    copy = tmp_path / "installed"
    shutil.copytree(PACKAGE, copy / "edgepkd",
                    ignore=shutil.ignore_patterns("__pycache__", "_bundles"))
    (copy / "edgepkd" / "video" / "__pycache__").write_text("a file")
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("has_temporary", [True, False])
def test_the_command_line_needs_no_home(
    tmp_path: Path, read_only_package: Path, has_temporary: bool
) -> None:
    """What ended in a traceback at the import of the kernels: a video is decoded, doctor tells."""
    user, temporary = os.geteuid(), tmp_path / "child"
    temporary.mkdir()
    if not has_temporary:
        (temporary / f"edgepkd-{user}").touch()
    clip = encode_clip(tmp_path / "clip.mp4", moving_scene(14))
    environment = {"PATH": os.environ["PATH"], "HOME": "/dev/null/home", "TMPDIR": str(temporary),
                   "PYTHONPATH": str(read_only_package), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], env=environment, cwd=tmp_path,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "native" in run("-m", "edgepkd.cli.main", "inspect", str(clip))
    told = json.loads(run("-m", "edgepkd.cli.main", "doctor", "--json", "-"))
    assert any("NUMBA_CACHE_DIR" in step for step in told["next_steps"])
    assert told["kernels"].startswith(
        f"kept in {temporary / f'edgepkd-{user}'}" if has_temporary else "compiled anew")
    decode = ("import sys; from edgepkd.video.clips import ClipReader; "
              "from edgepkd.config import ClipSpec, InputSpec; import edgepkd; "
              "print(edgepkd.__file__); "
              "clip = next(iter(ClipReader(sys.argv[1], clip=ClipSpec(),"
              " inputs={'mv': InputSpec('mv', 1, resize_px=72, crop_px=64)}))); "
              "print(clip.tensor('mv').shape)")
    assert run("-c", decode, str(clip)).split("\n")[:2] == [
        str(read_only_package / "edgepkd" / "__init__.py"), "(1, 2, 64, 64)"]
    assert bool(list(temporary.rglob("*.nbc"))) == has_temporary
    assert not (tmp_path / "~").exists()
