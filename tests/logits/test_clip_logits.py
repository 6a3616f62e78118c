"""Logits on disk: read back as written; a damaged file is refused, whatever it claims."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgepkd.errors import DataError
from edgepkd.logits.clip_logits import load_logits, save_logits
from tests.logits.made_logits import make_logits


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_logits(make_logits(num_clips=6), tmp_path / "logits.npz")
    return tmp_path / "logits.npz"


def with_labels(path: Path, array: bytes) -> Path:
    """A copy whose array of labels is other bytes."""
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    made = path.with_name("other.npz")
    with zipfile.ZipFile(made, "w") as file:
        for name, content in {**contents, "labels.npy": array}.items():
            file.writestr(name, content)
    return made


def header(dtype: str, shape: str) -> bytes:
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (117 - len(text) % 118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_round_trip(path: Path) -> None:
    logits = make_logits(num_clips=6)
    again = load_logits(path)
    assert (again.labels == logits.labels).all()
    assert again.paths == logits.paths
    assert all((again.logits[m] == logits.logits[m]).all() for m in logits.logits)


@pytest.mark.parametrize(("dtype", "shape"), [
    ("<f8", "(10**15,)"), ("<f8", "(1000000000000000,)"), ("<f8", f"({10**30},)"),
    ("<f8", "(-5,)"), ("|O", "(1,)"), ("<f8", f"({2**62}, 4)"), ("<U999999999999", "(1,)")])
def test_shapes_that_a_file_only_claims(path: Path, dtype: str, shape: str) -> None:
    with pytest.raises(DataError, match=r"other\.npz is no logits file of edgepkd, or damaged"):
        load_logits(with_labels(path, header(dtype, shape)))


def test_objects_are_never_unpickled(path: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    np.save(tmp_path / "bomb.npy", np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises(DataError, match="damaged"):
        load_logits(with_labels(path, (tmp_path / "bomb.npy").read_bytes()))
    assert not (tmp_path / "ran").exists()


def test_changed_files_are_read_or_refused(path: Path) -> None:
    content = path.read_bytes()
    for seed in range(200):
        chance, made = random.Random(seed), bytearray(content)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(min(len(made), chance.choice((100, 2000, len(made)))))
            if chance.random() < 0.5:
                made[at] = chance.randrange(256)
            else:
                del made[at : at + chance.randint(1, 20)]
        path.write_bytes(made)
        try:
            load_logits(path)
        except DataError as error:
            refused = str(error)
            assert "logits.npz" in refused
