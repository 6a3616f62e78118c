"""Reading a bundle: whatever is in it is checked before it is used.

Schema, ranges, shapes, hashes, what the segments' graphs hold, and that no path leaves the folder.
A bundle may come from a stranger: no link in it is followed, nothing that the manifest does not
list is opened, and the bytes that were hashed are those which are used.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from edgepkd.bundle.folder import Folder, open_folder
from edgepkd.bundle.manifest import (
    MANIFEST,
    POLICY,
    SUFFIX,
    WISE,
    Manifest,
    PolicyTable,
    WiseTable,
    check_tables,
    parse_manifest,
    parse_policy,
    parse_wise,
)
from edgepkd.bundle.schema import DAMAGED, MAX_JSON_BYTES
from edgepkd.bundle.segment import check_segment
from edgepkd.config import Modality
from edgepkd.errors import BundleError
from edgepkd.files import recover_folder


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, read and checked."""

    path: Path
    manifest: Manifest
    wise: WiseTable
    policy: PolicyTable

    def segment_content(self, modality: Modality, exit: int) -> bytes:
        """ONNX of the segment that ends in exit `exit` (1..4) of `modality`: these very bytes have
        the SHA-256 of the manifest, and their graph is one that may be handed to a library.

        Raises:
            BundleError: the file is missing, no plain file, not what the manifest says, or holds
                what no segment needs.
        """
        with _opened(self.path) as folder:
            return _segment(folder, self.manifest, modality, exit)


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is to be read as a bundle: a folder with a manifest, sound or not."""
    return os.path.lexists(Path(path) / MANIFEST)


def read_bundle(path: str | Path, *, verify: bool = True) -> Bundle:
    """Read the bundle in folder `path`; `verify` reads and checks every segment (else their sizes
    only: `Bundle.segment_content` checks each when it is asked for).

    Raises:
        BundleError: absent, damaged, tampered with, inconsistent or written by a newer edgepkd;
            names the file or the key.
    """
    root = Path(path)
    with _opened(root) as folder:
        content = folder.read(MANIFEST, max_bytes=MAX_JSON_BYTES)
        if content is None:
            raise _no_bundle(root, f"it has no {MANIFEST}")
        manifest = parse_manifest(content)
        segments = {entry.file: entry for entry in manifest.segments}
        others = {name: _listed(folder, manifest, name)
                  for name in manifest.files if name not in segments}
        wise, policy = parse_wise(others[WISE]), parse_policy(others[POLICY])
        check_tables(manifest, wise, policy)
        for name, entry in segments.items():
            if verify:
                _segment(folder, manifest, entry.modality, entry.exit)
            else:
                _check_size(folder, manifest, name)
    return Bundle(root, manifest, wise, policy)


def _opened(root: Path) -> Folder:
    recover_folder(root)
    folder = open_folder(root)
    if folder is None:
        raise _no_bundle(root, "no such folder")
    return folder


def _no_bundle(root: Path, why: str) -> BundleError:
    return BundleError(f"{root} is not a bundle: {why}.",
                       hint=f"A bundle is a folder NAME{SUFFIX} with {MANIFEST} in it.")


def _segment(folder: Folder, manifest: Manifest, modality: Modality, exit: int) -> bytes:
    """A segment's bytes, which are what the manifest says, and harmless."""
    entry = manifest.segment(modality, exit)
    content = _listed(folder, manifest, entry.file)
    check_segment(content, where=entry.file, frames=manifest.inputs[modality].num_passes,
                  input_shape=entry.input_shape, features_shape=entry.features_shape,
                  num_labels=len(manifest.labels))
    return content


def _listed(folder: Folder, manifest: Manifest, name: str) -> bytes:
    """Content of a file that the manifest lists, which is what that says of it."""
    _check_size(folder, manifest, name)
    content, entry = folder.read(name, max_bytes=manifest.files[name].bytes), manifest.files[name]
    digest = hashlib.sha256(content or b"").hexdigest()
    if digest != entry.sha256:
        raise BundleError(f"{folder.path / name} has SHA-256 {digest[:12]}…; the manifest says"
                          f" {entry.sha256[:12]}….", hint=DAMAGED)
    return content or b""


def _check_size(folder: Folder, manifest: Manifest, name: str) -> None:
    size, said = folder.size(name), manifest.files[name].bytes
    if size is None:
        raise BundleError(f"{folder.path / name} is missing from the bundle.", hint=DAMAGED)
    if size != said:
        raise BundleError(f"{folder.path / name} has {size} bytes; the manifest says {said}.",
                          hint=DAMAGED)
