"""What --json, --save and --out name: nothing that is there is lost, nothing lies about."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgepkd.cli.main import app
from edgepkd.logits.clip_logits import save_logits
from tests.clips import encode_clip, translating_texture
from tests.disks import TOO_LARGE, largest_file
from tests.logits.made_logits import make_logits
from tests.processes import started
from tests.runtime.bundles import make_bundle

pytestmark = pytest.mark.slow

LINES = '{"schema_version": 1, "kind": "clip"}\n'
SYNTH = "--classes 2 --clips 8 --clip-frames 4"


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """A clip, a bundle, logits, a training run and a folder of clips."""
    clip = encode_clip(tmp_path / "right.mp4", translating_texture(24, (160, 96), (2, 0)))
    save_logits(make_logits(), tmp_path / "calibration.npz")
    for name in ("run", "data", "clips/walk"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data" / "index.csv").write_text("path,label\n")
    (tmp_path / "clips" / "walk" / "a.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "run" / "run.json").write_text(json.dumps(
        {"recipe": {}, "index": str(tmp_path / "data" / "index.csv")}))
    (tmp_path / "run" / "mv.safetensors").write_bytes(b"weights")
    (tmp_path / "recipe.toml").write_text("a = 1")
    return {"clip": clip, "bundle": make_bundle(tmp_path).path, "folder": tmp_path,
            "logits": tmp_path / "calibration.npz", "run": tmp_path / "run",
            "data": tmp_path / "data", "clips": tmp_path / "clips",
            "recipe": tmp_path / "recipe.toml"}


def invoke(arguments: str, places: dict[str, Path]) -> Result:
    return CliRunner().invoke(app, [part.format(**places) for part in arguments.split()])


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("arguments", [
    "run {clip} --model {bundle} --json {clip}",
    "run {clip} --model {bundle} --save {clip}",
    "run {folder}/*.mp4 --model {bundle} --json {clip}",
    "run {clips} --model {bundle} --json {clips}/walk/a.mp4",
    "run {clips} --model {bundle} --save {clips}/walk/a.mp4",
    "run {clip} --model {bundle} --json {bundle}/manifest.json",
    "run {clip} --model {bundle} --json {bundle}/new.json",
    "run {clip} --model {bundle} --save {bundle}/new.mp4",
    "run {clip} --model {bundle} --json {folder}/out.mp4 --save {folder}/out.mp4",
    "run {clip} --model {bundle} --json {folder}/./out.mp4 --save {folder}/out.mp4",
    "vectors {clip} --out {folder}/new --json {clip}",
    "vectors {clips} --out {folder}/new --json {clips}/walk/a.mp4",
    "vectors {clip} --out {folder}/new --json {folder}/./new",
    "vectors {clip} --out {folder}/new --json {bundle}/new.json",
    "vectors {clip} --out {bundle}/new",
    "inspect {clip} --json {clip}",
    "inspect {bundle} --json {bundle}/wise.json",
    "inspect {bundle} {clip} --json {clip}",
    "check {bundle} --json {bundle}/policy.json",
    "check {bundle} --target {recipe} --json {recipe}",
    "export {bundle} --target openvino --json {bundle}/manifest.json",
    "export {bundle} --target {recipe} --json {recipe}",
    "export {run} --target onnx --out {folder}/new.edgepkd --json {run}/mv.safetensors",
    "export {run} --target onnx --out {bundle}/new.edgepkd",
    "export {run} --target onnx --out {folder}/new.edgepkd --cache {bundle}/cache",
    "data prepare {clips} {folder}/new --json {clips}/walk/a.mp4",
    "data prepare {clips} {bundle}/new",
    "data synth {bundle}/new",
    "data verify {data} --json {data}/index.csv",
    "wise fit {logits} --out {folder}/new --json {logits}",
    "wise fit {logits} --out {folder} --json {folder}/wise.json",
    "wise fit {logits} --out {bundle}",
    "eval {run} --json {run}/mv.safetensors",
    "eval {run} --json {data}/index.csv",
    "eval {run} --json {run}/eval-log.jsonl",
    "eval {run} --out {bundle}",
    "eval {run} --out {folder} --json {folder}/metrics.json",
    "train backbone {run} --json {run}/mv.safetensors",
    "train backbone {run} --json {run}/mv-trunk.json",
    "train backbone {run} --init {logits} --json {logits}",
    "train backbone {folder}/new --data {data} --json {data}/index.csv",
    "train backbone {run} --recipe {recipe} --json {recipe}",
    "train backbone {bundle} --data {data}",
    "train exits {run} --json {run}/run.json",
    "quantize {run} --json {run}/mv.safetensors",
    "quantize {run} --recipe {recipe} --json {recipe}",
])
@pytest.mark.parametrize("force", ["", " --force"])
def test_nothing_that_is_read_or_written_is_replaced(
    places: dict[str, Path], arguments: str, force: str
) -> None:
    before = everything(places["folder"])
    done = invoke(arguments + force, places)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ")
    assert any(reason in done.stderr for reason in (
        "is the same file as", "are the same file", "lies in")), done.stderr
    assert everything(places["folder"]) == before


@pytest.mark.parametrize("arguments", [
    "run {clip} --model {bundle} --json {folder}/out", "demo --json {folder}/out",
    "run {clip} --model {bundle} --save {folder}/out.mp4",
    "vectors {clip} --out {folder}/new --json {folder}/out",
    "inspect {clip} --json {folder}/out", "inspect {bundle} --json {folder}/out",
    "check {bundle} --json {folder}/out", "doctor --json {folder}/out",
    "data synth {folder}/new --json {folder}/out " + SYNTH,
    "data verify {folder}/new --jobs 1 --json {folder}/out",
    "wise fit {logits} --out {folder}/new --json {folder}/out",
])
def test_a_file_that_is_there_is_replaced_only_with_force(
    places: dict[str, Path], arguments: str
) -> None:
    if "verify" in arguments:
        assert invoke("data synth {folder}/new " + SYNTH, places).exit_code == 0
    name = arguments.split("{folder}/")[-1].split()[0]
    out = places["folder"] / name
    for content in ("", LINES, "dear\n"):
        out.write_text(content)
        before = everything(places["folder"])
        done = invoke(arguments, places)
        assert done.exit_code == 2
        assert f"{out} is there already; it is not overwritten" in done.stderr
        assert "replace it: --force" in done.stderr
        assert everything(places["folder"]) == before
    done = invoke(f"{arguments} --force", places)
    assert done.exit_code == 0, done.stderr
    assert "dear" not in out.read_bytes().decode("latin-1")


def test_a_link_stays_and_the_file_it_leads_to_is_replaced(places: dict[str, Path]) -> None:
    folder = places["folder"]
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "old").write_text("dear")
    (folder / "link").symlink_to("elsewhere/old")
    arguments = "run {clip} --model {bundle} --json {folder}/link"
    assert invoke(arguments, places).exit_code == 2
    assert (folder / "elsewhere" / "old").read_text() == "dear"
    assert invoke(f"{arguments} --force", places).exit_code == 0
    assert (folder / "link").is_symlink()
    assert '"kind": "summary"' in (folder / "elsewhere" / "old").read_text()
    assert os.listdir(folder / "elsewhere") == ["old"]
    (folder / "dangling").symlink_to("nowhere")
    done = invoke("run {clip} --model {bundle} --json {folder}/dangling --force", places)
    assert done.exit_code == 2
    assert "is a link to nowhere, where nothing is" in done.stderr
    assert not (folder / "nowhere").exists()


def test_the_clip_behind_a_pipe_is_not_replaced(places: dict[str, Path]) -> None:
    before = places["clip"].read_bytes()
    with places["clip"].open("rb") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "edgepkd.cli.main", "run", "-", "--json", str(places["clip"]),
             "--model", str(places["bundle"]), "--force"], stdin=stream, capture_output=True,
            text=True, timeout=60)
    assert done.returncode == 2
    assert "is the same file as /dev/stdin, which is read" in done.stderr
    assert places["clip"].read_bytes() == before


def test_a_picture_of_a_sequence_is_a_source(places: dict[str, Path]) -> None:
    from PIL import Image

    folder = places["folder"] / "seq"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64)).save(folder / f"{number:03}.png")
    before = everything(folder)
    for source in ("{folder}/seq", "{folder}/seq/*.png", "{folder}/seq/%03d.png"):
        done = invoke(f"run {source} --model {{bundle}} --json {{folder}}/seq/001.png --force",
                      places)
        assert done.exit_code == 2
        assert "001.png, which is read" in done.stderr
    assert everything(folder) == before


@pytest.mark.parametrize("room", [0, 100])
def test_a_full_disk_leaves_what_was_there_and_no_part(
    places: dict[str, Path], room: int
) -> None:
    for option, name in (("--json", "out.jsonl"), ("--save", "out.mp4")):
        out = places["folder"] / name
        out.write_text("dear")
        before = everything(places["folder"])
        with largest_file(room):
            done = invoke(f"run {{clip}} --model {{bundle}} {option} {out} --force -q", places)
        assert done.exit_code == 1
        assert f"error: {out} cannot be written: {TOO_LARGE}" in done.stderr
        assert "Traceback" not in done.stderr
        assert everything(places["folder"]) == before
        out.unlink()


@pytest.mark.parametrize("out", ["out.jsonl", "out.mp4"])
def test_what_a_killed_run_left_is_swept_by_the_next(
    places: dict[str, Path], tmp_path: Path, out: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    option = "--json" if out.endswith("jsonl") else "--save"
    long = encode_clip(tmp_path / "long.mp4", translating_texture(500, (160, 96), (2, 0)))
    command = [sys.executable, "-m", "edgepkd.cli.main", "run", str(long), "--model",
               str(places["bundle"]), option, str(folder / out), "-q"]
    with started(command, stdout=subprocess.DEVNULL) as running:
        until = time.monotonic() + 60
        while not any(path.stat().st_size for path in folder.glob(".*")):
            assert time.monotonic() < until
            assert running.poll() is None
            time.sleep(0.001)
        running.kill()
        assert running.wait() == -signal.SIGKILL
    (partial,) = os.listdir(folder)
    assert partial.startswith(f".{out}.edgepkd-")
    done = subprocess.run([*command[:4], str(places["clip"]), *command[5:]], text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert os.listdir(folder) == [out]
