"""SHA-256 of files: that of their bytes, whatever their size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgepkd.datasets import hashes
from edgepkd.datasets.hashes import content_of, sha256_of
from edgepkd.datasets.index import Sample


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (2 << 20) + 3])
def test_it_is_the_hash_of_all_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content[:size]).hexdigest()


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "absent")


def test_a_file_is_read_once_while_it_does_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = tmp_path / "a.mp4", []
    monkeypatch.setattr(hashes, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    sample = Sample(path, "a", "g", "train")
    path.write_bytes(b"one")
    assert content_of(sample) == content_of(sample) == hashlib.sha256(b"one").hexdigest()
    assert read == [path]
    path.write_bytes(b"other")
    assert content_of(sample) == hashlib.sha256(b"other").hexdigest()


def test_what_the_index_says_is_not_read_again(tmp_path: Path) -> None:
    assert content_of(Sample(tmp_path / "absent", "a", "g", "train", sha256="ab")) == "ab"
