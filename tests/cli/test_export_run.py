"""`edgepkd export RUN`: parity first, weights fitted on what is deployed, then the bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from edgepkd.bundle.engine_files import read_engines
from edgepkd.bundle.reading import read_bundle
from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.config import Modality
from edgepkd.datasets.index import labels_of, read_index
from edgepkd.deploy.parity import SegmentChain
from edgepkd.engines.graph import is_quantized, load
from edgepkd.logits import fit
from edgepkd.logits.clip_logits import save_logits
from edgepkd.logits.fit_files import write_fitted
from edgepkd.pipeline import export_run
from edgepkd.pipeline.held_out import pooled_folds
from edgepkd.training.runs import read_run
from tests.cli.calling import invoke
from tests.logits.made_logits import make_logits
from tests.training.tiny_set import (
    Row,
    change_index,
    make_run,
    make_set,
)

pytestmark = pytest.mark.slow

TRAINED: tuple[Modality, ...] = ("mv", "iframe")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two of three networks, as `train` leaves them."""
    return make_run(tmp_path_factory.mktemp("runs") / "tiny", data, modalities=TRAINED)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "tiny"))


def export(run: Path, cache: Path, *arguments: object) -> Result:
    return invoke("export", run, "--target", "onnx", "--cache", cache, *arguments)


def test_a_float_run_becomes_a_bundle(run: Path, cache: Path) -> None:
    done = export(run, cache, "--json", "-")
    assert done.exit_code == 0, done.output
    line = json.loads(done.stdout.splitlines()[0])
    assert (line["kind"], line["name"]) == ("bundle", "tiny")
    assert "parity over 2 clips only" in done.stderr
    bundle = read_bundle(run.with_name("tiny.edgepkd"))
    assert set(bundle.manifest.inputs) == set(TRAINED)
    assert {s.precision for s in bundle.manifest.segments} == {"fp32"}
    assert set(bundle.wise) == {"mv", "iframe", "mv,iframe", "iframe,mv"}
    parity = bundle.manifest.provenance["parity"]
    assert len(parity["exits"]) == 8
    assert {row["agreement"] for row in parity["exits"]} == {1.0}
    assert parity["allowed_drift"] == []
    card = (bundle.path / "MODEL_CARD.md").read_text()
    for words in ("# tiny", "Segments are float", "| mv_1 |", "upper limit", "2 clips only"):
        assert words in card


def test_the_batch_is_free_or_fixed_to_a_clip(run: Path, cache: Path) -> None:
    def batches(folder: Path) -> set[object]:
        bundle = read_bundle(folder)
        inputs = [load((bundle.path / s.file).read_bytes()).graph.input[0]
                  for s in bundle.manifest.segments]
        dims = [value.type.tensor_type.shape.dim[0] for value in inputs]
        return {d.dim_param or d.dim_value for d in dims}

    assert export(run, cache, "--out", run / "free.edgepkd").exit_code == 0
    assert export(run, cache, "--static", "--out", run / "fixed.edgepkd").exit_code == 0
    assert batches(run / "free.edgepkd") == {"n"}
    assert batches(run / "fixed.edgepkd") == {1}


def test_weights_and_policy_are_those_of_the_deployed_logits(
    run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted_on: list[Mapping[Modality, Any]] = []
    real = fit.Evidence

    def watch(logits: Any, *rest: Any) -> Any:
        fitted_on.append(logits)
        return real(logits, *rest)

    monkeypatch.setattr(fit, "Evidence", watch)
    monkeypatch.setattr(SegmentChain, "clip_logits",
                        lambda chain, x: np.full((4, 2), [1.0, 3.0]))
    assert export(run, cache, "--allow-drift").exit_code == 0
    assert (fitted_on[0]["mv"] == [1.0, 3.0]).all()


def test_what_was_fitted_on_folds_goes_into_the_bundle_as_it_is(run: Path, cache: Path) -> None:
    """They are more clips than the calibration split, which the segments answer, has."""
    made = make_logits(num_clips=24)
    part = replace(made, logits={m: made.logits[m][..., :2] for m in TRAINED},
                   labels=np.arange(24) % 2, label_names=read_run(run).labels)
    save_logits(pooled_folds(run, [part, part], seed=1), run / "folds" / "logits.npz")
    assert invoke("wise", "fit", run, "--cache", cache).exit_code == 0
    assert export(run, cache).exit_code == 0
    bundle = read_bundle(run.with_name("tiny.edgepkd"))
    fitted = json.loads((run / "policy.json").read_text())["orders"]
    assert {order: list(policy.temperatures) for order, policy in bundle.policy.items()} == {
        order: policy["temperatures"] for order, policy in fitted.items()}
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**document, "seed": 5}))
    refused = export(run, cache, "--force")
    assert refused.exit_code == 1
    assert "is of folds with another recipe, seed or clips" in refused.stderr


def test_drift_stops_the_export_unless_it_is_allowed(
    run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SegmentChain.clip_logits

    def wrong(chain: SegmentChain, x: Any) -> Any:
        logits = real(chain, x)
        if x.shape[1] == 2:  # motion vectors
            logits[2] *= -1  # exit 3 says the opposite
        return logits

    monkeypatch.setattr(SegmentChain, "clip_logits", wrong)
    refused = export(run, cache)
    assert refused.exit_code == 1
    assert "logits of mv_3 of OpenVINO differ from those of torch FP32 by 200 %" in refused.stderr
    assert "mv_2" not in refused.stderr
    assert "tiny.parity.md" in refused.stderr
    assert not run.with_name("tiny.edgepkd").exists()
    report = json.loads(run.with_name("tiny.parity.json").read_text())
    assert report["refused"][0].startswith("logits of mv_3 of OpenVINO differ")
    assert len(report["exits"]) == 8
    assert export(run, cache, "--allow-drift").exit_code == 0
    provenance = read_bundle(run.with_name("tiny.edgepkd")).manifest.provenance
    assert provenance["parity"]["allowed_drift"] == report["refused"]


def test_the_default_order_can_be_named(run: Path, cache: Path) -> None:
    refused = export(run, cache, "--order", "residual")
    assert refused.exit_code == 2
    assert "has no network for residual; allowed: orders of mv, iframe" in refused.stderr
    assert export(run, cache, "--order", "iframe,mv").exit_code == 0
    assert read_bundle(run.with_name("tiny.edgepkd")).manifest.cascade.default_order == (
        "iframe", "mv")


def test_without_calibration_clips_weights_must_be_there_already(
    run: Path, cache: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_train(record: Any, *_: object) -> Any:
        clips = real(record, None, None)
        return replace(clips, samples=tuple(s for s in clips.samples if s.split == "train"))

    real = export_run.clips_in_splits
    monkeypatch.setattr(export_run, "clips_in_splits", only_train)
    refused = export(run, cache)
    assert refused.exit_code == 1
    assert "no calibration clips, and nothing was fitted for the order mv,iframe" in refused.stderr
    order: Order = ("mv", "iframe")
    write_fitted({order: (WiseWeights.ones(order), ExitPolicy.constant(order, threshold=0.5))},
                 run, facts={})
    done = export(run, cache)
    assert done.exit_code == 0, done.output
    assert "compared on training clips" in done.stderr
    bundle = read_bundle(run.with_name("tiny.edgepkd"))
    assert bundle.policy["mv,iframe"].thresholds == (0.5,) * 8
    assert bundle.manifest.provenance["train"]["num_clips"] == 4
    assert "training clips, which the networks were trained on: cascade " in done.stdout
    assert "On training clips, which the" in (bundle.path / "MODEL_CARD.md").read_text()


def test_an_int8_run_becomes_a_bundle_and_engines_in_one_go(run: Path, cache: Path) -> None:
    quantised = invoke("quantize", run, "--method", "ptq", "--force", "--cache", cache)
    assert quantised.exit_code == 0, quantised.output
    done = invoke("export", run / "int8-ptq", "--target", "openvino", "--precision", "int8",
                  "--cache", cache, "--allow-drift", "--out", run / "t.edgepkd")
    assert done.exit_code == 0, done.output
    bundle = read_bundle(run / "t.edgepkd")
    assert {(s.precision, s.weight_bits) for s in bundle.manifest.segments} == {("int8", 7)}
    assert bundle.manifest.name == "tiny-int8-ptq"
    assert bundle.manifest.provenance["quantization"]["method"] == "ptq"
    assert all(is_quantized((bundle.path / s.file).read_bytes())
               for s in bundle.manifest.segments)
    pairs = {(row["form"], row["against"])
             for row in bundle.manifest.provenance["parity"]["exits"]}
    assert pairs == {("OpenVINO", "torch INT8"), ("torch INT8", "torch FP32"),
                     ("OpenVINO", "torch FP32")}
    plans = read_engines(bundle.path, "openvino").plans
    assert set(plans) == {f"{m}_{k}" for m in TRAINED for k in range(1, 5)}
    assert {plan.precision for plan in plans.values()} == {"int8"}


def test_a_bundle_that_is_there_is_kept_unless_forced(run: Path, cache: Path) -> None:
    assert export(run, cache).exit_code == 0
    target = run.with_name("tiny.edgepkd")
    before = (target / "manifest.json").read_bytes()
    refused = export(run, cache)
    assert refused.exit_code == 1
    assert "exists already" in refused.stderr
    assert "--force" in refused.stderr
    assert (target / "manifest.json").read_bytes() == before
    assert export(run, cache, "--force").exit_code == 0


@pytest.mark.parametrize(("change", "words"), [
    ("one label", "clips of 1 labels"), ("no network", "has no network with all exits")])
def test_a_run_that_cannot_be_exported_says_why(
    run: Path, cache: Path, data: Path, tmp_path: Path, change: str, words: str
) -> None:
    if change == "no network":
        for file in [*run.glob("*.safetensors"), *run.glob("mv.json"), *run.glob("iframe.json")]:
            file.unlink()
        done = export(run, cache)
    else:
        copy = Path(shutil.copytree(data, tmp_path / "data"))
        labels = labels_of(read_index(copy / "index.csv"))

        def keep(row: Row) -> Row | None:
            drop = row["split"] == "calibration" and row["label"] == labels[0]
            return None if drop else row

        change_index(copy, keep)
        done = export(run, cache, "--data", copy)
    assert done.exit_code == 1
    assert words in done.stderr
    assert "Traceback" not in done.output
    assert not run.with_name("tiny.edgepkd").exists()


def test_options_of_runs_are_refused_for_bundles(run: Path, cache: Path) -> None:
    assert export(run, cache).exit_code == 0
    refused = invoke("export", run.with_name("tiny.edgepkd"), "--target", "openvino", "--static")
    assert refused.exit_code == 2
    assert "--static is given with a bundle" in refused.stderr


def test_an_unknown_target_is_named_before_anything_is_read(run: Path, cache: Path) -> None:
    refused = invoke("export", run, "--target", "jetson-nano-9", "--cache", cache)
    assert refused.exit_code == 2
    assert "jetson-orin-nano" in refused.stderr


@pytest.mark.parametrize(("option", "code", "words"), [
    ("--dla", 2, "dla"), (None, 1, "torch-tensorrt")])
def test_torch_tensorrt_is_refused_before_anything_is_written(
    run: Path, cache: Path, option: str | None, code: int, words: str
) -> None:
    more = [option, 0] if option else []
    refused = invoke("export", run, "--target", "tensorrt", "--via", "torch-tensorrt",
                     "--cache", cache, *more)
    assert refused.exit_code == code
    assert words in refused.stderr
    assert not run.with_name("tiny.edgepkd").exists()
