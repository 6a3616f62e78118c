"""Writing a bundle, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgepkd.bundle.folder import open_folder
from edgepkd.bundle.manifest import (
    MANIFEST,
    MODEL_CARD,
    POLICY,
    SUFFIX,
    WISE,
    FileEntry,
    Manifest,
    PolicyTable,
    SegmentKey,
    WiseTable,
    inside,
)
from edgepkd.bundle.reading import Bundle, read_bundle
from edgepkd.bundle.schema import SCHEMA_VERSION
from edgepkd.config import facts_of, quoted
from edgepkd.errors import BundleError
from edgepkd.files import new_folder, recover_folder


def write_bundle(
    path: str | Path,
    *,
    manifest: Manifest,
    wise: WiseTable,
    policy: PolicyTable,
    segments: Mapping[SegmentKey, bytes],
    model_card: str,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle to `path` (NAME.edgepkd) atomically and read it back with every check.

    `segments` maps (modality, exit) to the ONNX file's bytes. `manifest.files` is filled in here.

    Raises:
        BundleError: the parts contradict each other, or `path` exists and may not be replaced
            (only a bundle is ever replaced, and only with `overwrite`).
        StorageError: the disk is full, or the place cannot be written to.
    """
    target = Path(path)
    _check_target(target, overwrite=overwrite)
    contents = _contents(manifest, wise, policy, segments, model_card)
    with new_folder(target, what="the bundle", replaces=overwrite) as temporary:
        for relative, content in contents.items():
            (temporary / relative).parent.mkdir(parents=True, exist_ok=True)
            with (temporary / relative).open("xb") as file:
                file.write(content)
        bundle, written = _read_back(temporary), temporary.stat()
    if not os.path.samestat(written, target.stat()):  # another process was first
        raise _exists(target)
    return replace(bundle, path=target)


def _check_target(target: Path, *, overwrite: bool) -> None:
    if target.suffix != SUFFIX:
        raise BundleError(f"bundle path is {quoted(str(target))}; allowed: NAME{SUFFIX}.")
    recover_folder(target)
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise _exists(target)
    if target.is_symlink() or not _holds_manifest(target):
        raise BundleError(f"{target} exists and is not a bundle; it is not overwritten.",
                          hint="Choose another name, or move it away yourself.")


def _holds_manifest(target: Path) -> bool:
    folder = open_folder(target)
    if folder is None:
        return False
    with folder:
        return folder.kind(MANIFEST) == "file"


def _exists(target: Path) -> BundleError:
    return BundleError(f"{target} exists already.",
                       hint="Choose another name, or allow it to be overwritten.")


def _read_back(folder: Path) -> Bundle:
    try:
        return read_bundle(folder)
    except BundleError as error:  # its hint is for whoever was given a bundle
        error.hint = "Nothing was written: this is more or other than a bundle may hold."
        raise


def _contents(
    manifest: Manifest, wise: WiseTable, policy: PolicyTable,
    segments: Mapping[SegmentKey, bytes], model_card: str,
) -> dict[str, bytes]:
    """Relative path -> bytes of every file, manifest.json last."""
    keys = {(s.modality, s.exit) for s in manifest.segments}
    if keys != set(segments):
        raise BundleError(f"segments given are {sorted(segments)}; allowed: those of the manifest,"
                          f" {sorted(keys)}.")
    contents = {inside(s.file): segments[s.modality, s.exit] for s in manifest.segments}
    contents[WISE] = _json({"orders": {order: {"weights": vectors}
                                       for order, vectors in wise.items()}})
    contents[POLICY] = _json({"orders": {order: asdict(entry)
                                         for order, entry in policy.items()}})
    contents[MODEL_CARD] = model_card.encode()
    files = {name: FileEntry(hashlib.sha256(content).hexdigest(), len(content))
             for name, content in contents.items()}
    contents[MANIFEST] = _json(facts_of(replace(manifest, files=files)))
    return contents


def _json(values: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps({"schema_version": SCHEMA_VERSION, **values}, indent=1, allow_nan=False,
                          ensure_ascii=False)
        return text.encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"a bundle holds only plain JSON values: {error}.") from error
