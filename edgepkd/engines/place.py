"""Where engines are put together: `engines/.<target>.partial/` in the bundle, until all is there.

One process at a time fills it: it holds a lock on the folder, so there is no lock file to be left.
Then the folder gets the name of the target at once. Nothing in the bundle is followed that is a
link, and what is there is used only if this user has made it (`bundle.trust`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

from edgepkd.bundle import trust
from edgepkd.bundle.engine_files import MAX_CACHE_BYTES, read_timing_cache, write_engines
from edgepkd.bundle.engines import (
    ENGINES,
    SIDECAR,
    TIMING_CACHE,
    EngineSet,
    PlanRecord,
    is_target_name,
    partial_name,
)
from edgepkd.bundle.folder import Folder, open_folder
from edgepkd.closing import Closing
from edgepkd.config import check
from edgepkd.errors import BundleError, StorageError

RECORD = "record.json"
"""End of the names of files that say what a build can go on with."""
_MAX_RECORD_BYTES = 1 << 20


class Place(Closing):
    """The folder that is filled. A context manager: on the way out it is let go, filled or not."""

    def __init__(self, root: Folder, engines: Folder, partial: Folder, target: str) -> None:
        """Take over open folders, `partial` locked; use `open_place`."""
        self._root, self._engines, self._partial, self._target = root, engines, partial, target
        self._listed: set[str] = set()
        self._finished = False
        self.timing_cache = b""

    def clear(self) -> None:
        """Begin anew: whatever an earlier build has left is removed.

        Raises:
            StorageError: it cannot be removed.
        """
        for name in self._partial.names():
            if name.endswith(RECORD) and (
                    content := self._read(name, max_bytes=_MAX_RECORD_BYTES)) is not None:
                trust.forget(trust.digest_of(content))
            self._partial.remove(name)

    def keep(self, file: str, content: bytes) -> None:
        """Write a file that a later build of this user may go on with.

        Raises:
            StorageError: the disk is full, or the bundle cannot be written to.
        """
        self._partial.write(file, content)
        digest = trust.digest_of(content)
        self._listed.add(digest)
        trust.add(digest)

    def write(self, file: str, content: bytes) -> None:
        """Write a file that is in no list. Raises as `keep`."""
        self._partial.write(file, content)

    def kept(self, file: str) -> bytes | None:
        """A file that an earlier build of this user kept; None: there is none."""
        content = self._read(file, max_bytes=MAX_CACHE_BYTES if file == TIMING_CACHE
                             else _MAX_RECORD_BYTES)
        if content is None or not trust.is_listed(trust.digest_of(content)):
            return None
        self._listed.add(trust.digest_of(content))
        return content

    def holds(self, plan: PlanRecord) -> bool:
        """Whether the plan that `plan` describes is there, whole."""
        content = self._read(plan.file, max_bytes=plan.bytes)
        return content is not None and trust.digest_of(content) == plan.sha256

    def finish(self, engines: EngineSet) -> EngineSet:
        """Write the sidecar, and give the folder its name.

        Raises:
            StorageError: it cannot be written, or another process has changed the folder;
                what was there before stays.
        """
        wanted = {plan.file for plan in engines.plans.values()} | {SIDECAR, TIMING_CACHE}
        for name in self._partial.names():
            if name not in wanted:
                self._partial.remove(name)
        engines = write_engines(self._partial, engines)
        # Where the file system has no locks, another export may have been here.
        if not (self._partial.is_called(partial_name(self._target), self._engines)
                and all(map(self.holds, engines.plans.values()))):
            raise StorageError(f"{self._partial.path} was changed by another process.",
                               hint="Export again when no other export of this bundle runs.")
        self._engines.replace(partial_name(self._target), self._target)
        self._finished = True
        for digest in self._listed - {trust.digest_of(self.timing_cache)}:
            trust.forget(digest)
        return engines

    def close(self) -> None:
        """Let go of the folder and the lock; it is left only where a build can go on with it."""
        if not self._finished:
            _remove_if_useless(self._engines, self._partial, self._target)
        for folder in (self._partial, self._engines, self._root):
            folder.close()

    def _read(self, file: str, *, max_bytes: int) -> bytes | None:
        """A file of the folder; None: it is not there, or longer than that."""
        size = self._partial.size(file)
        return None if size is None or size > max_bytes else self._partial.read(
            file, max_bytes=max_bytes)


def open_place(bundle_path: Path, target: str) -> Generator[None, None, Place]:
    """The place for engines of `target`; yields once where another process fills it, then waits.

    Raises:
        BundleError: a link, or what is no plain file or folder, is in the way; nothing was touched.
        StorageError: the bundle cannot be written to.
    """
    check(is_target_name(target), "target", got=target,
          allowed="letters, digits, '_', '-' and '.', up to 64")
    root = open_folder(bundle_path)
    if root is None:
        raise BundleError(f"{bundle_path} is gone.", hint="Copy or build the bundle again.")
    with contextlib.ExitStack() as stack:
        stack.enter_context(root)
        _refuse_links(root, target)
        engines = stack.enter_context(_made(root, ENGINES))
        partial = stack.enter_context((yield from _locked(engines, target)))
        engines.recover(target)
        _refuse_links(root, target)  # what came while it was waited for
        stack.pop_all()
        return Place(root, engines, partial, target)


def sweep(bundle_path: Path, target: str) -> None:
    """Remove what a killed export of `target` has left, unless a build can go on with it.

    Nothing happens where another export is at work, or the bundle cannot be written to.
    """
    root = open_folder(bundle_path)
    if root is None:
        return
    with contextlib.ExitStack() as stack, contextlib.suppress(StorageError):
        stack.enter_context(root)
        engines = root.folder(ENGINES)
        if engines is None:
            return
        stack.enter_context(engines)
        partial = engines.folder(partial_name(target))
        if partial is not None:
            stack.enter_context(partial)
            if not (partial.lock(wait=False)
                    and partial.is_called(partial_name(target), engines)):
                return
            _remove_if_useless(engines, partial, target)
        engines.recover(target)


def known_timing_cache(bundle_path: Path, target: str, place: Place) -> bytes:
    """The timing cache to begin with: of the build that is gone on with, or of the last one."""
    return place.kept(TIMING_CACHE) or read_timing_cache(bundle_path, target)


def _locked(engines: Folder, target: str) -> Generator[None, None, Folder]:
    """The folder that is filled, made where there is none, for this process alone."""
    told = False
    while True:
        partial = _made(engines, partial_name(target))
        try:
            if not partial.lock(wait=False):
                if not told:
                    told = True
                    yield
                partial.lock(wait=True)
            if partial.is_called(partial_name(target), engines):
                return partial
        except BaseException:
            partial.close()
            raise
        partial.close()  # the other one has given it its name, or removed it


def _remove_if_useless(engines: Folder, partial: Folder, target: str) -> None:
    if not any(name.endswith(RECORD) for name in partial.names()) and partial.is_called(
            partial_name(target), engines):
        engines.remove(partial_name(target))


def _refuse_links(root: Folder, target: str) -> None:
    """Refuse links and the like where engines are, are built or were set aside."""
    for place in (f"{ENGINES}/{target}", f"{ENGINES}/{partial_name(target)}"):
        folder = root.folder(place)
        if folder is not None:
            with folder:
                for name in folder.names():
                    folder.require(name, "file")


def _made(above: Folder, name: str) -> Folder:
    folder = above.folder(name, create=True)
    if folder is None:
        raise BundleError(f"{above.path / name} was removed while it was opened.",
                          hint="Start again.")
    return folder
