"""SHA-256 of files: that of their bytes, whatever their size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgepkd.datasets.hashes import sha256_of


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (2 << 20) + 3])
def test_it_is_the_hash_of_all_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content[:size]).hexdigest()


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "absent")
