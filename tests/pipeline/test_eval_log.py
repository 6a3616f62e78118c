"""Looks at a split are counted, one line each."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepkd.errors import DataError
from edgepkd.pipeline.eval_log import LOG_FILE, log_look
from tests.logits.made_logits import make_logits


@pytest.fixture
def run(tmp_path: Path) -> Any:
    return SimpleNamespace(record=SimpleNamespace(folder=tmp_path), hashes={"mv": "m" * 64})


def look(run: Any, split: str) -> int:
    return log_look(run, make_logits(split=split), index=Path("data/index.csv"))


def test_each_split_is_counted_for_itself(run: Any, tmp_path: Path) -> None:
    assert [look(run, split) for split in ("test", "calibration", "test", "test")] == [1, 1, 2, 3]
    first = json.loads((tmp_path / LOG_FILE).read_text().splitlines()[0])
    assert (first["split"], first["num_clips"], first["index"]) == ("test", 60, "data/index.csv")
    assert first["weights_sha256"] == {"mv": "m" * 64}
    assert first["views"] == str(make_logits().views)


@pytest.mark.parametrize("line", ["{", "[]", "{}", "3"])
def test_a_damaged_log_is_refused(run: Any, tmp_path: Path, line: str) -> None:
    (tmp_path / LOG_FILE).write_text(line + "\n")
    with pytest.raises(DataError, match=r"eval-log\.jsonl is damaged"):
        look(run, "test")
