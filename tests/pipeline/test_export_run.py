"""`export` of a run as a function: where the bundle goes, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgepkd
from edgepkd.bundle.manifest import MANIFEST
from edgepkd.bundle.reading import Bundle, read_bundle
from edgepkd.cascade import Cascade, ExitPolicy, WiseWeights
from edgepkd.config import InputSpec
from edgepkd.datasets.index import read_index
from edgepkd.errors import BundleError, ConfigError, DataError, EdgepkdError, MissingExtraError
from edgepkd.pipeline.evaluate import EvalConfig, evaluate
from edgepkd.pipeline.export_bundle import ExportConfig
from edgepkd.pipeline.export_run import bundle_path, export_run
from edgepkd.pipeline.quantize import QuantizeConfig, quantize
from edgepkd.pipeline.train import ExitsConfig, TrainConfig, train_all_exits, train_backbones
from edgepkd.training.features import FeatureCache
from tests.training.tiny_set import make_set, write_recipe


def test_the_bundle_lies_beside_the_run_unless_asked_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bundle_path(ExportConfig(tmp_path / "a", "onnx")) == tmp_path / "a.edgepkd"
    named = ExportConfig(tmp_path / "a", "onnx", out=tmp_path / "b.edgepkd")
    assert bundle_path(named) == tmp_path / "b.edgepkd"
    (tmp_path / "a.b" / "c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a.b")
    assert bundle_path(ExportConfig(Path(), "onnx")) == tmp_path / "a.b.edgepkd"
    monkeypatch.chdir(Path("c"))
    assert bundle_path(ExportConfig(Path(".."), "onnx")) == tmp_path / "a.b.edgepkd"


@pytest.mark.parametrize(("settings", "error", "message"), [
    ({"target": "jetson-nano-9"}, ConfigError, "jetson-nano-9"),
    ({"target": "onnx"}, DataError, "is no training run"),
    ({"target": "tensorrt", "via": "torch-tensorrt", "dla": 0}, ConfigError, "--dla"),
    ({"target": "tensorrt", "via": "torch-tensorrt"}, MissingExtraError, "torch-tensorrt"),
])
def test_what_cannot_be_done_is_said_before_any_work(
    tmp_path: Path, settings: dict[str, Any], error: type[EdgepkdError], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(export_run(ExportConfig(tmp_path / "run", **settings)))
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_of_that_name_stays(tmp_path: Path) -> None:
    (tmp_path / "run.edgepkd").mkdir()
    (tmp_path / "run.edgepkd" / MANIFEST).touch()
    with pytest.raises(BundleError, match=r"run\.edgepkd exists already.*--force"):
        list(export_run(ExportConfig(tmp_path / "run", "onnx")))


# ---- stacked motion, from clips to answers


STACKED = {"inputs.mv.num_segments": 3, "inputs.mv.stack": True,
           "backbones.mv.train_segments": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def stacked(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained for two epochs, and its INT8 form in it."""
    folder = tmp_path_factory.mktemp("stacked")
    settings: dict[str, Any] = {"run": folder / "run", "cache": folder / "cache", "jobs": 1,
                                "threads": 1}
    recipe = str(write_recipe(folder / "tiny.toml"))
    for _ in train_backbones(TrainConfig(data=data, recipe=recipe, changes=STACKED, **settings)):
        pass
    for _ in train_all_exits(ExitsConfig(features=FeatureCache(folder / "features"), **settings)):
        pass
    for _ in quantize(QuantizeConfig(method="ptq", changes={"min_clips": 2}, **settings)):
        pass
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["", "int8-ptq"])
def test_a_run_with_stacked_motion_answers_alike_in_torch_and_from_its_bundle(
    stacked: Path, data: Path, tmp_path: Path, form: str
) -> None:
    cache, out = stacked.parent / "cache", tmp_path / "out.edgepkd"
    for _ in export_run(ExportConfig(stacked / form, "onnx", out=out, cache=cache,
                                     allow_drift=True)):
        pass
    bundle = read_bundle(out)
    assert bundle.manifest.schema_version == 3
    assert bundle.manifest.inputs["mv"] == InputSpec("mv", 3, resize_px=32, crop_px=32, stack=True)
    assert bundle.manifest.segment("mv", 1).input_shape == (6, 32, 32)
    assert "3 temporal segments of 32 px, stacked in one pass" in (
        out / "MODEL_CARD.md").read_text()
    result = evaluate(EvalConfig(run=stacked / form, split="calibration", cache=cache))
    logits = np.concatenate([result.predicted.answered.logits[m]
                             for m in bundle.manifest.cascade.default_order], axis=1)
    paths = [s.path for s in read_index(data / "index.csv") if s.split == "calibration"]
    assert len(paths) == len(logits) == 2
    rounding = 1e-4 if form == "" else 0.02  # a value beside a border of the INT8 grid
    with edgepkd.load(out, static=True, threads=1) as model:
        for path, rows in zip(paths, logits, strict=True):
            (answer,) = model.run(path)
            assert np.allclose(answer.probabilities, last_answer(bundle, rows), atol=rounding)
            assert answer.gmac == pytest.approx(
                sum(segment.gmac for segment in bundle.manifest.segments))  # one pass each


def last_answer(bundle: Bundle, logits: np.ndarray) -> np.ndarray:
    """Probabilities after all exits, whose `logits` are [exits, labels]."""
    order = bundle.manifest.cascade.default_order
    key = ",".join(order)
    cascade = Cascade(WiseWeights(order, bundle.wise[key]), ExitPolicy.constant(
        order, threshold=1.0, temperatures=bundle.policy[key].temperatures))
    return [cascade.push(row) for row in logits][-1].probabilities
