"""`eval` as a function: files that agree with the logits, clips that may be evaluated on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepkd.cascade import ExitPolicy, WiseWeights
from edgepkd.config import Modality
from edgepkd.datasets.index import read_index
from edgepkd.errors import ConfigError, DataError, UsageError
from edgepkd.logits.clip_logits import load_logits
from edgepkd.logits.fit_files import write_fitted
from edgepkd.pipeline import evaluate as verb
from edgepkd.pipeline.evaluate import FILES, EvalConfig, EvalResult, evaluate, read_facts
from edgepkd.pipeline.flatness import FlatnessConfig
from tests.training.tiny_set import change_index, make_run, make_set

TRAINED: tuple[Modality, ...] = ("mv", "iframe")


@pytest.fixture(autouse=True)
def no_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(verb, "draw_plots", lambda *_, **__: None)


@pytest.fixture
def drawn() -> None:
    """Ask for this to have plots."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "a", data, modalities=TRAINED)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def evaluated(run: Path, cache: Path, **settings: Any) -> EvalResult:
    return evaluate(EvalConfig(**{"run": run, "cache": cache, "split": "calibration", **settings}))


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_all_files_are_written_and_say_the_same(run: Path, cache: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    result = evaluate(EvalConfig(run=run, cache=cache, split="calibration"),
                      on_progress=lambda *told: seen.append(told))
    assert result.out == run / "eval" / "calibration-centre"
    assert {path.name for path in result.out.iterdir()} == set(FILES)
    assert seen[-1] == ("clips", 2, 2)
    facts = read_facts(result)
    assert facts["data"]["num_clips"] == len(load_logits(result.out / "logits.npz")) == 2
    assert facts["networks"]["mv"]["weights_sha256"] == result.run.hashes["mv"]
    assert (facts["wise"], facts["policy"], facts["flatness"]) == ("plain sums", None, None)
    assert facts["notes"] == list(result.notes)
    kinds = [score["kind"] for score in facts["scores"]]
    assert kinds == ["exit"] * 8 + ["modality"] * 2 + ["prefix"] * 8


@pytest.mark.slow
def test_scores_are_those_of_the_logits(run: Path, cache: Path) -> None:
    result = evaluated(run, cache, split="train")
    answered = load_logits(result.out / "logits.npz")
    right = answered.logits["iframe"][:, 3].argmax(1) == answered.labels
    assert result.evaluation.score("exit", "iframe_4").top1.value == pytest.approx(right.mean())
    sums = np.asarray(sum(answered.logits[m].sum(axis=1) for m in TRAINED)).argmax(1)
    assert result.evaluation.score("prefix", "iframe_4").top1.value == pytest.approx(
        np.mean(sums == answered.labels))


@pytest.mark.slow
def test_the_cascade_follows_the_policy_that_was_fitted(run: Path, cache: Path) -> None:
    hashes = {m: json.loads((run / f"{m}.json").read_text())["weights_sha256"] for m in TRAINED}
    weights = WiseWeights(TRAINED, tuple((0.0,) * k + (1.0,) for k in range(8)))
    policy = ExitPolicy(TRAINED, (2.0,) * 8, (1.0,) * 4 + (0.0,) * 4)
    write_fitted({TRAINED: (weights, policy)}, run, facts={"weights_sha256": hashes})
    found = evaluated(run, cache).evaluation
    assert found.mean_exit == 5
    assert found.score("prefix", "iframe_1").share == 1
    assert found.score("cascade", "mv,iframe").gmac == pytest.approx(
        found.score("prefix", "iframe_1").gmac)
    other = evaluated(run, cache, order="iframe,mv")
    assert other.evaluation.order == ("iframe", "mv")
    assert any("nothing was fitted for this order" in note for note in other.notes)


@pytest.mark.slow
def test_a_moved_index_is_cut_alike(run: Path, cache: Path, data: Path, tmp_path: Path) -> None:
    own = evaluated(run, cache)
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    for named in (moved, moved / "index.csv"):
        there = evaluated(run, cache, data=named, out=tmp_path / named.name)
        assert there.predicted.answered.paths == own.predicted.answered.paths
        np.testing.assert_array_equal(there.predicted.answered.logits["mv"],
                                      own.predicted.answered.logits["mv"])


@pytest.mark.slow
def test_calibration_was_held_out_of_training(run: Path, cache: Path) -> None:
    groups = {split: set(evaluated(run, cache, split=split).predicted.answered.groups)
              for split in ("train", "calibration", "test")}
    assert groups["train"] | groups["calibration"] | groups["test"] == {
        f"scene0{n}" for n in range(4)}
    assert sum(map(len, groups.values())) == 4


def test_clips_that_were_trained_on_are_refused_under_any_name(
    run: Path, cache: Path, data: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(data, tmp_path / "own"))
    change_index(own, lambda row: {**row, "split": "test"})
    with pytest.raises(DataError, match=r"4 of these clips were trained on \(equal SHA-256\)"):
        evaluated(run, cache, data=own, split="test")
    assert not (run / "eval-log.jsonl").exists()


def test_a_clip_that_cannot_be_read_is_left_out_and_listed(
    run: Path, cache: Path, data: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(data, tmp_path / "own"))
    broken = next(s for s in read_index(own / "index.csv") if s.split == "calibration")
    broken.path.write_bytes(b"nothing")
    change_index(own, lambda row: {**row, "sha256": ""})
    result = evaluated(run, cache, data=own)
    (skipped,) = read_facts(result)["data"]["skipped"]
    assert skipped["path"].endswith(broken.path.name)
    assert len(result.predicted.answered) == 1


@pytest.mark.slow
def test_results_elsewhere_are_replaced_only_with_force(
    run: Path, cache: Path, tmp_path: Path
) -> None:
    evaluated(run, cache)
    evaluated(run, cache)  # those in the run's own folder are
    evaluated(run, cache, out=tmp_path / "out")
    with pytest.raises(UsageError, match="is there already"):
        evaluated(run, cache, out=tmp_path / "out")
    evaluated(run, cache, out=tmp_path / "out", force=True)


@pytest.mark.parametrize(("settings", "error", "message"), [
    ({"split": "val"}, ConfigError, "split is 'val'; allowed: test, calibration, train"),
    ({"views": "30"}, ConfigError, "views is '30'; allowed: centre, 10crop"),
    ({"threads": 0}, ConfigError, "threads is 0"),
    ({"segments": {"mv": 0}}, ConfigError, "segments of mv is 0"),
    ({"segments": {"residual": 3}}, UsageError, "segments are given for residual"),
    ({"order": "residual"}, UsageError, "no network for residual; allowed: orders of mv, iframe"),
    ({"data": Path("nowhere")}, DataError, "nowhere"),
])
def test_wrong_requests_leave_no_look(
    run: Path, cache: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluated(run, cache, **settings)
    assert not (run / "eval-log.jsonl").exists()


@pytest.mark.slow
def test_flatness_is_of_training_clips(run: Path, cache: Path) -> None:
    result = evaluated(run, cache, flatness=FlatnessConfig(num_clips=2, num_probes=2, steps=1))
    facts = read_facts(result)["flatness"]
    assert facts["split"] == "train"
    assert set(facts["networks"]) == set(TRAINED)
    assert {found["num_clips"] for found in facts["networks"].values()} == {2}
