"""`edgepkd quantize` on the command line: from clips to an INT8 run, messages, exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import Result

from edgepkd.quantize import fidelity
from tests.cli.calling import invoke, lines
from tests.training.tiny_set import change_index, make_set, without_calibration, write_recipe

pytestmark = pytest.mark.slow

FEW = ("--force-few", "--set", "finetune.epochs=2", "--set", "finetune.batch_clips=2")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one network, its exits trained by labels."""
    folder = tmp_path_factory.mktemp("trained")
    data, recipe = make_set(folder / "data"), write_recipe(folder / "tiny.toml")
    common = ("--cache", cache, "--jobs", 1, "--threads", 1, "--device", "cpu", "--modality", "mv")
    done = invoke("train", "backbone", folder / "run", "--data", data, "--recipe", recipe, *common)
    assert done.exit_code == 0, done.output
    done = invoke("train", "exits", folder / "run", "--method", "ce", "--features",
                  folder / "features", *common)
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def quantize(run: Path, cache: Path, *arguments: object) -> Result:
    return invoke("quantize", run, "--cache", cache, "--jobs", 1, "--threads", 1, "--device", "cpu",
                  *arguments)


def test_without_calibration_clips_training_clips_are_judged_and_it_is_said(
    trained: Path, cache: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(trained.parent / "data", tmp_path / "data"))
    change_index(own, without_calibration)
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    done = quantize(run, cache, *FEW, "--method", "ptq", "--data", own)
    assert done.exit_code == 0, done.output
    row = next(line for line in done.stdout.splitlines() if line.split()[:2] == ["mv", "ptq"])
    assert row.split()[2] == "-"
    assert float(row.split()[3]) > 0
    assert "training loss" in done.stdout


def test_a_run_becomes_int8_is_evaluated_and_weighed(run: Path, cache: Path) -> None:
    done = quantize(run, cache, *FEW, "--method", "qad", "--sensitivity")
    assert done.exit_code == 0, done.output
    row = next(line for line in done.stdout.splitlines() if line.split()[:2] == ["mv", "qad"])
    assert row.rstrip().endswith("int8-qad/mv.json")
    assert "mv: worst layers alone" in done.stdout
    assert "same label %" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()
            if line.lstrip().startswith("mv_")] == ["mv_1", "mv_2", "mv_3", "mv_4"]
    assert "qad mv  2/2  loss" in done.stderr
    out = run / "int8-qad"
    for name in ("loss.png", "results.csv", "log.jsonl", "checkpoint.safetensors"):
        assert (out / "quantize-mv" / name).exists()

    done = invoke("eval", out, "--split", "calibration", "--cache", cache, "--device", "cpu")
    assert done.exit_code == 0, done.output
    logits = out / "eval" / "calibration-centre" / "logits.npz"
    done = invoke("wise", "fit", logits, "--out", out)
    assert done.exit_code == 0, done.output
    assert (out / "wise.json").exists()
    done = invoke("wise", "fit", logits, "--out", run)
    assert done.exit_code == 1
    assert "the logits of mv come from weights" in done.stderr
    done = invoke("eval", out, "--cache", cache, "--device", "cpu", "--flatness")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "error: flatness is asked for, and the networks are quantised" in done.stderr
    done = invoke("train", "exits", out, "--cache", cache)
    assert done.exit_code == 2
    assert f"next: Name the run that it was made from: {run}." in done.stderr


def test_networks_are_json_lines_kept_refused_and_replaced(run: Path, cache: Path) -> None:
    ptq = ("--method", "ptq", "--force-few", "--calibrator", "percentile", "--calib-clips", 3)
    (line,) = lines(quantize(run, cache, *ptq, "--json", "-").stdout)
    assert (line["kind"], line["method"], line["modality"], line["kept"]) == (
        "network", "ptq", "mv", False)
    assert line["path"] == str(run / "int8-ptq" / "mv.json")
    assert "sensitivity" not in line
    facts = json.loads((run / "int8-ptq" / "quantize.json").read_text())["networks"]["mv"]
    assert facts["settings"]["quantizer"]["calibrator"] == "percentile"
    assert facts["calibration"]["num_clips"] == 3

    refused = quantize(run, cache, *ptq)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "mv.json exists.\n  next: Give --resume" in refused.stderr
    (line,) = lines(quantize(run, cache, *ptq, "--resume", "--json", "-").stdout)
    assert line["kept"]
    other = quantize(run, cache, "--method", "ptq", "--force-few", "--resume")
    assert "was made with other settings, weights or clips" in other.stderr
    (line,) = lines(quantize(run, cache, "--method", "ptq", "--force", "--json", "-").stdout)
    assert not line["kept"]


@pytest.mark.parametrize(("arguments", "code", "message"), [
    ([], 1, "4 clips to calibrate on; allowed: 16 or more"),
    (["--method", "quant"], 2, "method is 'quant'; allowed: ptq, qat, qad"),
    (["--calibrator", "minmax"], 2, "calibrator is 'minmax'; allowed: max, percentile"),
    (["--calib-clips", "0"], 2, "calibration_clips is 0; allowed: 1 or more"),
    (["--modality", "sound"], 2, "modality is ('sound',); allowed: each of mv"),
    (["--modality", "iframe"], 1, "the network of iframe is needed and cannot be read"),
    (["--target", "tpu"], 2, "export recipe is 'tpu'"),
    (["--method", "qad", "--set", "finetune.scheme=pkd"], 1,
     "the network of residual is needed and cannot be read"),
    (["--set", "finetune.epoch=3"], 2, "key epoch is 'unknown'"),
    (["--set", "quantizer.keep_float=[\"conv9\"]", "--force-few"], 2, "keep_float is 'conv9'"),
    (["--recipe", "none"], 2, "calibration recipe is 'none'; allowed: best, defaults"),
    (["--recipe", "small"], 2, "key "),
    (["--resume", "--force"], 2, "--resume keeps what is there"),
    (["--jobs", "0"], 2, "jobs is 0"),
    (["--threads", "0"], 2, "threads is 0"),
    (["--device", "tpu"], 2, "device is 'tpu'"),
    (["--data", "/nowhere"], 1, "index /nowhere/index.csv cannot be read"),
])
def test_a_wrong_request_is_one_message(
    run: Path, cache: Path, arguments: list[str], code: int, message: str
) -> None:
    done = quantize(run, cache, *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert "\nerror: " in f"\n{done.stderr}"
    assert message in done.stderr
    assert not any((run / f"int8-{method}" / "mv.json").exists() for method in ("ptq", "qad"))


def test_an_exit_that_fell_is_a_warning_with_a_command(
    run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity.ExitFidelity, "fell", True)
    done = quantize(run, cache, "--force-few")
    assert done.exit_code == 0, done.output
    assert "warning: mv_1 falls from " in done.stderr
    assert f"  next: edgepkd quantize {run} --method ptq --modality mv --set " in done.stderr
    assert "quantizer.keep_float=auto --force" in done.stderr


def test_a_folder_without_a_run_is_one_message(tmp_path: Path, cache: Path) -> None:
    done = quantize(tmp_path / "none", cache)
    assert done.exit_code == 1
    assert "is no training run" in done.stderr
