"""What the programs of the studies share: options, errors, packages they need."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from edgepkd.errors import ConfigError, DataError
from edgepkd.studies import command_line
from edgepkd.studies.command_line import command_parser, reported, start, study_parser
from tests.processes import started
from tests.studies.tiny_parts import write_index


def test_an_error_is_one_line_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> int:
        raise error

    assert reported(lambda: 0) == 0
    assert reported(lambda: fail(DataError("no clip\x1b[31m.", hint="Look."))) == 1
    assert capsys.readouterr().err == "error: no clip\\x1b[31m. Look.\n"
    assert reported(lambda: fail(ConfigError("wrong"))) == 2
    with pytest.raises(KeyError):
        reported(lambda: fail(KeyError("a fault of ours")))


def test_ctrl_c_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> int:
        raise KeyboardInterrupt

    assert reported(stop) == 130
    assert capsys.readouterr().err == "stopped: started again, it goes on from here\n"


def test_an_absent_package_is_named_before_anything_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)  # as if it were not installed
    monkeypatch.setattr(command_line, "import_module", lambda name: pytest.fail(name))
    assert start("edgepkd.studies.exits.command", needs=("modelopt",)) == 1
    error = capsys.readouterr().err
    assert "needs the package 'nvidia-modelopt', which is not installed" in error
    assert "edgepkd[train]" in error


def test_places_have_defaults_of_the_program() -> None:
    options = command_parser("some.program", None, out="runs/x").parse_args([])
    assert (options.out, options.jobs) == (Path("runs/x"), 2)
    study = study_parser("some.program", None).parse_args(["--quick", "--jobs", "3"])
    assert (study.out, study.results) == (Path("runs/reproduce"), Path("docs/results"))
    assert (study.quick, study.report_only, study.jobs) == (True, False, 3)


@pytest.mark.parametrize(("jobs", "words"), [
    ("0", "0 is too few; allowed: 1 or more"), ("-2", "-2 is too few"), ("two", "invalid"),
])
def test_a_number_of_processes_that_cannot_be_is_refused(
    jobs: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command_parser("some.program", None, out="x").parse_args(["--jobs", jobs])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("program", ["defaults", "demo", "exits", "int8"])
def test_each_program_starts_as_a_module(program: str) -> None:
    command = [sys.executable, "-m", f"edgepkd.studies.{program}", "--help"]
    with started(command, stdout=-1, stderr=-1) as child:
        output, error = child.communicate()
    assert (child.returncode, error) == (0, "")
    assert output.startswith(f"usage: python -m edgepkd.studies.{program} ")


# ---- all studies


@pytest.fixture(params=["defaults", "exits", "int8"])
def study(request: pytest.FixtureRequest) -> Callable[[list[str]], int]:
    """`main` of a study."""
    main: Callable[[list[str]], int] = import_module(
        f"edgepkd.studies.{request.param}.command").main
    return main


def test_absent_data_is_one_message(
    study: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = study(["--quick", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert code == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert "index" in error
    assert not (tmp_path / "out").exists()


def test_a_report_of_nothing_is_one_message(
    study: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_index(tmp_path / "actions" / "index.csv", num_groups=9, num_test=3, dataset="Weizmann")
    code = study(["--quick", "--report-only", "--data", str(tmp_path),
                  "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")])
    assert code == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert "of the study has all its folds done" in error
    assert not (tmp_path / "results").exists()
