"""Labels in any script, with any sign: from folders through training to a bundle that answers."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from edgepkd.bundle.reading import read_bundle
from tests.cli.calling import invoke as call
from tests.clips import encode_clip, moving_scene
from tests.training.tiny_set import write_recipe

pytestmark = pytest.mark.slow

GIVEN = ("चलना", "walk 🚶", "50% off", "Cafe\u0301", "$x_{$ *a* `b`|c")
KEPT = tuple(sorted(normalize("NFC", label) for label in GIVEN))


def invoke(*arguments: object) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a plot that cannot draw a name would warn
        done = call(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    for row, label in enumerate(GIVEN):
        (folder / "source" / label).mkdir(parents=True)
        for group in range(3):
            encode_clip(folder / "source" / label / f"g{group}.avi",
                        moving_scene(13, seed=100 * row + group))
    out = invoke("data", "prepare", folder / "source", folder / "set", "--jobs", 1,
                 "--test-share", 0.34, "--calibration-share", 0.5)
    assert "50% off" in out
    return folder


@pytest.fixture(scope="module")
def run(prepared: Path) -> Path:
    recipe = write_recipe(prepared / "tiny.toml")
    folder = prepared / "mine"
    common = ("--cache", prepared / "cache", "--threads", 1, "--modality", "mv")
    invoke("train", "backbone", folder, "--data", prepared / "set", "--recipe", recipe,
           "--jobs", 1, "--tensorboard", *common)
    invoke("train", "exits", folder, "--jobs", 1, "--features", prepared / "features",
           "--method", "ce", *common)
    return folder


def test_the_set_is_whole_and_says_the_labels(prepared: Path) -> None:
    with (prepared / "set" / "index.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["label"] for row in rows} == set(KEPT)
    assert all((prepared / "set" / row["path"]).is_file() for row in rows)
    assert "all is well" in invoke("data", "verify", prepared / "set", "--jobs", 1)
    told = json.loads((prepared / "set" / "prepare.json").read_bytes())
    assert set(told["counts"]["train"]) == set(KEPT)


def test_tables_plots_and_json_of_eval_hold_them(run: Path) -> None:
    out = invoke("eval", run, "--cache", run.parent / "cache", "--threads", 1, "--json", "-")
    assert json.loads(out)["data"]["labels"] == list(KEPT)
    folder = run / "eval" / "test-centre"
    with (folder / "confusion.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["true_label"] for row in rows] == list(KEPT)
    assert (folder / "confusion.png").stat().st_size > 1000


def test_the_bundle_holds_them_and_answers_with_one(run: Path) -> None:
    invoke("export", run, "--target", "onnx", "--cache", run.parent / "cache")
    bundle = run.with_name("mine.edgepkd")
    assert read_bundle(bundle).manifest.labels == KEPT
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "50% off, Café, walk 🚶, चलना" in card
    assert r"\$x\_{\$ \*a\* \`b\`\|c, " in card
    clip = run.parent / "source" / "50% off" / "g0.avi"
    answers: list[dict[str, Any]] = [json.loads(line) for line in invoke(
        "run", clip, "--model", bundle, "--json", "-", "-q").splitlines()]
    assert answers[0]["label"] in KEPT
    table = invoke("run", clip, "--model", bundle, "--save", run.parent / "saved.mp4", "-q")
    assert answers[0]["label"].split()[0] in table
