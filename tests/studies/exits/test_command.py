"""Running the study: order, errors, resume."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from edgepkd.errors import DataError
from edgepkd.studies.exits.command import main
from edgepkd.studies.units import run_jobs


def note(path: Path, text: str) -> str:
    path.write_text(text)
    return text


def fail(message: str) -> str:
    raise DataError(message)


def test_jobs_run_and_are_logged(tmp_path: Path) -> None:
    jobs = [partial(note, tmp_path / str(i), f"job {i}") for i in range(3)]
    run_jobs(jobs, processes=1, log=tmp_path / "progress.log")
    assert {(tmp_path / str(i)).read_text() for i in range(3)} == {"job 0", "job 1", "job 2"}
    lines = (tmp_path / "progress.log").read_text().splitlines()
    assert [line.split()[2] for line in lines] == ["1/3", "2/3", "3/3"]


def test_an_error_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clip"):
        run_jobs([partial(fail, "no clip")], processes=1, log=tmp_path / "progress.log")


def test_absent_data_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--quick", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert code == 1
    assert "index" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
