"""The study of the defaults from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.studies.defaults import command
from tests.studies.tiny_parts import write_index


def test_a_report_of_nothing_is_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_index(tmp_path / "actions" / "index.csv", num_groups=6, num_test=2, dataset="Weizmann")
    assert command.main(["--quick", "--report-only", "--data", str(tmp_path),
                         "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == (
        "error: no trunk seed of the study has all its folds done. Start it without --report-only;"
        " it goes on where it stopped.\n")
    assert not (tmp_path / "out").exists()
