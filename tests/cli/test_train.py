"""`edgepkd train` on the command line: from clips to exits, exit codes, messages, no tracebacks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from edgepkd.config import MODALITIES
from tests.cli.calling import invoke as call
from tests.cli.calling import lines
from tests.models.networks import torchvision_state
from tests.processes import ROOT
from tests.training.tiny_set import change_index, make_run, make_set, write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches and the recipe."""
    folder = tmp_path_factory.mktemp("shared")
    write_recipe(folder / "tiny.toml")
    return folder


@pytest.fixture
def start(data: Path, shared: Path) -> list[object]:
    """What a new run is given."""
    return ["--data", data, "--recipe", shared / "tiny.toml"]


@pytest.fixture(scope="module")
def trained(data: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three trunks."""
    run = tmp_path_factory.mktemp("run") / "tiny"
    done = invoke("backbone", run, shared, "--data", data, "--recipe", shared / "tiny.toml",
                  "--json", run.with_name("lines.json"))
    assert done.exit_code == 0, done.output
    named = [line.split()[0] for line in done.stdout.splitlines() if "-trunk.json" in line]
    assert named == list(MODALITIES)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def invoke(step: str, run: Path, shared: Path, *arguments: object) -> Result:
    features = ["--features", shared / "features"] if step in ("exits", "folds") else []
    return call("train", step, run, "--cache", shared / "cache", "--jobs", 1, "--threads", 1,
                "--device", "cpu", *features, *arguments)


def test_what_will_be_done_is_said_before_it_starts(
    trained: Path, shared: Path, start: list[object], tmp_path: Path
) -> None:
    """Clips, mirrored sides and time on stderr; the weights are those of a run that was silent."""
    told = invoke("backbone", tmp_path / "run", shared, *start, "--modality", "mv")
    assert told.exit_code == 0, told.output
    said = told.stderr
    assert said.index("training clips of the classes: 2 each") < said.index("tiny: about ")
    assert "calibration 2 clips of 2 classes in 1 group" in said
    assert "which makes 'left' of 'right': if the side matters, give --set augment.flip" in said
    assert "  mv        4 steps: " in said
    assert (tmp_path / "run" / "mv-trunk.safetensors").read_bytes() == (
        trained / "mv-trunk.safetensors").read_bytes()


def test_a_preset_is_a_recipe(data: Path, shared: Path, tmp_path: Path) -> None:
    done = invoke("backbone", tmp_path / "run", shared, "--data", data, "--preset", "quick",
                  "--modality", "mv", "--set", "backbones.mv.epochs=1", "--set",
                  "backbones.mv.width=0.125", "--set", "exits.epochs=1")
    assert done.exit_code == 0, done.output
    assert "quick: about " in done.stderr
    assert "other presets: small " in done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]["name"] == "quick"


def test_a_method_of_its_own_goes_into_a_folder_of_its_own(run: Path, shared: Path) -> None:
    out = run.with_name("run-ce")
    done = invoke("exits", run, shared, "--modality", "mv", "--method", "ce", "--out", out,
                  "--json", "-")
    assert [line["path"] for line in lines(done.stdout)] == [str(out / "mv.json")]
    refused = invoke("exits", run, shared, "--modality", "mv", "--method", "ce", "--out", run)
    assert refused.exit_code == 2
    assert "is the run itself" in refused.stderr


def test_each_trunk_is_a_line(trained: Path) -> None:
    found = lines(trained.with_name("lines.json").read_text())
    assert [(line["kind"], line["step"], line["modality"]) for line in found] == [
        ("network", "backbone", modality) for modality in MODALITIES]
    assert [Path(line["path"]).name for line in found] == [
        f"{modality}-trunk.json" for modality in MODALITIES]
    assert all(line["values"]["loss_calibration"] > 0 for line in found)


def test_exits_are_trained_kept_refused_and_replaced(run: Path, shared: Path) -> None:
    done = invoke("exits", run, shared, "--method", "pkd", "--last-teacher", "iframe",
                  "--set", "exits.epochs=6")
    assert done.exit_code == 0, done.output
    row = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["residual"])
    assert row.split()[1] == "exits"
    assert row.rstrip().endswith("residual.json")
    assert "exits residual  6/6  loss" in done.stderr
    assert f"cache {shared}/" in done.stderr
    assert f"next: edgepkd train folds {run} --cache {shared}/" in done.stderr
    for modality in MODALITIES:
        assert (run / f"exits-{modality}" / "results.csv").read_text().count("\n") == 7

    refused = invoke("exits", run, shared)
    assert refused.exit_code == 2
    assert f"error: {run / 'mv.json'} exists.\n  next: Give --resume" in refused.stderr
    assert refused.stdout == ""
    kept = invoke("exits", run, shared, "--resume", "--json", "-")
    assert [line["kept"] for line in lines(kept.stdout)] == [True] * 3
    other = invoke("exits", run, shared, "--resume", "--method", "ce")
    assert other.exit_code == 2
    assert "was made with other settings, weights or clips" in other.stderr
    forced = invoke("exits", run, shared, "--force", "--method", "ce", "--modality", "mv,iframe",
                    "--online", "--json", "-")
    assert [(line["modality"], line["kept"]) for line in lines(forced.stdout)] == [
        ("mv", False), ("iframe", False)]


def test_trunks_are_not_overwritten_unasked(run: Path, shared: Path) -> None:
    before = (run / "mv-trunk.safetensors").read_bytes()
    refused = invoke("backbone", run, shared, "--modality", "mv")
    assert refused.exit_code == 2
    assert "mv-trunk.json exists" in refused.stderr
    assert invoke("backbone", run, shared, "--modality", "mv", "--resume").exit_code == 0
    assert invoke("backbone", run, shared, "--modality", "mv", "--force").exit_code == 0
    assert (run / "mv-trunk.safetensors").read_bytes() == before


def test_a_clip_that_cannot_be_read_is_told(
    data: Path, shared: Path, start: list[object], tmp_path: Path
) -> None:
    own = Path(shutil.copytree(data, tmp_path / "data"))
    (own / "videos" / "right" / "scene01.mp4").write_bytes(b"nothing")
    change_index(own, lambda row: {**row, "sha256": ""} if row["path"].endswith(
        "right/scene01.mp4") else row)
    done = invoke("backbone", tmp_path / "run", shared, *start[2:], "--data", own,
                  "--modality", "mv", "--set", "backbones.mv.epochs=1")
    assert done.exit_code == 0, done.output
    assert "1 of 6 clips cannot be read and are left out" in done.stderr
    assert "scene01.mp4,right," in (tmp_path / "run" / "skipped.csv").read_text()


def test_a_missing_trunk_names_the_command(run: Path, shared: Path) -> None:
    (run / "residual-trunk.safetensors").unlink()
    done = invoke("exits", run, shared, "--modality", "mv", "--set", "exits.epochs=6")
    assert done.exit_code == 1
    assert "error: the trunk of residual is needed and cannot be read" in done.stderr
    assert "next: Train it with `edgepkd train backbone`" in done.stderr


def test_weights_of_another_network_are_refused_by_their_keys(
    shared: Path, start: list[object], tmp_path: Path
) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision_state("resnet18", num_classes=10), path)
    done = invoke("backbone", tmp_path / "run", shared, *start, "--modality", "mv",
                  "--init", path)
    assert done.exit_code == 1
    assert "conv1.weight is (64, 2, 7, 7), not (8, 2, 7, 7)" in done.stderr
    assert "next: It looks like a ResNet-18" in done.stderr
    done = invoke("backbone", tmp_path / "run", shared, *start, "--modality", "mv",
                  "--init", path, "--key-map", r"^layer1\.=stage1.")
    assert "missing: layer1.0.conv1.weight" in done.stderr
    assert "unknown: stage1.0.conv1.weight" in done.stderr


def test_training_starts_from_weights_that_fit(
    run: Path, shared: Path, start: list[object], tmp_path: Path
) -> None:
    """A rate of almost nothing leaves them where they were."""
    done = invoke("backbone", tmp_path / "other", shared, *start, "--modality", "mv", "--init",
                  run / "mv-trunk.safetensors", "--set", "backbones.mv.learning_rate=1e-12",
                  "--set", "backbones.mv.epochs=1")
    assert done.exit_code == 0, done.output
    from edgepkd.models.checkpoint import load_network

    one, other = (load_network(folder / "mv-trunk")[0].state_dict()
                  for folder in (run, tmp_path / "other"))
    for key in ("segments.0.trunk.conv1.weight", "segments.3.trunk.layer4.1.conv2.weight"):
        torch.testing.assert_close(one[key], other[key], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["--set", "backbones.mv.epoch=3"], 2, "key epoch is 'unknown'; allowed: accumulate, "),
    (["--set", "backbones.mv.epochs=many"], 2, "epochs is 'many'; allowed: a whole number"),
    (["--set", "seed"], 2, "--set is 'seed'; allowed: KEY=VALUE"),
    (["--modality", "sound"], 2, "modality is ('sound',); allowed: each of mv, residual, iframe"),
    (["--resume", "--force"], 2, "--resume keeps what is there"),
    (["--jobs", "0"], 2, "jobs is 0; allowed: 1 or more"),
    (["--workers", "-1"], 2, "workers is -1"),
    (["--device", "tpu"], 2, "device is 'tpu'; allowed: cpu, cuda, cuda:N"),
    (["--amp"], 2, "mixed_precision is 'true on the CPU'"),
    (["--seed", "3"], 2, "holds a run with other seed"),
    (["--set", "clip.stride_frames=24"], 2, "holds a run with other clip"),
    (["--recipe", "small"], 2, "holds a run with other"),
    (["--recipe", "none"], 2, "calibration recipe is 'none'; allowed: best, defaults"),
    (["--data", "/nowhere"], 1, "index /nowhere/index.csv cannot be read"),
    (["--force", "--init", "/nowhere.pth"], 1, "Checkpoint /nowhere.pth cannot be read"),
    (["--json", "/no/such/folder/a.json"], 2, "error: --json"),
])
def test_a_wrong_request_is_one_message(
    run: Path, shared: Path, arguments: list[str], code: int, message: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    done = invoke("backbone", run, shared, *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert "\nerror: " in f"\n{done.stderr}"
    assert message in done.stderr
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["--method", "kd"], 2, "method is 'kd'; allowed: pkd, anticurriculum, iframe, ce"),
    (["--last-teacher", "mv"], 2, "last_teacher is 'mv'; allowed: own, iframe"),
    (["--cache-gb", "0.000001"], 1, "6 clips need about"),
])
def test_a_wrong_request_for_exits_is_one_message(
    run: Path, shared: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = invoke("exits", run, shared, *arguments, "--features", tmp_path / "features")
    assert done.exit_code == code
    assert f"error: {message}" in done.stderr
    assert not (run / "mv.json").exists()


def test_one_class_is_refused(
    data: Path, shared: Path, start: list[object], tmp_path: Path
) -> None:
    own = Path(shutil.copytree(data, tmp_path / "data"))
    change_index(own, lambda row: row if row["label"] == "left" else None)
    done = invoke("backbone", tmp_path / "run", shared, *start[2:], "--data", own)
    assert done.exit_code == 1
    assert "error: the clips have 1 label (left); allowed: 2 or more." in done.stderr


def test_a_folder_without_a_run_asks_for_data(shared: Path, tmp_path: Path) -> None:
    for step in ("backbone", "exits"):
        done = invoke(step, tmp_path / "none", shared)
        assert done.exit_code == 2
        assert "no data was named" in done.stderr
    assert not (tmp_path / "none").exists()


def test_a_disk_that_fills_up_is_one_message_and_leaves_no_part(
    data: Path, shared: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the full disk."""
    command = [sys.executable, "-m", "edgepkd.cli.main", "train", "backbone", tmp_path / "run",
               "--data", data, "--recipe", shared / "tiny.toml", "--cache", tmp_path / "cache",
               "--jobs", "1", "--device", "cpu", "--modality", "mv"]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", *map(str, command)], cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
        check=False)
    assert done.returncode == 1
    assert "\nerror: decoded clips cannot be written to" in done.stderr
    assert "next: Free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "cache").iterdir()) == []


# ---- folds


def test_folds_say_what_they_take_and_wise_fit_rests_on_them(
    data: Path, shared: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "a", data, modalities=["mv"])
    path = run / "run.json"
    path.write_text(path.read_text().replace('"scheme": "pkd"', '"scheme": "ce"'))
    done = invoke("folds", run, shared, "--folds", 2, "--processes", 1)
    assert done.exit_code == 0, done.output
    assert "2 folds of 2, 2 clips: as much as training 2 times on the rest" in done.stderr
    assert "4 clips of 2 groups answered" in done.stderr
    assert f"next: edgepkd wise fit {run}" in done.stderr
    fitted = call("wise", "fit", run, "--cache", shared / "cache")
    assert fitted.exit_code == 0, fitted.output
    assert ("rests on 6 held-out clips of 3 groups (folds and calibration), answered by 3 sets of"
            " networks") in " ".join(fitted.stdout.split())
    assert "taken: plain sums (too few clips to weigh exits by: 6 clips of at least 40" in (
        " ".join(fitted.stdout.split()))
    shown = call("eval", run / "folds" / "0", "--split", "calibration", "--cache", shared / "cache")
    assert "calibration split: 2 clips of 1 group;" in shown.stdout
