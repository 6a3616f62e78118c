"""A run whose training is over: which networks it has, and whether the fit is theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edgepkd.cascade import ExitPolicy, WiseWeights
from edgepkd.errors import DataError, ModelError
from edgepkd.logits.fit_files import write_fitted
from edgepkd.models.checkpoint import save_network
from edgepkd.models.macs import macs_per_exit
from edgepkd.pipeline.trained_run import clip_gmac, open_run
from edgepkd.training.predict import views_protocol, weights_sha256
from tests.models.networks import small_network
from tests.training.tiny_set import make_run, make_set

MV = ("mv",)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", data, modalities=("iframe", "mv"))


def fit(run: Path, digest: str) -> None:
    weights = WiseWeights(MV, tuple((0.0,) * k + (1.0,) for k in range(4)))
    write_fitted({MV: (weights, ExitPolicy.constant(MV, threshold=1.0))}, run,
                 facts={"weights_sha256": {"mv": digest}})


def test_the_networks_that_are_there_are_read(run: Path) -> None:
    opened = open_run(run)
    assert tuple(opened.networks) == ("mv", "iframe")
    assert opened.record.labels == ("left", "right")
    assert opened.hashes == {m: weights_sha256(n) for m, n in opened.networks.items()}
    assert (opened.fitted, opened.quantization, opened.is_quantized) == ({}, None, False)
    assert not opened.networks["mv"].training


def test_a_run_without_networks_says_how_to_get_them(run: Path) -> None:
    for path in (*run.glob("mv.*"), *run.glob("iframe.*")):
        path.unlink()
    with pytest.raises(DataError, match=r"has no network with all exits.*edgepkd train exits"):
        open_run(run)
    with pytest.raises(DataError, match="is no training run"):
        open_run(run / "absent")


@pytest.mark.parametrize("lost", ["mv.json", "mv.safetensors"])
def test_half_a_network_is_an_error(run: Path, lost: str) -> None:
    (run / lost).unlink()
    with pytest.raises(ModelError, match=r"mv\."):
        open_run(run)


@pytest.mark.slow
def test_a_fit_must_be_of_these_very_weights(run: Path) -> None:
    fit(run, open_run(run).hashes["mv"])
    assert set(open_run(run).fitted) == {MV}
    network = small_network(num_classes=2)
    with torch.no_grad():
        network.heads[0].fc.bias += 1
    save_network(network, run / "mv")
    with pytest.raises(DataError, match=r"was fitted to other weights of mv.*edgepkd wise fit"):
        open_run(run)
    for path in run.glob("mv.*"):
        path.unlink()
    assert set(open_run(run).fitted) == {MV}, "of a network that is not here nothing is said"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_a_damaged_record_of_quantising_is_refused(run: Path, text: str) -> None:
    (run / "quantize.json").write_text(json.dumps({"method": "ptq"}))
    assert open_run(run).quantization == {"method": "ptq"}
    (run / "quantize.json").write_text(text)
    with pytest.raises(DataError, match=r"quantize\.json is damaged"):
        open_run(run)


def test_the_cost_of_a_clip_counts_segments_and_crops(run: Path) -> None:
    opened = open_run(run)
    inputs = {m: opened.record.recipe.inputs[m] for m in opened.networks}
    one = clip_gmac(opened, views_protocol(inputs))
    many = clip_gmac(opened, views_protocol(inputs, crops=10, segments={"mv": 3}))
    rows = macs_per_exit(opened.networks["mv"], crop_px=32)
    assert one["mv"] == pytest.approx([row.segment("pool_first") / 1e9 for row in rows])
    assert many["mv"] == pytest.approx([30 * gmac for gmac in one["mv"]])
    assert many["iframe"] == pytest.approx([10 * gmac for gmac in one["iframe"]])


def test_what_was_wrong_after_training_is_read_again(data: Path, tmp_path: Path) -> None:
    """It is no error: networks without such a record, or with a damaged one, are read too."""
    answered = {"num_clips": 10, "num_most_frequent": 5, "num_right": [5]}
    health = {"exits": [4], "num_features": 64, "num_zero": 60, "num_zero_at_start": 2,
              "first_loss": 0.7, "lowest_loss": 0.6, "train": answered, "calibration": None}
    run = open_run(make_run(tmp_path / "bad", data, modalities=("mv",), health=health))
    assert run.findings[0].startswith("mv: 60 of 64 last features are always zero")
    assert "at chance on training clips" in run.findings[1]
    for extra in ({}, {"health": {**health, "num_zero": "many"}}):
        old = open_run(make_run(tmp_path / f"old{len(extra)}", data, modalities=("mv",), **extra))
        assert (old.findings, dict(old.health)) == ((), {})
