"""Running the study of exits: errors, and what a report alone needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.studies.exits.command import main


def test_absent_data_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--quick", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert code == 1
    assert "index" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
