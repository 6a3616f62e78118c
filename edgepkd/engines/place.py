"""Where engines are put together: `engines/.<target>.partial/` in the bundle, until all is there.

One process at a time fills it: it holds a lock on the folder, so there is no lock file to be left.
Then the folder gets the name of the target at once. Nothing in the bundle is followed that is a
link, and what is there is used only if this user has made it (`bundle.trust`).
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from types import TracebackType

from edgepkd.bundle import trust
from edgepkd.bundle.engines import (
    ENGINES,
    SIDECAR,
    TIMING_CACHE,
    EngineSet,
    PlanRecord,
    is_target_name,
    read_timing_cache,
    write_engines,
)
from edgepkd.bundle.folder import Folder, open_folder
from edgepkd.config import check
from edgepkd.errors import BundleError

_MAX_RECORD_BYTES, _MAX_PLAN_BYTES = 1 << 20, 8 << 30


class Place:
    """The folder that is filled. A context manager: on the way out it is let go, filled or not."""

    def __init__(self, root: Folder, engines: Folder, partial: Folder, target: str) -> None:
        """Take over open folders, `partial` locked; use `open_place`."""
        self._root, self._engines, self._partial, self._target = root, engines, partial, target
        self._records: list[str] = []
        self._finished = False
        self.timing_cache = b""

    def clear(self) -> None:
        """Begin anew: whatever an earlier build has left is removed, links as links."""
        for name in self._partial.names():
            self._partial.remove(name)

    def keep(self, file: str, content: bytes) -> bool:
        """Write a file; False: this user has no list to put it on, so no later build will take it.

        Raises:
            StorageError: the disk is full, or the bundle cannot be written to.
        """
        self._partial.write(file, content)
        digest = trust.digest_of(content)
        self._records.append(digest)
        return trust.add(digest)

    def write(self, file: str, content: bytes) -> None:
        """Write a file that is in no list. Raises as `keep`."""
        self._partial.write(file, content)

    def kept(self, file: str) -> bytes | None:
        """A file that an earlier build of this user kept; None: there is none."""
        content = self._partial.read(file, max_bytes=_MAX_RECORD_BYTES
                                     if file != TIMING_CACHE else _MAX_PLAN_BYTES)
        if content is None or not trust.is_listed(trust.digest_of(content)):
            return None
        self._records.append(trust.digest_of(content))
        return content

    def holds(self, plan: PlanRecord) -> bool:
        """Whether the plan that `plan` describes is there, whole."""
        content = self._partial.read(plan.file, max_bytes=_MAX_PLAN_BYTES)
        return content is not None and trust.digest_of(content) == plan.sha256

    def finish(self, engines: EngineSet) -> EngineSet:
        """Write the sidecar, and give the folder its name.

        Raises:
            StorageError: it cannot be written; what was there before stays.
        """
        wanted = {plan.file for plan in engines.plans.values()} | {SIDECAR, TIMING_CACHE}
        for name in self._partial.names():
            if name not in wanted:
                self._partial.remove(name)
        engines = write_engines(self._partial, engines)
        self._engines.replace(_partial(self._target), self._target)
        self._finished = True
        cache = trust.digest_of(self.timing_cache)
        for digest in self._records:
            if digest != cache:
                trust.forget(digest)
        return engines

    def close(self) -> None:
        """Let go of the folder and the lock; it is left only where a build can go on with it."""
        if not self._finished and not self._partial.names():
            self._engines.remove(_partial(self._target))
        for folder in (self._partial, self._engines, self._root):
            folder.close()

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_place(bundle_path: Path, target: str) -> Generator[None, None, Place]:
    """The place for engines of `target`; yields once where another process fills it, then waits.

    Raises:
        BundleError: a link, or what is no folder, is in the way.
        StorageError: the bundle cannot be written to.
    """
    check(is_target_name(target), "target", got=target,
          allowed="letters, digits, '_', '-' and '.', up to 64")
    root = open_folder(bundle_path)
    if root is None:
        raise BundleError(f"{bundle_path} is gone.", hint="Copy or build the bundle again.")
    opened = [root]
    try:
        engines = _made(root, ENGINES)
        opened.append(engines)
        told = False
        while True:
            partial = _made(engines, _partial(target))
            opened.append(partial)
            if not partial.lock(wait=False):
                if not told:
                    told = True
                    yield
                partial.lock(wait=True)
            if partial.is_called(_partial(target), engines):
                break
            opened.pop().close()  # the other one has given it its name by now
        engines.recover(target)
        _refuse_strange(engines, target)
    except BaseException:
        for folder in opened:
            folder.close()
        raise
    return Place(root, engines, partial, target)


def known_timing_cache(bundle_path: Path, target: str, place: Place) -> bytes:
    """The timing cache to begin with: of the build that is gone on with, or of the last one."""
    return place.kept(TIMING_CACHE) or read_timing_cache(bundle_path, target)


def _refuse_strange(engines: Folder, target: str) -> None:
    """Refuse links and the like among the engines that will be replaced, before any is built."""
    folder = engines.folder(target)
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


def _partial(target: str) -> str:
    return f".{target}.partial"
