"""`edgepkd eval` on a small run: what it writes, what it counts, what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from edgepkd import plots
from edgepkd.cli.evaluate import parse_segments
from edgepkd.config import MODALITIES, InputSpec, Modality
from edgepkd.datasets.index import labels_of, read_index
from edgepkd.datasets.no_look import HOW_TO_READ, NoLook
from edgepkd.errors import MissingExtraError, UsageError
from edgepkd.logits.clip_logits import load_logits
from edgepkd.models.checkpoint import save_network
from edgepkd.pipeline import evaluate
from edgepkd.training.recipe import load_train_recipe
from edgepkd.training.runs import Run, write_run
from tests.cli.calling import invoke as call
from tests.clips import encode_clip, translating_texture
from tests.models.networks import small_network

pytestmark = pytest.mark.slow

TRAINED: tuple[Modality, ...] = ("mv", "iframe")
ORDER: tuple[Modality, ...] = ("mv", "iframe")


@pytest.fixture(autouse=True)
def no_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest; two tests do draw."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(evaluate, "draw_plots", lambda *_, **__: None)


@pytest.fixture
def drawn() -> None:
    """Ask for this to have plots."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels in five groups: two train, one calibrates, two test."""
    folder = tmp_path_factory.mktemp("data")
    rows = ["path,label,group,split,dataset"]
    for group, split in (("a", "train"), ("b", "train"), ("c", "val"), ("d", "test"),
                         ("e", "test")):
        for label, speed in (("left", -2), ("right", 2)):
            name = f"{label}_{group}.mp4"
            frames = translating_texture(14, (96, 64), (speed, 0), seed=ord(group))
            encode_clip(folder / name, frames)
            rows.append(f"{name},{label},{group},{split},toy")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder / "index.csv"


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two of three networks, nothing fitted."""
    folder = tmp_path_factory.mktemp("run")
    inputs = {m: InputSpec(m, num_segments=2, resize_px=40, crop_px=32) for m in MODALITIES}
    recipe = replace(load_train_recipe("demo-weizmann"), inputs=inputs, dataset="toy")
    write_run(Run(folder, recipe, data, labels_of(read_index(data)), 7))
    for modality in TRAINED:
        save_network(small_network(modality=modality, num_classes=2), folder / modality)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def invoke(run: Path, cache: Path, *arguments: object) -> Result:
    return call("eval", run, "--cache", cache, *arguments)


def metrics(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metrics.json").read_text()))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.usefixtures("drawn")
def test_a_run_without_a_fit_is_summed_and_says_so(run: Path, cache: Path) -> None:
    done = invoke(run, cache)
    assert done.exit_code == 0, done.output
    folder = run / "eval" / "test-centre"
    assert {path.name for path in folder.iterdir()} == {
        "metrics.json", "exits.csv", "confusion.csv", "confusion.png", "exits.png", "logits.npz"}
    facts = metrics(folder)
    assert facts["wise"] == "plain sums"
    assert facts["policy"] is None
    assert (facts["data"]["num_clips"], facts["data"]["num_groups"]) == (4, 2)
    assert [s["kind"] for s in facts["scores"]] == ["exit"] * 8 + ["modality"] * 2 + ["prefix"] * 8
    assert "plain sums, and there is no policy" in done.stderr
    assert "2 groups only" in done.stderr
    assert f"cache {cache}: 0.0 GB of 20\n" in done.stderr
    assert done.stderr.endswith(
        f"next: edgepkd wise fit {run} --cache {cache}\n")


def test_the_no_look_floor_stands_beside_the_results(
    run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = NoLook(0.614, 0.021, 0.5, None, None, ("width", "frames"), ("width",), 90, 12)
    monkeypatch.setattr(evaluate, "floor_of_index", lambda index, samples: (found, ("why not",)))
    done = invoke(run, cache)
    assert done.exit_code == 0, done.output
    assert (f"{found.in_words()}; {HOW_TO_READ}") in " ".join(done.stdout.split())
    assert "note: why not" in done.stderr
    told = metrics(run / "eval" / "test-centre")["data"]["no_look"]
    assert (told["accuracy"], told["spread"], told["telling"]) == (0.614, 0.021, ["width"])


def test_data_may_be_the_folder_or_the_index(run: Path, data: Path, cache: Path) -> None:
    seen = []
    for named in (data, data.parent):
        done = invoke(run, cache, "--data", named)
        assert done.exit_code == 0, done.output
        seen.append(metrics(run / "eval" / "test-centre")["data"])
        del seen[-1]["num_looks"]
    assert seen[0] == seen[1]
    assert seen[0]["num_clips"] == 4


def test_the_views_protocol_is_in_every_result(run: Path, cache: Path, tmp_path: Path) -> None:
    done = invoke(run, cache, "--views", "10crop", "--segments", "mv=3", "--out", tmp_path / "out",
                  "--json", tmp_path / "line.json")
    assert done.exit_code == 0, done.output
    views = "segments mv 3, iframe 2; 10 crops"
    assert f"views: {views}" in done.stdout
    assert {row["views"] for row in table(tmp_path / "out" / "exits.csv")} == {views}
    assert {row["views"] for row in table(tmp_path / "out" / "confusion.csv")} == {views}
    line = json.loads((tmp_path / "line.json").read_text())
    assert line["kind"] == "eval"
    assert line["views"]["name"] == metrics(tmp_path / "out")["views"]["name"] == views
    assert str(load_logits(tmp_path / "out" / "logits.npz").views) == views
    crops = {s["name"]: s["gmac"] for s in line["scores"] if s["kind"] == "exit"}
    invoke(run, cache, "--out", tmp_path / "one")
    one = {s["name"]: s["gmac"] for s in metrics(tmp_path / "one")["scores"]
           if s["kind"] == "exit"}
    assert crops["mv_1"] == pytest.approx(10 * 3 / 2 * one["mv_1"])


def test_looks_at_the_test_split_are_counted(run: Path, cache: Path) -> None:
    invoke(run, cache, "--split", "calibration")
    assert metrics(run / "eval" / "calibration-centre")["data"]["num_looks"] == 1
    for look in (1, 2):
        done = invoke(run, cache)
        assert metrics(run / "eval" / "test-centre")["data"]["num_looks"] == look
    assert "look 2 at the test split with this run" in done.stderr
    lines = [json.loads(text) for text in (run / "eval-log.jsonl").read_text().splitlines()]
    assert [line["split"] for line in lines] == ["calibration", "test", "test"]


def test_flatness_is_measured_on_training_clips(run: Path, cache: Path) -> None:
    done = invoke(run, cache, "--flatness", "--flatness-clips", 3, "--flatness-probes", 2,
                  "--epsilon", 1e-3)
    assert done.exit_code == 0, done.output
    facts = metrics(run / "eval" / "test-centre")["flatness"]
    assert facts["split"] == "train"
    assert facts["settings"]["epsilon"] == 1e-3
    for modality in TRAINED:
        found = facts["networks"][modality]
        assert (found["num_clips"], found["trace"]["num_probes"]) == (3, 2)
        assert found["trace"]["standard_error"] > 0
        assert found["sharpness"]["worst_loss"] >= found["sharpness"]["loss"]
    assert "relative trace" in done.stdout
    assert "±" in done.stdout


def test_a_clip_that_cannot_be_read_is_listed(run: Path, cache: Path, data: Path) -> None:
    folder = run.parent / "damaged"
    shutil.copytree(data.parent, folder)
    (folder / "left_d.mp4").write_bytes(b"nothing")
    done = invoke(run, cache, "--data", folder / "index.csv", "--dataset", "toy")
    assert done.exit_code == 0, done.output
    (skipped,) = metrics(run / "eval" / "test-centre")["data"]["skipped"]
    assert skipped["path"].endswith("left_d.mp4")
    assert "1 clips could not be read" in done.stderr


@pytest.mark.usefixtures("drawn")
def test_without_matplotlib_the_plots_are_left_out(
    run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise MissingExtraError("Drawing a plot needs 'matplotlib'.", hint="Install it.")

    monkeypatch.setattr(plots, "require", absent)
    done = invoke(run, cache)
    assert done.exit_code == 0, done.output
    assert "no plots: Drawing a plot needs 'matplotlib'. Install it." in done.stderr
    assert not (run / "eval" / "test-centre" / "exits.png").exists()
    assert any("no plots" in note for note in metrics(run / "eval" / "test-centre")["notes"])


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["--split", "val"], 2, "split is 'val'; allowed: test, calibration, train"),
    (["--views", "30"], 2, "views is '30'; allowed: centre, 10crop"),
    (["--order", "residual"], 2, "has no network for residual; allowed: orders of mv, iframe"),
    (["--segments", "residual=3"], 2, "segments are given for residual"),
    (["--segments", "mv=0"], 2, "segments of mv is 0; allowed: 1 or more"),
    (["--dataset", "none"], 1, "lists no clip for dataset 'none'"),
    (["--flatness", "--flatness-probes", "1"], 2, "num_probes is 1; allowed: 2 or more"),
])
def test_bad_requests_are_refused(
    run: Path, cache: Path, arguments: list[str], code: int, message: str
) -> None:
    done = invoke(run, cache, *arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert not (run / "eval-log.jsonl").exists()


def test_what_is_missing_from_a_run_is_named(run: Path, cache: Path) -> None:
    for modality in TRAINED:
        (run / f"{modality}.safetensors").unlink()
    assert "mv.safetensors cannot be read" in invoke(run, cache).stderr
    for modality in TRAINED:
        (run / f"{modality}.json").unlink()
    assert "has no network with all exits" in invoke(run, cache).stderr
    assert "is no training run" in invoke(run / "absent", cache).stderr


def test_segments_are_parsed() -> None:
    assert parse_segments(None) is None
    assert parse_segments("mv=8, residual=6") == {"mv": 8, "residual": 6}
    for text in ("mv", "mv=", "mv=-1", "mv=1,mv=2", ""):
        with pytest.raises(UsageError, match="segments is"):
            parse_segments(text)
