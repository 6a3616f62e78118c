"""The command that comes next: the right one, and one that the command line takes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from edgepkd.cli import next_steps
from edgepkd.cli.main import app
from edgepkd.config import MODALITIES

RUN, SET = Path("runs/mine"), Path("my data")


def after_eval(split: str, *, fitted: bool = False, **others: Any) -> str:
    settings = {"is_quantized": False, **others}
    run = settings.pop("run", RUN)
    return next_steps.after_eval(run, split=split, is_fitted=fitted, **settings)


STEPS = [
    (next_steps.after_data(SET), "edgepkd train backbone 'runs/my data' --data 'my data'"),
    (next_steps.after_backbone(RUN, MODALITIES), "edgepkd train exits runs/mine"),
    (next_steps.after_backbone(RUN, ["mv"]),
     "edgepkd train backbone runs/mine --modality residual,iframe"),
    (next_steps.after_exits(RUN, ["mv", "iframe"]),
     "edgepkd train exits runs/mine --modality residual"),
    (next_steps.after_exits(RUN, MODALITIES), "edgepkd train folds runs/mine"),
    (next_steps.after_exits(RUN, MODALITIES, cache=Path("/scratch/c")),
     "edgepkd train folds runs/mine --cache /scratch/c"),
    (next_steps.after_folds(RUN), "edgepkd wise fit runs/mine"),
    (after_eval("calibration"), "edgepkd wise fit runs/mine"),
    (after_eval("calibration", fitted=True), "edgepkd wise fit runs/mine --force"),
    (after_eval("test"), "edgepkd wise fit runs/mine"),
    (after_eval("test", fitted=True), "edgepkd quantize runs/mine"),
    (after_eval("test", fitted=True, int8=RUN / "int8-qad"),
     "edgepkd wise fit runs/mine/int8-qad"),
    (after_eval("test", fitted=True, is_quantized=True, run=RUN / "int8-qad"),
     "edgepkd export runs/mine/int8-qad --target onnx --out runs/mine-int8-qad.edgepkd"),
    (next_steps.after_wise_fit(RUN), "edgepkd eval runs/mine"),
    (next_steps.after_quantize(RUN / "int8-ptq"), "edgepkd wise fit runs/mine/int8-ptq"),
    (next_steps.after_export(Path("my.edgepkd")), "edgepkd check my.edgepkd"),
    (next_steps.after_check(Path("my.edgepkd"), "ok"), "edgepkd run VIDEO --model my.edgepkd"),
]


@pytest.mark.parametrize(("step", "expected"), STEPS, ids=[expected for _, expected in STEPS])
def test_the_next_step_is_a_command_that_can_be_pasted(step: str, expected: str) -> None:
    assert step == expected
    command: Any = typer.main.get_command(app)
    name, *words = shlex.split(step)
    assert name == "edgepkd"
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("edgepkd", words)  # an option that is not known is an error


def test_where_nothing_follows_nothing_is_said() -> None:
    assert after_eval("train", fitted=True) == ""
    assert next_steps.after_check(Path("my.edgepkd"), "cannot") == ""
    assert next_steps.after_check(Path("my.edgepkd"), "will rebuild") == ""


def test_a_run_here_has_a_bundle_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "int8-qad").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine")
    step = after_eval("test", fitted=True, is_quantized=True, run=Path("int8-qad"))
    assert step.endswith("--out mine-int8-qad.edgepkd")
    assert next_steps.after_data(Path(".")) == "edgepkd train backbone runs/mine --data ."
