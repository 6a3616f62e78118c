"""Reads and writes the folders `engines/<target>/` of a bundle.

Nothing here follows a link. What `edgepkd export` has not made here, for this user, is used only
when the user says so (`trust`).
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path

from edgepkd import text
from edgepkd.bundle import trust
from edgepkd.bundle.engine_match import rebuild_hint
from edgepkd.bundle.engines import (
    ENGINES,
    SIDECAR,
    TIMING_CACHE,
    EngineSet,
    engines_folder,
    is_target_name,
    partial_name,
)
from edgepkd.bundle.folder import Folder, open_folder
from edgepkd.bundle.schema import MAX_JSON_BYTES, require
from edgepkd.bundle.sidecar import parse_sidecar, sidecar_of
from edgepkd.errors import BundleError, StorageError

MAX_CACHE_BYTES = 1 << 28
"""Of a builder's timing cache."""
_LOST_S = 2.0
"""For so long an export may be about to give its folder the final name."""


def open_engines(bundle_path: Path, target: str) -> Folder | None:
    """The folder of the engines of `target`; None: there is none.

    Raises:
        BundleError: it, or a folder above it in the bundle, is a link; `target` is no name.
    """
    require(is_target_name(target), "target", target, "letters, digits, '_', '-' and '.'")
    engines = _all_engines(bundle_path)
    if engines is None:
        return None
    with engines:
        return engines.folder(target)


def engine_targets(bundle_path: Path) -> tuple[str, ...]:
    """Targets that the bundle has engines for, sorted.

    Raises:
        BundleError: engines/ is a link or no folder.
    """
    engines = _all_engines(bundle_path)
    if engines is None:
        return ()
    with engines:
        names = [name for name in engines.names() if is_target_name(name)]
        # A link is listed, so that whoever opens it says what it is.
        return tuple(name for name in names if engines.kind(name) in ("link", "other")
                     or (engines.kind(name) == "folder"
                         and engines.kind(f"{name}/{SIDECAR}") is not None))


def read_engines(bundle_path: Path, target: str) -> EngineSet:
    """What the sidecar of `target` says; the plans themselves are not looked at.

    Raises:
        BundleError: there is none, it is damaged, or a newer edgepkd wrote it.
    """
    folder = open_engines(bundle_path, target)
    content = None
    if folder is not None:
        with folder:
            content = folder.read(SIDECAR, max_bytes=MAX_JSON_BYTES)
    if content is None:
        there = ", ".join(engine_targets(bundle_path)) or "none"
        raise BundleError(
            f"{bundle_path} has no engines for {target!r}; it has: {there}.",
            hint="Build them: " + text.command("edgepkd", "export", bundle_path, "--target",
                                               target))
    return parse_sidecar(content, target=target)


def write_engines(folder: Folder, engines: EngineSet) -> EngineSet:
    """Write the sidecar into `folder`, and put it on this user's list.

    Raises:
        StorageError: it cannot be written.
    """
    content = sidecar_of(engines)
    folder.write(SIDECAR, content)
    digest = trust.digest_of(content)
    trust.add(digest)
    return replace(engines, sidecar_sha256=digest)


def read_plan(bundle_path: Path, engines: EngineSet, segment: str) -> bytes:
    """The plan of `segment`, such as 'mv_1', which is the one that the sidecar describes.

    Raises:
        BundleError: it is not.
    """
    try:
        return _read_plan(bundle_path, engines, segment)
    except _Damaged as error:
        folder = engines_folder(bundle_path, engines.target)
        raise BundleError(f"{folder}: {error}.",
                          hint=rebuild_hint(bundle_path, engines)) from error


def damaged(bundle_path: Path, engines: EngineSet) -> tuple[str, ...]:
    """Plans that are missing or not those that the sidecar describes."""
    reasons = []
    for segment in engines.plans:
        try:
            _read_plan(bundle_path, engines, segment)
        except _Damaged as error:
            reasons.append(str(error))
        except BundleError as error:
            reasons.append(error.message.rstrip("."))
    return tuple(reasons)


def read_timing_cache(bundle_path: Path, target: str) -> bytes:
    """The builder's timing cache of an export made here by this user; else empty.

    Raises:
        BundleError: it is a link, or no plain file.
    """
    folder = open_engines(bundle_path, target)
    if folder is None:
        return b""
    with folder:
        if (folder.size(TIMING_CACHE) or 0) > MAX_CACHE_BYTES:
            return b""
        content = folder.read(TIMING_CACHE, max_bytes=MAX_CACHE_BYTES) or b""
    return content if trust.is_listed(trust.digest_of(content)) else b""


# ---- small parts


def _all_engines(bundle_path: Path) -> Folder | None:
    """The folder `engines/`; None: there is none."""
    root = open_folder(bundle_path)
    if root is None:
        return None
    with root:
        engines = root.folder(ENGINES)
    if engines is not None:
        for target in filter(is_target_name, engines.lost()):
            _bring_back(engines, target)
    return engines


def _bring_back(engines: Folder, target: str) -> None:
    """Undo what an export has left that was killed while it replaced the engines of `target`.

    Where one is at work it is about to give them their name.
    """
    until = time.monotonic() + _LOST_S
    while engines.kind(target) is None and time.monotonic() < until:
        partial = engines.folder(partial_name(target))
        with partial or contextlib.nullcontext(), contextlib.suppress(StorageError):
            if partial is None or partial.lock(wait=False):
                engines.recover(target)
                return
        time.sleep(0.05)


class _Damaged(Exception):
    """Why a plan is not the one that its sidecar describes."""


def _read_plan(bundle_path: Path, engines: EngineSet, segment: str) -> bytes:
    record, folder = engines.plans[segment], open_engines(bundle_path, engines.target)
    size, content = None, None
    if folder is not None:
        with folder:
            size = folder.size(record.file)
            if size == record.bytes:
                content = folder.read(record.file, max_bytes=record.bytes)
    if size is None:
        raise _Damaged(f"{record.file} is missing")
    if content is None:
        raise _Damaged(f"{record.file} has {size} bytes; its sidecar says {record.bytes}")
    digest = trust.digest_of(content)
    if digest != record.sha256:
        raise _Damaged(f"{record.file} has SHA-256 {digest[:12]}…; its sidecar says"
                       f" {record.sha256[:12]}…")
    return content
