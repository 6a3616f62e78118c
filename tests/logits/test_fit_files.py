"""Fits on disk: read back as written, three files that belong together, whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.errors import DataError, StorageError
from edgepkd.logits.fit_files import RECORD, read_fitted, write_fitted
from tests.disks import FULL, full_disk

MV: Order = ("mv",)
PAIR: Order = ("iframe", "mv")


def make_fit(order: Order, *, weight: float) -> tuple[WiseWeights, ExitPolicy]:
    count = 4 * len(order)
    vectors = tuple((weight,) * k for k in range(1, count + 1))
    return WiseWeights(order, vectors), ExitPolicy.constant(order, threshold=0.75)


FITTED = {MV: make_fit(MV, weight=1 / 3), PAIR: make_fit(PAIR, weight=-0.25)}
NAMES = ("wise.json", "policy.json", RECORD)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_fitted(FITTED, tmp_path / "run", facts={"method": "by hand"})
    return tmp_path / "run"


def test_round_trip(folder: Path) -> None:
    fitted, record = read_fitted(folder)
    assert fitted == FITTED
    assert list(fitted) == [MV, PAIR]
    assert record["method"] == "by hand"
    assert sorted(os.listdir(folder)) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} cannot be read.*wise fit"):
        read_fitted(folder)


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_file_of_another_fit_is_noticed(folder: Path, tmp_path: Path, name: str) -> None:
    other = {order: make_fit(order, weight=2.0) for order in FITTED}
    other = {order: (weights, ExitPolicy.constant(order, threshold=0.5))
             for order, (weights, _) in other.items()}
    write_fitted(other, tmp_path / "other", facts={})
    (tmp_path / "other" / name).replace(folder / name)
    with pytest.raises(DataError, match=f"{name} is not the file that {RECORD} was written with"):
        read_fitted(folder)


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"schema_version": 1}', b"\xff",
                                     b'{"schema_version": 1, "files": 3}'])
def test_a_damaged_record_is_refused(folder: Path, content: bytes) -> None:
    (folder / RECORD).write_bytes(content)
    with pytest.raises(DataError):
        read_fitted(folder)


def test_a_newer_file_is_refused(folder: Path) -> None:
    values = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**values, "schema_version": 2}))
    with pytest.raises(DataError, match=r"schema_version 2; allowed: 1.*Update edgepkd"):
        read_fitted(folder)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_full_disk_leaves_the_earlier_fit_whole(folder: Path, failing: int) -> None:
    with full_disk(writes=failing - 1) as written, pytest.raises(StorageError, match=FULL):
        write_fitted({MV: make_fit(MV, weight=9.0)}, folder, facts={})
    assert len(written) == failing - 1
    assert read_fitted(folder)[0] == FITTED
    assert sorted(os.listdir(folder)) == sorted(NAMES)  # nothing half-written lies about


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(StorageError, match=r"run/wise\.json cannot be written"):
        write_fitted(FITTED, tmp_path / "run", facts={})
