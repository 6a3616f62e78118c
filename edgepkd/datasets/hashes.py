"""SHA-256 of files of any size."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from edgepkd.datasets.index import Sample


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content_of(sample: Sample) -> str:
    """SHA-256 of a clip, as its index has it, else of the file.

    That is read once: a file of the same size, time and inode is taken for unchanged.

    Raises:
        OSError: it cannot be read.
    """
    if sample.sha256:
        return sample.sha256
    status = os.stat(sample.path)
    return _remembered(sample.path, status.st_dev, status.st_ino, status.st_size,
                       status.st_mtime_ns)


@functools.lru_cache(maxsize=1 << 16)
def _remembered(path: Path, *state: int) -> str:
    del state  # part of what is remembered
    return sha256_of(path)
