"""Running the INT8 study: errors, and what a report alone needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.datasets.index import read_index
from edgepkd.studies.int8.command import main


def test_absent_data_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--quick", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert code == 1
    assert "index" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_report_of_nothing_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "actions" / "index.csv"
    index.parent.mkdir()
    rows = []
    for person in range(9):
        for label in ("run", "walk"):
            clip = f"{label}-{person}.avi"
            (index.parent / clip).write_bytes(b"no clip is opened here")
            rows.append(f"{clip},{label},Weizmann,person{person},train")
    index.write_text("path,label,dataset,group,split\n" + "\n".join(rows) + "\n")
    assert len(read_index(index, dataset="Weizmann")) == 18
    code = main(["--quick", "--report-only", "--data", str(tmp_path),
                 "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")])
    assert code == 1
    assert "no set of the study has all its folds done" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
